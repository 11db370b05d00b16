"""A schema, table, column or type may have any name that PostgreSQL takes: it is looked at, altered, matched, and its
name can be pasted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pg_hotfix.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

pytestmark = pytest.mark.long_too

NAME_BYTES = 63
KEYWORDS = ["user", "order", "left", "null", "default", "generated", "collate", "not", "column", "interval", "select"]
SYSTEM_COLUMNS = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}

# An expect line is one line, and PostgreSQL knows no zero byte.
names = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=NAME_BYTES)
    | st.text(st.sampled_from("\"'.\\$-/* ;(%:\u00e9\u6f22\u00a0\u202e"), min_size=1, max_size=12)
    | st.sampled_from(KEYWORDS)
).filter(lambda name: len(name.encode()) <= NAME_BYTES)
schemas = names.filter(lambda name: not name.startswith("pg_") and name not in ("public", "information_schema"))
columns = names.filter(lambda name: name not in SYSTEM_COLUMNS)
type_names = names.filter(lambda name: not name.startswith("_"))


@settings(
    max_examples=max(12, settings().max_examples // 25), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example("user", "order", "default", "interval")
@example('a"."b', "'; DROP TABLE drivers; --", "x" * NAME_BYTES, "\u6f22" * 21)
@example("A", "\\", "%s", "generated")
@given(schemas, names, columns, type_names)
def test_any_name_is_applied_and_its_mismatch_can_be_pasted(
    invoke: Invoke,
    write_hotfix: WriteHotfix,
    database: Database,
    schema: str,
    table: str,
    column: str,
    type_name: str,
) -> None:
    type_name += "_" if type_name == table else ""
    there, kind = f"{quoted(schema)}.{quoted(table)}", f"{quoted(schema)}.{quoted(type_name)}"
    database.run_as_owner(f"CREATE SCHEMA {quoted(schema)}; CREATE TABLE {there} (); CREATE DOMAIN {kind} AS text")
    try:
        add = f"ALTER TABLE {there} ADD COLUMN IF NOT EXISTS {quoted(column)} {kind};"
        hotfix_id = write_hotfix(add, f"{there}.{quoted(column)} {kind}")
        results = [invoke(action, hotfix_id).result for action in ("plan", "apply", "apply", "verify")]
        assert results == ["would_apply", "applied", "already_applied", "verified"]
        mismatch = invoke("verify", write_hotfix(add, f"{there}.{quoted(column)} int"))
        (line,) = re.findall(r"^  -- expect: column (.*)$", mismatch.text, re.MULTILINE)
        assert invoke("verify", write_hotfix(add, line)).result == "verified"
        missing = invoke("plan", write_hotfix(add, f"{there}.{quoted(column)} int", f"nowhere.{quoted(table)}.a int"))
        assert missing.error_name == "RelationError"
    finally:
        database.run_as_owner(f"DROP SCHEMA {quoted(schema)} CASCADE")


@pytest.mark.parametrize("schema", ["user", "left", "Fleet", 'a"b'])
def test_the_grants_of_an_error_can_be_pasted_whatever_the_schema_is_called(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, schema: str
) -> None:
    there = f"{quoted(schema)}.drivers"
    database.run(f"CREATE SCHEMA {quoted(schema)}; CREATE TABLE {there} ()")
    hotfix_id = write_hotfix(f"ALTER TABLE {there} ADD COLUMN note text;", f"{there}.note text")
    refused = invoke("apply", hotfix_id)
    assert refused.error_name == "NotOwnerError"
    database.run(re.findall(r"  (ALTER TABLE .*;)$", refused.text)[0])
    refused = invoke("apply", hotfix_id)
    assert refused.error_name == "NotOwnerError"
    database.run(re.findall(r"GRANT USAGE .*;$", refused.text)[0])
    database.run(f"REVOKE ALL ON {there} FROM {database.user}")
    refused = invoke("apply", hotfix_id)
    assert refused.error_name == "NotOwnerError"
    database.run(re.findall(r"GRANT UPDATE .*;$", refused.text)[0])
    assert invoke("apply", hotfix_id).result == "applied"
