"""What ALTER TABLE would refuse of the tables it reaches: `check`, `plan` and `apply` say so before any lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pg8000.exceptions import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

ADD = "ALTER TABLE public.rides ADD COLUMN IF NOT EXISTS note {};"
PARTITIONED = """
CREATE TABLE public.rides (id int) PARTITION BY RANGE (id);
CREATE TABLE public.rides_1 PARTITION OF public.rides FOR VALUES FROM (0) TO (9);
CREATE TABLE public.rides_2 PARTITION OF public.rides DEFAULT PARTITION BY RANGE (id);
CREATE TABLE public.rides_3 PARTITION OF public.rides_2 DEFAULT"""
INHERITED = "CREATE TABLE public.rides (id int); CREATE TABLE public.rides_1 ({}) INHERITS (public.rides)"
FOREIGN = """
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
CREATE FOREIGN TABLE public.rides_f PARTITION OF public.rides FOR VALUES FROM (20) TO (30) SERVER s"""


@pytest.fixture
def refused(invoke: Invoke, database: Database) -> Callable[..., Outcome]:
    """The refusal in which `check`, `plan` and `apply` agree while somebody holds the table: nobody waits for it. The
    server, asked by the owner for the file's SQL, refuses as well."""

    def refused(hotfix_id: str, sql: str, sqlstate: str, table: str = "public.rides") -> Outcome:
        with pytest.raises(DatabaseError) as by_server:
            database.run_as_owner(sql)
        assert by_server.value.args[0]["C"] == sqlstate
        with database.connect() as other:
            other.run(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            outcomes = [invoke(action, hotfix_id) for action in ("check", "plan", "apply")]
        assert {outcome.text for outcome in outcomes} == {outcomes[0].text}
        return outcomes[0]

    return refused


def add_note(write_hotfix: WriteHotfix, column_type: str = "int", table: str = "rides") -> tuple[str, str]:
    """A file that adds `note`, as its expect line says; its id and its SQL."""
    sql = ADD.format(column_type).replace("rides", table)
    return write_hotfix(sql, f"public.{table}.note {column_type}"), sql


# Owners


@pytest.mark.parametrize(
    ("create", "given_away", "others"),
    [
        (PARTITIONED, "ALTER TABLE public.rides_3 OWNER TO postgres", ["rides_3"]),
        (INHERITED.format(""), "ALTER TABLE public.rides_1 OWNER TO postgres", ["rides_1"]),
        (PARTITIONED, FOREIGN, ["rides_f"]),
    ],
)
def test_a_child_of_another_owner_is_named(
    refused: Callable[..., Outcome],
    write_hotfix: WriteHotfix,
    database: Database,
    create: str,
    given_away: str,
    others: list[str],
) -> None:
    database.run_as_owner(create)
    database.run(given_away)
    (child,) = others
    outcome = refused(*add_note(write_hotfix), "42501")
    assert outcome.error_name == "NotOwnerError"
    assert outcome.text == (
        f"{database.user} does not own public.{child} below public.rides: postgres does, which is an administrator, and"
        " ALTER TABLE needs the owner's rights. Nothing was changed. Give the table to a role of the application: "
        f' ALTER TABLE "public"."{child}" OWNER TO "{database.user}";'
    )


def test_the_line_to_paste_gives_the_children_to_the_role(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(PARTITIONED)
    database.run("ALTER TABLE public.rides_2 OWNER TO postgres; ALTER TABLE public.rides_3 OWNER TO postgres")
    hotfix_id, _ = add_note(write_hotfix)
    text = invoke("plan", hotfix_id).text
    assert "does not own public.rides_2, public.rides_3 below public.rides: postgres does" in text
    database.run(text.rpartition("application:  ")[2])
    assert invoke("apply", hotfix_id).result == "applied"


def test_of_many_children_some_are_named_and_all_are_counted(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE TABLE public.rides (id int)")
    children = [f"CREATE TABLE public.rides_{number} () INHERITS (public.rides)" for number in range(23)]
    database.run(";".join(children))
    outcome = invoke("check", add_note(write_hotfix)[0])
    assert ", and 3 more below public.rides: postgres does, which is an administrator" in outcome.text
    assert outcome.text.count("OWNER TO") == 20


def test_check_tells_of_children_also_when_nothing_is_left_to_add(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(f"{INHERITED.format('')}; ALTER TABLE public.rides ADD COLUMN note int")
    database.run("ALTER TABLE public.rides_1 OWNER TO postgres")
    hotfix_id, _ = add_note(write_hotfix)
    assert invoke("check", hotfix_id).error_name == "NotOwnerError"
    assert invoke("apply", hotfix_id).result == "already_applied"


def test_a_member_of_the_childs_owner_may_apply(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> None:
    group = f"{database.user}_group"
    database.run_as_owner(PARTITIONED)
    database.run(f"CREATE ROLE {group}; GRANT {group} TO {database.user}; ALTER TABLE public.rides_3 OWNER TO {group}")
    try:
        hotfix_id, _ = add_note(write_hotfix)
        assert [invoke(action, hotfix_id).result for action in ("check", "apply")] == ["ready", "applied"]
    finally:
        database.run(f"DROP OWNED BY {group}; DROP ROLE {group}")


def test_a_child_needs_neither_privileges_nor_the_usage_of_its_schema(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(f"{PARTITIONED}; REVOKE ALL ON public.rides_1, public.rides_3 FROM {database.user}")
    database.run("CREATE SCHEMA archive; ALTER TABLE public.rides_3 SET SCHEMA archive")
    hotfix_id, _ = add_note(write_hotfix)
    assert [invoke(action, hotfix_id).result for action in ("check", "apply")] == ["ready", "applied"]


def test_a_revert_needs_the_owner_of_each_child_too(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(f"{INHERITED.format('')}; ALTER TABLE public.rides ADD COLUMN note int")
    database.run("ALTER TABLE public.rides_1 OWNER TO postgres")
    back = "-- revert: ALTER TABLE public.rides DROP COLUMN IF EXISTS note;\n"
    outcome = invoke("revert", write_hotfix(back + ADD.format("int"), "public.rides.note int"), force=True, reason="x")
    assert outcome.error_name == "NotOwnerError"
    assert outcome.text.startswith(f"{database.user} does not own public.rides_1 below public.rides: postgres does,")


# What the named table is


@pytest.mark.parametrize("partition", ["rides_1", "rides_2", "rides_3"])
def test_a_partition_is_answered_with_its_root(
    refused: Callable[..., Outcome], write_hotfix: WriteHotfix, database: Database, partition: str
) -> None:
    database.run_as_owner(PARTITIONED)
    sqlstate = "42809"
    outcome = refused(*add_note(write_hotfix, table=partition), sqlstate, f"public.{partition}")
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        f"public.{partition} is a partition of public.rides, and has its columns. Nothing was changed. Name"
        " public.rides instead in the file, and deploy it."
    )


def test_an_inheritance_child_may_have_columns_of_its_own(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(INHERITED.format(""))
    hotfix_id, _ = add_note(write_hotfix, table="rides_1")
    assert [invoke(action, hotfix_id).result for action in ("check", "apply")] == ["ready", "applied"]


def test_a_typed_table_is_answered_with_its_type(
    refused: Callable[..., Outcome], invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner('CREATE TYPE public."Ride" AS (id int); CREATE TABLE public.rides OF public."Ride"')
    hotfix_id, sql = add_note(write_hotfix)
    outcome = refused(hotfix_id, sql, "42809")
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        'public.rides is a typed table: its columns are those of the type public."Ride". Nothing was changed. Change'
        ' the type by a separate migration:  ALTER TYPE "public"."Ride" ADD ATTRIBUTE "note" int CASCADE;'
    )
    database.run_as_owner(outcome.text.rpartition("migration:  ")[2])
    assert invoke("apply", hotfix_id).result == "already_applied"


def test_a_temporary_child_of_another_session_is_named(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE TABLE public.rides (id int)")
    hotfix_id, sql = add_note(write_hotfix)
    with database.connect(database.user, database.password) as other:
        other.run("CREATE TEMP TABLE mine () INHERITS (public.rides)")
        ((schema,),) = other.run("SELECT pg_my_temp_schema()::regnamespace::text")
        with pytest.raises(DatabaseError, match="cannot alter temporary tables of other sessions"):
            database.run_as_owner(sql)
        outcomes = [invoke(action, hotfix_id) for action in ("check", "plan", "apply")]
    assert {outcome.error_name for outcome in outcomes} == {"RelationError"}
    (text,) = {outcome.text for outcome in outcomes}
    assert text == (
        f"{schema}.mine is a temporary table of another session and inherits from public.rides, and no other session"
        " can alter it. Nothing was changed. Wait until that session ends or drops the table."
    )


def test_a_temporary_table_of_another_session_is_no_target(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    with database.connect(database.user, database.password) as other:
        other.run("CREATE TEMP TABLE mine (id int)")
        ((schema,),) = other.run("SELECT pg_my_temp_schema()::regnamespace::text")
        outcome = invoke("plan", write_hotfix(f"ALTER TABLE {schema}.mine ADD COLUMN a int;", f"{schema}.mine.a int"))
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        f"{schema}.mine is a temporary table of another session, and no other session can alter it. Nothing was"
        " changed. Wait until that session ends or drops the table."
    )


@pytest.mark.parametrize("table", ["pg_catalog.pg_class", "information_schema.sql_features", "pg_catalog.mine"])
@pytest.mark.parametrize("action", ["check", "plan", "apply"])
def test_a_table_of_postgresql_itself_is_no_target(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, table: str, action: str
) -> None:
    database.run("SET allow_system_table_mods = on; CREATE TABLE pg_catalog.mine (id int)")
    outcome = invoke(action, write_hotfix(f"ALTER TABLE {table} ADD COLUMN a int;", f"{table}.a int"))
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        f"{table} is a table of PostgreSQL itself. Nothing was changed. Name a table of the application in the file,"
        " and deploy it."
    )


def test_an_unlogged_table_is_a_table(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> None:
    database.run_as_owner("CREATE UNLOGGED TABLE public.rides (id int)")
    assert invoke("apply", add_note(write_hotfix)[0]).result == "applied"


@pytest.mark.parametrize("column", ["ctid", "xmin", "tableoid"])
def test_a_system_columns_name_is_refused_before_anything_is_contacted(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, column: str
) -> None:
    sql = f"ALTER TABLE public.drivers ADD COLUMN IF NOT EXISTS {column} int;"
    with pytest.raises(DatabaseError, match="conflicts with a system column name"):
        database.run_as_owner(sql)
    hotfix_id = write_hotfix(sql, f"public.drivers.{column} int")
    outcome = invoke("plan", hotfix_id)
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text == (
        f"sql/{hotfix_id}.sql has an expect line that cannot be read ({column} is a system column of every table): --"
        f" expect: column public.drivers.{column} int. Nothing was contacted and nothing was changed. Give the column"
        " another name."
    )


# Room


def fill(table: str, columns: int, kept: int = 1) -> str:
    """Adds columns; all but some are dropped again, and count all the same."""
    return (
        f"DO $$ BEGIN FOR i IN 1..{columns} LOOP EXECUTE 'ALTER TABLE {table} ADD COLUMN c' || i || ' int';"
        f" IF i > {kept} THEN EXECUTE 'ALTER TABLE {table} DROP COLUMN c' || i; END IF; END LOOP; END $$"
    )


def test_dropped_columns_take_up_the_room(
    refused: Callable[..., Outcome], invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner("CREATE TABLE public.rides (id int)")
    database.run_as_owner(fill("public.rides", 1598))
    two = f"{ADD.format('int')} ALTER TABLE public.rides ADD COLUMN IF NOT EXISTS other int;"
    outcome = refused(write_hotfix(two, "public.rides.note int", "public.rides.other int"), two, "54011")
    assert outcome.error_name == "RelationError"
    assert outcome.text == (
        "public.rides has no room for 2 more columns: PostgreSQL counts 1599 of at most 1600, dropped ones included"
        " (54011). Nothing was changed. VACUUM FULL does not free these. Move the rows to a new table (CREATE TABLE"
        " ... (LIKE ... INCLUDING ALL)), or put the column into another table."
    )
    database.run("VACUUM FULL public.rides")
    one = add_note(write_hotfix)[0]
    assert invoke("apply", one).result == "applied"
    # As the text says: a table that is made like this one has room again.
    database.run_as_owner("CREATE TABLE public.fresh (LIKE public.rides INCLUDING ALL)")
    assert invoke("apply", add_note(write_hotfix, table="fresh")[0]).result == "already_applied"
    database.run_as_owner("ALTER TABLE public.fresh ADD COLUMN room int")


def test_a_child_may_be_the_one_without_room(
    refused: Callable[..., Outcome], write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(INHERITED.format(""))
    database.run_as_owner(fill("public.rides_1", 1599))
    outcome = refused(*add_note(write_hotfix), "54011")
    assert outcome.text.startswith("public.rides_1, which is below public.rides, has no room for 1 more column: ")


# A child that has the column already


@pytest.mark.parametrize(
    ("of_child", "expected", "sqlstate", "actual", "line"),
    [
        ("note text", "int", "42804", "text null", "ALTER COLUMN {0} TYPE int USING {0}::int"),
        (
            "note text DEFAULT 'abc'",
            "int",
            "42804",
            "text null",
            "ALTER COLUMN {0} DROP DEFAULT, ALTER COLUMN {0} TYPE int USING {0}::int",
        ),
        (
            "note varchar(3)",
            "varchar(4)",
            "42804",
            "character varying(3) null",
            "ALTER COLUMN {0} TYPE varchar(4) USING {0}::varchar(4)",
        ),
        (
            'note text COLLATE "C"',
            "text",
            "42P21",
            'text collate "C" null',
            "ALTER COLUMN {0} TYPE text USING {0}::text",
        ),
        (
            "note text",
            'text collate "C"',
            "42P21",
            "text null",
            'ALTER COLUMN {0} TYPE text COLLATE "C" USING {0}::text',
        ),
    ],
)
def test_a_childs_column_of_another_type_is_shown(
    refused: Callable[..., Outcome],
    invoke: Invoke,
    write_hotfix: WriteHotfix,
    database: Database,
    of_child: str,
    expected: str,
    sqlstate: str,
    actual: str,
    line: str,
) -> None:
    database.run_as_owner(INHERITED.format(of_child))
    hotfix_id, sql = add_note(write_hotfix, expected)
    outcome = refused(hotfix_id, sql, sqlstate)
    shown = outcome.line["columns"][0]["expected"]
    assert outcome.error_name == "MismatchError"
    line = f'ALTER TABLE "public"."rides_1" {line.format('"note"')};'
    assert outcome.text == (
        "public.rides_1 is a partition or child of public.rides. It already has this column, and it differs from what"
        f" {hotfix_id} expects. Nothing was changed.\n"
        "  public.rides_1.note\n"
        f"    expected  {shown}\n"
        f"    actual    {actual}\n"
        f"ALTER TABLE would refuse it, or leave it different. Change it by a separate migration:  {line}"
    )
    database.run_as_owner(line)
    assert invoke("apply", hotfix_id).result == "applied"


@pytest.mark.parametrize(
    ("of_child", "expected", "actual", "line"),
    [
        ("note int", "int not null default 7", "integer null", "ALTER COLUMN {} SET NOT NULL"),
        (
            "note int GENERATED ALWAYS AS (id * 2) STORED",
            "int",
            "integer null generated always as (...) stored",
            'RENAME COLUMN {} TO "note_before"',
        ),
        (
            "note int GENERATED BY DEFAULT AS IDENTITY",
            "int",
            "integer not null generated by default as identity",
            'RENAME COLUMN {} TO "note_before"',
        ),
        ("note int", "int generated always as (id * 2) stored", "integer null", 'RENAME COLUMN {} TO "note_before"'),
    ],
)
@pytest.mark.parametrize("action", ["check", "plan", "apply"])
def test_a_childs_column_that_postgresql_would_leave_different_is_shown(
    invoke: Invoke,
    write_hotfix: WriteHotfix,
    database: Database,
    of_child: str,
    expected: str,
    actual: str,
    line: str,
    action: str,
) -> None:
    database.run_as_owner(INHERITED.format(of_child))
    outcome = invoke(action, add_note(write_hotfix, expected)[0])
    assert outcome.error_name == "MismatchError"
    assert f"    actual    {actual}\n" in outcome.text
    assert outcome.text.endswith(f'by a separate migration:  ALTER TABLE "public"."rides_1" {line.format('"note"')};')


@pytest.mark.parametrize("of_child", ["note int", "note int DEFAULT 3", "note int NOT NULL DEFAULT 3"])
def test_a_childs_column_of_the_same_type_is_merged(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, of_child: str
) -> None:
    database.run_as_owner(f"{INHERITED.format(of_child)}; INSERT INTO public.rides_1 (id) VALUES (1)")
    hotfix_id, _ = add_note(write_hotfix)
    assert [invoke(action, hotfix_id).result for action in ("check", "apply", "verify")] == [
        "ready",
        "applied",
        "verified",
    ]
    assert database.run("SELECT attinhcount, attislocal FROM pg_attribute WHERE attrelid = 'public.rides_1'::regclass"
                        " AND attname = 'note'") == [[1, True]]  # fmt: skip


def test_a_grandchilds_column_counts_too(
    refused: Callable[..., Outcome], write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(f"{INHERITED.format('')}; CREATE TABLE public.rides_2 (note text) INHERITS (public.rides_1)")
    outcome = refused(*add_note(write_hotfix), "42804")
    assert outcome.text.startswith("public.rides_2 is a partition or child of public.rides. It already has this")


def test_a_file_that_puts_the_child_right_first_is_applied(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(INHERITED.format("note text"))
    right = "ALTER TABLE public.rides_1 ALTER COLUMN note TYPE int USING 1;"
    hotfix_id = write_hotfix(f"{right} {ADD.format('int')}", "public.rides.note int")
    assert [invoke(action, hotfix_id).result for action in ("check", "apply")] == ["ready", "applied"]
