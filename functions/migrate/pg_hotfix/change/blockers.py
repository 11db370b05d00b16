"""Who holds the tables that a hotfix needs, as PostgreSQL tells it to a role without special rights."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pg_hotfix import errors
from pg_hotfix.file.hotfix_file import Hotfix
from pg_hotfix.promises.column.catalog import columns_tree_sql
from pg_hotfix.server.session import literal, read_as, with_names
from pg_hotfix.server.signals import LockNotAvailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pg_hotfix.change.job import Bookkeeping
    from pg_hotfix.file.hotfix_file import PackagedFile
    from pg_hotfix.server.session import Session

# A busy table has hundreds; a log event has 256 kB.
SHOWN_BLOCKERS = 50
# Who waits for whom is asked for so many of them, so many steps far, and for so long at most.
ASKED_BLOCKERS = 20
LONGEST_CHAIN = 5
ASKING_MS = 300
# Of what the server said of a lock so many words are looked up as tables' names.
SUSPECTED_WORDS = 200
# All that initdb makes is below. https://www.postgresql.org/docs/current/system-catalog-initial-data.html
FIRST_OWN_OID = 16384

# https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
MODES = (
    *("AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock"),
    *("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"),
)
# The weakest mode in the way, counted from 1, of ACCESS EXCLUSIVE; of SHARE ROW EXCLUSIVE, the lock that a foreign key
# or a trigger takes on a table it refers to; and of ROW EXCLUSIVE, that of whoever writes.
IN_THE_WAY_OF_ALTER, IN_THE_WAY_OF_REFERENCES, IN_THE_WAY_OF_WRITERS = 1, 3, 5

AUTOVACUUM = "autovacuum"
WRAPAROUND = "autovacuum to prevent wraparound"


@dataclass(frozen=True)
class Blocker:
    """A transaction that holds or awaits a lock on one of the tables, or Prisma's lock, for which `table` is None; of
    several locks the strongest. Of a parallel query it is the leader; without pg_read_all_stats nobody can tell the
    workers of another role from sessions, so they are listed as well.

    `pid` is None for a prepared transaction, which `prepared_transaction` names; `autovacuum` is None for all others.
    `application_name`, `state` and `transaction_seconds` are None where the role lacks pg_read_all_stats. Whether it is
    `waiting` for any lock itself is always known; `waits_for` are the pids, the nearest first, 0 for a prepared
    transaction. No query text: it would hold people's data.
    """

    transaction: str
    pid: int | None
    user: str | None
    application_name: str | None
    state: str | None
    transaction_seconds: float | None
    lock_mode: str
    granted: bool
    waiting: bool
    table: str | None
    prepared_transaction: str | None
    autovacuum: str | None
    waits_for: tuple[int, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The blocker as the response shows it."""
        described = asdict(self) | {"waits_for": list(self.waits_for)}
        del described["transaction"]
        return described


def find_blockers(session: Session, hotfix: PackagedFile, bookkeeping: Bookkeeping | None = None) -> list[Blocker]:
    """Every other transaction with a lock, or in wait for one, in the way of the file or of `bookkeeping`. Those that
    wait for nobody come first, of these the oldest. On the expected tables and those that it alters any lock
    counts, on those that it refers to the locks of writers; partitions and inheritance children too. Of a way back any
    lock counts on what the foreign keys of its columns refer to. Waits for nobody.

    https://www.postgresql.org/docs/current/view-pg-locks.html
    """
    reverting = isinstance(hotfix, Hotfix) and hotfix.reverting
    ctes = columns_tree_sql(hotfix.expectations) + "," if reverting else ""
    keys = f"""
    UNION SELECT k.confrelid, {IN_THE_WAY_OF_ALTER} FROM going JOIN pg_catalog.pg_constraint k
        ON k.conrelid = going.relation AND k.contype = 'f' AND going.number = ANY (k.conkey)"""
    tables = (
        f"{ctes} named (oid, weakest) AS ({named_tables_sql(session, hotfix, bookkeeping)}{keys if reverting else ''})"
    )
    return read_blockers(session, tables, bookkeeping)


