"""The catalog queries whose answers dependents.py judges. They call functions of pg_catalog only, and lock nothing.

https://www.postgresql.org/docs/current/catalog-pg-depend.html
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pg_hotfix.promises.column.catalog import columns_tree_sql
from pg_hotfix.server.session import literal

if TYPE_CHECKING:
    from pg_hotfix.file.hotfix_file import Hotfix

# Languages whose functions have no source text to search.
COMPILED = ("internal", "c")
# A cheap filter; `takes_whole_rows` then reads the tokens.
WHOLE_ROWS = "pg_catalog.strpos(h.prosrc, '*') > 0"
COMPILED_IN_SQL = f"({', '.join(map(literal, COMPILED))})"


def tables_sql(hotfix: Hotfix) -> str:
    """Selects one JSON text and its hash: the `tables` that lose the expected columns, the `objects` that depend on
    these columns or on what else the revert lines drop, and the `triggers` on the tables.

    If any dependency lets PostgreSQL drop an object with the column, it `goes`; otherwise PostgreSQL refuses. A part of
    another object, such as the index of a UNIQUE or a partition's copy, follows that object and is left out.
    """
    return f"""{common_sql(hotfix)}
), part AS (
    SELECT classid, objid, objsubid, pg_catalog.bool_or(deptype <> 'n') AS goes FROM reached
    GROUP BY classid, objid, objsubid HAVING NOT pg_catalog.bool_or(deptype IN ('r', 'i', 'P', 'S'))
), object (classid, objid, objsubid, goes, name, relation, contype, conkey) AS (
    SELECT {classid("pg_class")}, d.adrelid, d.adnum::integer, false, NULL::pg_catalog.name, NULL::pg_catalog.oid,
        NULL::pg_catalog."char", NULL::smallint[]
    FROM part JOIN pg_catalog.pg_attrdef d ON part.classid = {classid("pg_attrdef")} AND d.oid = part.objid
    WHERE NOT EXISTS (SELECT FROM root WHERE root.relation = d.adrelid AND root.number = d.adnum)
    UNION SELECT part.*, coalesce(k.conname, c.relname, s.stxname, t.tgname, w.polname, p.proname),
        coalesce(k.conrelid, own.refobjid), coalesce(k.contype, CASE WHEN c.relkind = 'S' THEN c.relkind END),
        coalesce(k.conkey, ARRAY[own.refobjsubid]::smallint[])
    FROM part
    LEFT JOIN pg_catalog.pg_constraint k ON part.classid = {classid("pg_constraint")} AND k.oid = part.objid
    LEFT JOIN pg_catalog.pg_class c ON part.classid = {classid("pg_class")} AND c.oid = part.objid
    LEFT JOIN pg_catalog.pg_statistic_ext s ON part.classid = {classid("pg_statistic_ext")} AND s.oid = part.objid
    LEFT JOIN pg_catalog.pg_trigger t ON part.classid = {classid("pg_trigger")} AND t.oid = part.objid
    LEFT JOIN pg_catalog.pg_policy w ON part.classid = {classid("pg_policy")} AND w.oid = part.objid
    LEFT JOIN pg_catalog.pg_proc p ON part.classid = {classid("pg_proc")} AND p.oid = part.objid
    LEFT JOIN pg_catalog.pg_depend own ON c.relkind = 'S' AND own.classid = part.classid AND own.objid = part.objid
        AND own.refclassid = part.classid AND own.deptype = 'a'
    -- NOT NULL is a column's own, and a child's CHECK its parent's.
    WHERE part.classid <> {classid("pg_attrdef")} AND k.contype IS DISTINCT FROM 'n' AND coalesce(k.coninhcount, 0) = 0
), looked (seen) AS MATERIALIZED (
SELECT pg_catalog.json_build_object('tables', (SELECT pg_catalog.json_agg(DISTINCT relname) FROM root), 'objects', (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object('type', i.type, 'identity', i.identity, 'goes', o.goes,
        'name', o.name, 'table', c.relname, 'contype', o.contype, 'columns', (
            SELECT pg_catalog.json_agg(root.name) FROM root
            WHERE root.relation = o.relation AND root.number = ANY (o.conkey)),
        'spans', pg_catalog.cardinality(o.conkey)) ORDER BY o.classid, o.objid, o.objsubid)
    FROM object o LEFT JOIN pg_catalog.pg_class c ON c.oid = o.relation
    CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.classid, o.objid, o.objsubid) AS i
), 'partition key', (
    SELECT pg_catalog.json_agg(DISTINCT i.identity) FROM root JOIN pg_catalog.pg_depend d
        ON d.classid = {classid("pg_class")} AND d.objid = root.relation AND d.objsubid = root.number
        AND d.refclassid = d.classid AND d.refobjid = d.objid AND d.refobjsubid = 0 AND d.deptype = 'i'
    CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.refclassid, d.refobjid, 0) AS i
), 'replica identity', (
    SELECT pg_catalog.json_agg(DISTINCT i.identity) FROM reached r JOIN pg_catalog.pg_index x
        ON r.classid = {classid("pg_class")} AND x.indexrelid = r.objid AND x.indisreplident
    CROSS JOIN LATERAL pg_catalog.pg_identify_object(r.classid, x.indrelid, 0) AS i
), 'triggers', (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object('identity', i.identity, 'name', h.tgname,
        'function', f.identity, 'routine', h.proname, 'language', h.lanname, 'source', {text_of("h.prosrc")},
        'arguments', (
            SELECT pg_catalog.json_agg(pg_catalog.convert_from(pg_catalog.decode(argument, 'escape'),
                pg_catalog.current_setting('server_encoding')))
            FROM pg_catalog.string_to_table(pg_catalog.encode(h.tgargs, 'escape'), '\\000') AS argument
        )) ORDER BY h.oid)
    FROM hooked h CROSS JOIN LATERAL pg_catalog.pg_identify_object({classid("pg_trigger")}, h.oid, 0) AS i
    CROSS JOIN LATERAL pg_catalog.pg_identify_object({classid("pg_proc")}, h.function, 0) AS f
    WHERE h.tgnargs > 0 OR EXISTS (SELECT FROM root WHERE h.lanname NOT IN {COMPILED_IN_SQL}
        AND root.relation = h.tgrelid AND ({mentions("h.prosrc", "root.name")} OR {WHOLE_ROWS}))
))::text)
SELECT seen, pg_catalog.hashtextextended(seen COLLATE pg_catalog."C", 0) FROM looked"""


def functions_sql(hotfix: Hotfix) -> str:
    """Selects one JSON text: further functions whose text may name a column and its table; NULL if there are none. It
    reads the body of every function, 10,000 in about 0.2 s, so it must not run under a lock."""
    return f"""{common_sql(hotfix)}
)
SELECT pg_catalog.json_agg(pg_catalog.json_build_object('type', i.type, 'identity', i.identity, 'name', p.proname,
    'language', l.lanname, 'source', {text_of("p.prosrc")}, 'sure', b.sure,
    'callers', b.callers) ORDER BY p.oid)::text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname NOT IN {COMPILED_IN_SQL}