def find_suspects(session: Session, hotfix: Hotfix, said: str) -> list[Blocker]:
    """As `find_blockers`, on tables that the file does not name, when an attempt held its locks and failed on a further
    one: what foreign keys of its tables refer to, and from where; what the server `said` of it; and what the functions
    of event triggers name, and those that the server named.

    https://www.postgresql.org/docs/current/event-triggers.html
    """
    words = ", ".join(literal(word) for word in sorted(set(re.findall(r"[^\W\d][\w$]*", said)))[:SUSPECTED_WORDS])
    oids = ", ".join(re.findall(r"relation (\d{1,10}) ", said)[:SUSPECTED_WORDS]) or "0"
    return read_blockers(
        session,
        f"""own (oid, weakest) AS ({named_tables_sql(session, hotfix, None)}), named (oid, weakest) AS (
    SELECT other.oid, {IN_THE_WAY_OF_ALTER} FROM pg_catalog.pg_constraint k
        JOIN own ON own.oid IN (k.conrelid, k.confrelid)
        JOIN pg_catalog.pg_class other ON other.oid IN (k.conrelid, k.confrelid) WHERE k.contype = 'f'
    UNION SELECT c.oid, {IN_THE_WAY_OF_WRITERS} FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_class c ON c.relkind IN ('r', 'p') AND c.oid >= {FIRST_OWN_OID}
            AND c.relname = ANY (pg_catalog.regexp_split_to_array(p.prosrc, '[^[:alnum:]_$]+'))
        WHERE p.oid >= {FIRST_OWN_OID} AND (p.proname = ANY (ARRAY[{words}]::text[])
            OR p.oid IN (SELECT evtfoid FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'))
    UNION SELECT c.oid, {IN_THE_WAY_OF_ALTER} FROM pg_catalog.pg_class c
        WHERE c.relkind IN ('r', 'p') AND c.oid >= {FIRST_OWN_OID}
            AND (c.oid IN ({oids}) OR c.relname = ANY (ARRAY[{words}]::text[]))
    EXCEPT SELECT own.oid, given.weakest FROM own CROSS JOIN (VALUES ({IN_THE_WAY_OF_ALTER}), ({IN_THE_WAY_OF_WRITERS}))
        AS given (weakest))""",
    )


def named_tables_sql(session: Session, hotfix: PackagedFile, bookkeeping: Bookkeeping | None) -> str:
    """Selects oid and weakest mode in the way for each table that the file and `bookkeeping` name."""
    tables: list[tuple[str | None, str, int]] = []
    if not (bookkeeping and bookkeeping.record_only):
        tables += [(one.schema, one.table, IN_THE_WAY_OF_ALTER) for one in hotfix.expectations]
        tables += [
            (named.schema, named.name, IN_THE_WAY_OF_ALTER if named.altered else IN_THE_WAY_OF_REFERENCES)
            for named in hotfix.named_tables
        ]
    if bookkeeping:
        tables.append((*bookkeeping.table, IN_THE_WAY_OF_WRITERS))
    values = ", ".join(
        f"({literal(schema)}::name, {literal(name)}::name, {weakest})" for schema, name, weakest in tables
    )
    # What a bare name means to the file's own statements.
    path = [*(one.schema for one in hotfix.expectations), *session.facts.schemas]
    schemas = ", ".join(f"{literal(schema)}::name" for schema in dict.fromkeys(path))
    return f"""
    SELECT c.oid, named.weakest
    FROM (VALUES {values}) AS named (schema, relation, weakest)
    JOIN pg_catalog.pg_class c ON c.relname = named.relation
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = coalesce(named.schema, (SELECT p.nspname
        FROM pg_catalog.unnest(ARRAY[{schemas}]) WITH ORDINALITY AS path (name, position)
        JOIN pg_catalog.pg_namespace p ON p.nspname = path.name
        JOIN pg_catalog.pg_class t ON t.relnamespace = p.oid AND t.relname = named.relation
        ORDER BY path.position LIMIT 1))"""


def read_blockers(session: Session, tables: str, bookkeeping: Bookkeeping | None = None) -> list[Blocker]:
    """`tables`: CTEs, the last of them `named (oid, weakest)`."""
    modes = ", ".join(map(literal, MODES))
    is_advisory = bookkeeping.find_lock if bookkeeping else "false"
    # A prepared transaction has no process; it is known by the lock on its own transaction id.
    sql = f"""
WITH RECURSIVE {tables}, relation (oid, weakest) AS (
    SELECT oid, weakest FROM named
    UNION SELECT i.inhrelid, relation.weakest FROM pg_catalog.pg_inherits i JOIN relation ON i.inhparent = relation.oid
), held AS MATERIALIZED (
    SELECT * FROM pg_catalog.pg_locks WHERE pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
), blocker AS (
    SELECT DISTINCT ON (l.virtualtransaction, l.pid) l.*
    FROM held l LEFT JOIN relation ON relation.oid = l.relation AND l.locktype = 'relation'
    WHERE l.database = {literal(session.facts.database_oid)}
        AND (pg_catalog.array_position(ARRAY[{modes}], l.mode) >= relation.weakest OR {is_advisory})
    ORDER BY l.virtualtransaction, l.pid, l.granted DESC, pg_catalog.array_position(ARRAY[{modes}], l.mode) DESC
)
-- A tool's own lock outlives the transactions of its session.
SELECT CASE WHEN b.relation IS NULL THEN 'advisory' ELSE b.virtualtransaction END || ' ' || coalesce(b.pid, 0)
        AS transaction,
    b.pid, coalesce(a.usename, p.owner) AS user,
    nullif(a.application_name, '') AS application_name, a.state,
    extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8
        AS transaction_seconds,
    pg_catalog.upper(pg_catalog.regexp_replace(
        pg_catalog.replace(b.mode, 'Lock', ''), '([a-z])([A-Z])', '\\1 \\2', 'g')) AS lock_mode,
    b.granted, b.pid IN (SELECT pid FROM held WHERE NOT granted) IS TRUE AS waiting,
    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS table,
    p.gid AS prepared_transaction,
    -- Of all processes with a database only autovacuum has no user. Its query is hidden, the age of the table is not.
    CASE WHEN a.pid IS NULL OR a.usesysid IS NOT NULL THEN NULL
        WHEN a.query LIKE '%(to prevent wraparound)' OR pg_catalog.age(c.relfrozenxid) > least(
            pg_catalog.current_setting('autovacuum_freeze_max_age')::int,
            (SELECT option_value::int FROM pg_catalog.pg_options_to_table(c.reloptions)
                WHERE option_name = 'autovacuum_freeze_max_age'))
        OR pg_catalog.mxid_age(c.relminmxid) > least(
            pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::int,
            (SELECT option_value::int FROM pg_catalog.pg_options_to_table(c.reloptions)
                WHERE option_name = 'autovacuum_multixact_freeze_max_age'))
        THEN '{WRAPAROUND}' ELSE '{AUTOVACUUM}' END AS autovacuum
FROM blocker b
LEFT JOIN pg_catalog.pg_class c ON c.oid = b.relation
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
LEFT JOIN held own ON b.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'
    AND own.virtualtransaction = b.virtualtransaction
LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = own.transactionid
-- A query's workers hold no lock that their leader does not hold. A subscription's workers have their own transactions.
WHERE a.leader_pid IS NULL OR a.backend_type <> 'parallel worker'
ORDER BY waiting, transaction_seconds DESC NULLS LAST, b.pid"""
    return read_as(Blocker, session.query_prepared(with_names(sql)))


def describe_blockers(session: Session, blockers: Sequence[Blocker]) -> tuple[Blocker, ...]:
    """The first of them, with whom they wait for themselves. Waits for nobody."""
    shown = blockers[:SHOWN_BLOCKERS]
    waits = find_waits(session, [blocker.pid for blocker in shown if blocker.pid and blocker.waiting])
    return tuple(replace(blocker, waits_for=follow(waits, blocker.pid)) for blocker in shown)


def find_waits(session: Session, pids: Sequence[int]) -> dict[int, list[int]]:
    """Whom each of the pids waits for, and whom these wait for in turn. Empty if that takes long: each question stops
    the whole lock manager for a moment. https://www.postgresql.org/docs/current/functions-info.html"""
    waits: dict[int, list[int]] = {}
    for _ in range(LONGEST_CHAIN):
        asked = ", ".join(str(pid) for pid in list(dict.fromkeys(pids))[:ASKED_BLOCKERS] if pid not in waits)
        if not asked:
            break
        try:
            rows = session.query(
                f"BEGIN; SET LOCAL statement_timeout = {ASKING_MS};"
                "SELECT pid, blocking FROM pg_catalog.unnest(ARRAY[" + asked + "]) AS pid"
                " LEFT JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(pid)) AS blocking ON true; ROLLBACK"
            )
        except (errors.StatementTimeoutError, LockNotAvailable):
            session.roll_back()
            break
        for pid, blocking in rows:
            waits.setdefault(pid, []).extend([] if blocking is None else [blocking])
        pids = [blocking for _, blocking in rows if blocking]
    return waits


def follow(waits: Mapping[int, Sequence[int]], pid: int | None) -> tuple[int, ...]:
    """Everybody that the pid waits for, the nearest first."""
    found: dict[int, None] = {}
    nearest = list(waits.get(pid or 0, ()))
    while nearest:
        new = [one for one in dict.fromkeys(nearest) if one not in found and one != pid]
        found |= dict.fromkeys(new)
        nearest = [further for one in new for further in waits.get(one, ())]
    return tuple(found)[:ASKED_BLOCKERS]


def try_to_describe_blockers(session: Session, hotfix: PackagedFile) -> tuple[Blocker, ...]:
    """The blockers, for an error that must be reported whether they can be seen or not."""
    try:
        return describe_blockers(session, find_blockers(session, hotfix))
    except (errors.HotfixError, LockNotAvailable):
        return ()