JOIN pg_catalog.pg_namespace n
    ON n.oid = p.pronamespace AND n.nspname NOT IN ('pg_catalog', 'information_schema')
-- About the table for sure: it takes or returns its rows, or belongs to a trigger that goes. Who stays may call it.
CROSS JOIN LATERAL (SELECT pg_catalog.bool_or(
        root.reltype = ANY (p.proargtypes) OR root.reltype = p.prorettype OR EXISTS (
            SELECT FROM pg_catalog.pg_trigger t JOIN dropped d
                ON d.classid = {classid("pg_trigger")} AND d.objid = t.oid AND t.tgfoid = p.oid)) AS sure,
        (SELECT pg_catalog.json_agg({text_of("h.prosrc")}) FROM hooked h
            WHERE {mentions("h.prosrc", "p.proname")}) AS callers,
        pg_catalog.bool_or({mentions("p.prosrc", "root.relname")}) AS named
    FROM root WHERE {mentions("p.prosrc", "root.name")}) AS b
CROSS JOIN LATERAL pg_catalog.pg_identify_object({classid("pg_proc")}, p.oid, 0) AS i
WHERE (b.sure OR b.named OR b.callers IS NOT NULL) AND p.oid NOT IN (SELECT function FROM hooked)
    AND NOT EXISTS (SELECT FROM reached r WHERE r.classid = {classid("pg_proc")} AND r.objid = p.oid)"""


def common_sql(hotfix: Hotfix) -> str:
    """The CTEs of both queries: `root` is the columns that go, `dropped` what the revert lines drop, `reached` all that
    depends on either, with the kind of dependency, and `hooked` the triggers that stay."""
    return f"""WITH RECURSIVE {columns_tree_sql(hotfix.expectations)}, root AS (
    SELECT DISTINCT a.attrelid AS relation, a.attnum AS number, a.attname AS name, c.relname, c.reltype
    FROM going JOIN pg_catalog.pg_attribute a ON a.attrelid = going.relation AND a.attnum = going.number
    JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    -- What a child has of its own as well stays there.
    WHERE a.attinhcount = 0 OR (a.attinhcount = 1 AND NOT a.attislocal)
), dropped AS ({dropped_sql(hotfix)}
), reached (classid, objid, objsubid, deptype) AS (
    (SELECT {classid("pg_class")}, relation, number::integer, 'r'::pg_catalog."char" FROM root
        UNION ALL SELECT classid, objid, 0, 'r' FROM dropped)
    UNION SELECT e.* FROM reached r CROSS JOIN LATERAL (
        SELECT d.classid, d.objid, d.objsubid, d.deptype FROM pg_catalog.pg_depend d
        WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND (r.objsubid = 0 OR d.refobjsubid = r.objsubid)
        -- Without CASCADE no part is dropped of a whole that is to stay: the rule of a view, the index of a constraint.
        UNION ALL SELECT d.refclassid, d.refobjid, d.refobjsubid, 'n' FROM pg_catalog.pg_depend d
        WHERE r.deptype IN ('n', 'a') AND d.classid = r.classid AND d.objid = r.objid AND d.objsubid = r.objsubid
            AND d.deptype = 'i'
    ) AS e
), hooked AS (
    SELECT t.oid, t.tgname, t.tgrelid, t.tgargs, t.tgnargs, p.oid AS function, p.proname, p.prosrc, l.lanname
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    WHERE t.tgrelid IN (SELECT relation FROM root)
        -- One that goes, or a partition's copy of a trigger that is here, too.
        AND NOT EXISTS (SELECT FROM reached r
            WHERE r.classid = {classid("pg_trigger")} AND r.objid = t.oid AND r.deptype <> 'n')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger u
            WHERE u.oid = t.tgparentid AND u.tgrelid IN (SELECT relation FROM root))"""


def dropped_sql(hotfix: Hotfix) -> str:
    """Selects what the revert lines drop beside columns. A name without a schema means the first expectation's schema,
    which is first in the search_path. A function must be the only one of its name and number of arguments."""
    schema = hotfix.expectations[0].schema
    named = [
        {
            "kind": one.kind.lower(),
            "schema": schema if one.schema is None else one.schema,
            "name": one.name,
            "relation": one.table,
            "arguments": None if one.arguments is None else len(one.arguments),
        }
        for one in (hotfix.revert.dropped if hotfix.revert else ())
    ]
    return f"""
    SELECT found.classid, found.objid
    FROM pg_catalog.json_to_recordset({literal(json.dumps(named, ensure_ascii=False))}) AS d (kind text,
        schema pg_catalog.name, name pg_catalog.name, relation pg_catalog.name, arguments integer)
    JOIN pg_catalog.pg_namespace n ON n.nspname = d.schema
    CROSS JOIN LATERAL (
        SELECT {classid("pg_class")} AS classid, c.oid AS objid FROM pg_catalog.pg_class c
        WHERE c.relnamespace = n.oid AND c.relname = d.name AND d.kind = CASE c.relkind
            WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' END
        UNION ALL SELECT {classid("pg_type")}, t.oid FROM pg_catalog.pg_type t
        WHERE t.typnamespace = n.oid AND t.typname = d.name AND d.kind IN ('type', 'domain')
        UNION ALL SELECT {classid("pg_proc")}, pg_catalog.min(p.oid) FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = n.oid AND p.proname = d.name AND p.pronargs = d.arguments
            AND d.kind = CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END HAVING pg_catalog.count(*) = 1
        UNION ALL SELECT {classid("pg_trigger")}, t.oid
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
        WHERE c.relnamespace = n.oid AND c.relname = d.relation AND t.tgname = d.name AND d.kind = 'trigger'
        UNION ALL SELECT {classid("pg_policy")}, w.oid
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_policy w ON w.polrelid = c.oid
        WHERE c.relnamespace = n.oid AND c.relname = d.relation AND w.polname = d.name AND d.kind = 'policy'
    ) AS found"""


def classid(catalog: str) -> str:
    return f"'pg_catalog.{catalog}'::pg_catalog.regclass::pg_catalog.oid"


def mentions(source: str, name: str) -> str:
    """Whether the source may use the name, in upper or lower case. A quote in the name may be doubled any number of
    times in the source, so only the part before it is searched."""
    text, part = (f'pg_catalog.lower({one}::text COLLATE pg_catalog."C")' for one in (source, name))
    unquoted = f"pg_catalog.split_part(pg_catalog.translate({part}, '\"', ''''), '''', 1)"
    return f"pg_catalog.strpos({text}, {unquoted}) > 0"


def text_of(source: str) -> str:
    """The source as any client can read it: in a database with SQL_ASCII it may hold any bytes."""
    ascii_only = f"pg_catalog.regexp_replace({source}, '[^\\x01-\\x7f]', '?', 'g')"
    return f"CASE pg_catalog.current_setting('server_encoding') WHEN 'SQL_ASCII' THEN {ascii_only} ELSE {source} END"
