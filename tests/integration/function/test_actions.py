"""`check`, `plan`, `verify`, the plan's hash, the callers, and what is logged and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pg_hotfix import look as look_module
from pg_hotfix import read_only
from tests.conftest import HOTFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

CONTRACT = {
    "hotfix", "action", "result", "objects", "steps", "database", "attempts", "lock_wait_ms", "lock_held_ms",
    "duration_ms",
    "blockers", "sql_sha256", "plan_hash", "caller", "requested_by", "reason", "request_id", "started_at",
}  # fmt: skip
OURS = {
    "summary", "tables", "sql", "hotfixes", "limits", "longest_stall_ms", "finished_at_ms", "prisma", "revert", "notes",
}  # fmt: skip


def snapshot(database: Database) -> list[list[Any]]:
    """Whatever a run could have changed."""
    return database.run(
        "SELECT attrelid::regclass::text, attname, xmin FROM pg_attribute WHERE attnum > 0 ORDER BY 1, 2"
    )


def test_plan_tells_what_apply_would_do_and_changes_nothing(invoke: Invoke, database: Database) -> None:
    database.run("ANALYZE public.drivers")
    before = snapshot(database)
    outcome = invoke()
    assert outcome.result == "would_apply"
    response = outcome.response
    assert response["summary"] == (
        "public.drivers.active_since missing; apply would run the file; nobody is in the way now."
    )
    assert response["sql"] == Path(f"sql/{HOTFIX}.sql").read_text()
    assert response["objects"][0]["expected"] == "timestamp with time zone null"
    assert response["objects"][0]["actual"] == "missing"
    assert response["tables"] == [
        {
            "schema": "public",
            "table": "drivers",
            "kind": "table",
            "owner": database.user,
            "estimated_rows": 0,
            "estimated_bytes": 0,
        }
    ]
    assert snapshot(database) == before


def test_plan_waits_for_nobody(invoke: Invoke, database: Database) -> None:
    with database.connect() as other:
        ((pid,),) = other.run("SELECT pg_backend_pid()")
        other.run("BEGIN; LOCK TABLE public.drivers IN ACCESS EXCLUSIVE MODE")
        outcome = invoke("plan")
    assert outcome.result == "would_apply"
    (blocker,) = outcome.response["blockers"]
    assert (blocker["pid"], blocker["lock_mode"]) == (pid, "ACCESS EXCLUSIVE")
    # A plain role does not see this of another's session.
    assert (blocker["state"], blocker["transaction_seconds"]) == (None, None)


def test_plan_after_apply_is_already_applied(invoke: Invoke) -> None:
    invoke("apply")
    assert invoke("plan").result == "already_applied"


def test_verify_proves_the_column(invoke: Invoke, database: Database) -> None:
    invoke("apply")
    outcome = invoke("verify")
    assert outcome.result == "verified"
    assert outcome.response["summary"] == (
        f"public.drivers.active_since as expected, and can be selected by {database.user}."
    )


def test_verify_of_a_missing_column_is_a_mismatch(invoke: Invoke) -> None:
    outcome = invoke("verify")
    assert outcome.error_name == "MismatchError"
    assert outcome.text == (
        f"public.drivers.active_since is missing; {HOTFIX} expects it. Nothing was changed.\n"
        "  expected  timestamp with time zone null\n"
        "  actual    missing"
    )


def test_a_column_that_goes_after_the_look_is_a_mismatch_too(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("apply")
    look, looks = look_module.look, 0

    def look_and_drop(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        seen = look(*arguments)
        if looks == 1:
            database.run("ALTER TABLE public.drivers DROP COLUMN active_since")
        return seen

    monkeypatch.setattr(read_only, "look", look_and_drop)
    outcome = invoke("verify")
    assert outcome.error_name == "MismatchError"
    assert outcome.line["error"] == "MismatchError"


def test_verify_names_the_right_that_is_lacking(invoke: Invoke, database: Database) -> None:
    invoke("apply")
    database.run(f"REVOKE SELECT ON public.drivers FROM {database.user}")
    grant = f'GRANT SELECT ON "public"."drivers" TO "{database.user}";'
    outcome = invoke("verify")
    assert outcome.error_name == "NotOwnerError"
    assert outcome.text == (
        f"{database.user} lacks SELECT on public.drivers.active_since; the column itself is as expected. Nothing was"
        f" changed. Grant it:  {grant}"
    )
    database.run(grant)
    assert invoke("verify").result == "verified"
    database.run("REVOKE USAGE ON SCHEMA public FROM PUBLIC; ALTER SCHEMA public OWNER TO postgres")
    assert "lacks USAGE on the schema public." in invoke("verify").text


@pytest.mark.parametrize("body", ["SELECT nextval('team.caught') > 0", "SELECT 1 / 0 > 0"])
def test_no_function_of_a_tables_owner_runs_to_verify(
    invoke: Invoke, database: Database, write_hotfix: Callable[..., str], body: str
) -> None:
    """The planner calls what is IMMUTABLE, even for a SELECT of no rows."""
    role = f"{database.user}_team"
    database.run(
        f"CREATE ROLE {role}; CREATE SCHEMA team AUTHORIZATION {role}; SET ROLE {role}; SET search_path = team;"
        "CREATE TABLE cars (id int, rating int); CREATE SEQUENCE caught; GRANT ALL ON SEQUENCE caught TO PUBLIC;"
        f"GRANT USAGE ON SCHEMA team TO PUBLIC; GRANT SELECT ON cars TO {database.user};"
        f"CREATE FUNCTION tell() RETURNS bool LANGUAGE sql AS $$ {body} $$;"
        "CREATE FUNCTION spring() RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN team.tell(); END $$;"
        "ALTER TABLE cars ENABLE ROW LEVEL SECURITY; CREATE POLICY spring ON cars USING (team.spring())"
    )
    assert invoke("verify", write_hotfix("SELECT 1;", "team.cars.rating integer null")).result == "verified"
    assert database.run("SELECT is_called FROM team.caught") == [[False]]
    database.run(f"DROP SCHEMA team CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize("action", ["plan", "apply", "check"])
def test_rights_that_apply_would_lack_are_told_before(invoke: Invoke, database: Database, action: str) -> None:
    database.run(f"REVOKE ALL ON public.drivers FROM {database.user}")
    outcome = invoke(action)
    assert outcome.error_name == "NotOwnerError"
    assert outcome.text == (
        f"{database.user} owns public.drivers, but its rights UPDATE, DELETE and TRUNCATE were revoked. LOCK TABLE"
        " needs"
        f' one of them. Nothing was changed. Grant one:  GRANT UPDATE ON "public"."drivers" TO "{database.user}";'
    )
    database.run("ALTER SCHEMA public OWNER TO postgres; REVOKE ALL ON SCHEMA public FROM public")
    outcome = invoke(action)
    assert outcome.error_name == "NotOwnerError"
    assert outcome.text == (
        f"{database.user} lacks USAGE on the schema public. Nothing was changed. Grant it:  GRANT USAGE ON SCHEMA"
        f' "public" TO "{database.user}";'
    )


def test_check_without_an_id_proves_every_packaged_file(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner('CREATE SCHEMA fleet; CREATE TABLE fleet."Car" (id int)')
    first = write_hotfix("ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int;", "public.drivers.a int")
    second = write_hotfix('ALTER TABLE "Car" ADD COLUMN a int;', 'fleet."Car".a int', name="20260302000000_second")
    before = snapshot(database)
    outcome = invoke("check", None)
    assert outcome.result == "ready"
    assert outcome.response["hotfixes"] == [first, second]
    assert outcome.response["summary"] == "Secret, network, TLS, login and ownership work for 2 hotfix files."
    assert snapshot(database) == before
    database.run('ALTER TABLE fleet."Car" OWNER TO postgres')
    assert invoke("check", None).error_name == "NotOwnerError"
    assert invoke("check", first).result == "ready"


def test_check_names_the_broken_file(invoke: Invoke, sql_dir: Path, write_hotfix: WriteHotfix) -> None:
    write_hotfix("ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int;", "public.drivers.a int")
    (sql_dir / "20260302000000_broken.sql").write_text("SELECT 1;")
    outcome = invoke("check", None)
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text.startswith("sql/20260302000000_broken.sql expects no column.")


def test_check_names_a_file_whose_name_is_no_id(invoke: Invoke, sql_dir: Path) -> None:
    (sql_dir / "20260301-Add-Note.sql").write_text("-- expect: column public.drivers.a int\nSELECT 1;")
    outcome = invoke("check", None)
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text == (
        "sql/20260301-Add-Note.sql has a name that is not an id. Nothing was contacted and nothing was changed. Name"
        " it as 14 digits, an underscore, and lower-case words."
    )


def test_check_names_what_is_no_file(invoke: Invoke, sql_dir: Path) -> None:
    (sql_dir / "20260301101500_folder.sql").mkdir()
    outcome = invoke("check", None)
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text == (
        "sql/20260301101500_folder.sql cannot be read (Is a directory). Nothing was contacted and nothing was"
        " changed. Make it a file that everybody may read (chmod 644)."
    )


# The plan's hash


def test_a_plan_that_still_holds_is_applied(invoke: Invoke) -> None:
    plan_hash = invoke("plan").response["plan_hash"]
    assert invoke("apply", plan_hash=plan_hash).result == "applied"


def test_a_plan_that_has_changed_is_refused(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> None:
    hotfix_id = write_hotfix("ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int;", "public.drivers.a int")
    plan_hash = invoke("plan", hotfix_id).response["plan_hash"]
    write_hotfix("ALTER TABLE drivers ADD COLUMN IF NOT EXISTS a int; -- edited", "public.drivers.a int")
    outcome = invoke("apply", hotfix_id, plan_hash=plan_hash)
    assert outcome.error_name == "PlanChangedError"
    assert outcome.text == (
        f"The plan_hash is out of date: sql/{hotfix_id}.sql, the database or public.drivers has changed since that"
        " plan. Nothing was changed. Read a new plan, and apply with its plan_hash."
    )
    database.run_as_owner("DROP TABLE drivers; CREATE TABLE drivers (id int)")
    plan_hash = invoke("plan", hotfix_id).response["plan_hash"]
    database.run_as_owner("DROP TABLE drivers; CREATE TABLE drivers (id int)")
    assert invoke("apply", hotfix_id, plan_hash=plan_hash).error_name == "PlanChangedError"


def test_a_retry_with_the_plan_of_before_is_already_applied(invoke: Invoke) -> None:
    plan_hash = invoke("plan").response["plan_hash"]
    invoke("apply", plan_hash=plan_hash)
    assert invoke("apply", plan_hash=plan_hash).result == "already_applied"


# Callers, log and metrics


def test_the_response_is_the_one_log_line_and_has_the_contracts_keys(invoke: Invoke) -> None:
    for action in ("check", "plan", "apply", "apply", "verify"):
        outcome = invoke(action, reason="INC-4711", requested_by="ana")
        assert outcome.response.keys() == CONTRACT | OURS
        assert outcome.line["message"] == "hotfix finished"
        # The formatter leaves out what is null.
        assert {key: outcome.line.get(key) for key in outcome.response} == outcome.response
        assert json.loads(json.dumps(outcome.response)) == outcome.response


def test_a_failure_is_logged_once_with_its_facts(invoke: Invoke) -> None:
    outcome = invoke("verify", reason="INC-4711")
    line = outcome.line
    assert (line["message"], line["level"], line["error"], line["retryable"]) == (
        "hotfix failed", "ERROR", "MismatchError", False,
    )  # fmt: skip
    assert (line["advice"], line["reason"], line["columns"][0]["actual"]) == (str(outcome.error), "INC-4711", "missing")
    assert line["duration_ms"] >= 0


@pytest.mark.parametrize(
    ("actions", "counted"),
    [(["check"], "Ready"), (["apply"], "Applied"), (["apply", "apply"], "AlreadyApplied"), (["verify"], "Failed")],
)
def test_each_end_is_counted(invoke: Invoke, actions: list[str], counted: str) -> None:
    outcome = [invoke(action) for action in actions][-1]
    assert outcome.metric(counted) == 1
    assert outcome.metric("DurationMs") is not None
    assert (outcome.metric("LockHeldMs") is not None) == (counted == "Applied")
    (blob,) = outcome.metrics
    (directive,) = blob["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("PgHotfix", [["environment", "service"]])
    assert (blob["environment"], blob["service"]) == ("test", "pg-hotfix")


@pytest.fixture
def packaged_schema(database: Database) -> None:
    """The tables of every packaged hotfix, as they are before it."""
    database.run_as_owner("DROP TABLE drivers")
    database.run_as_owner(Path("laptop/schema.sql").read_text())


@pytest.mark.usefixtures("packaged_schema")
@pytest.mark.parametrize("path", sorted(Path("events").glob("*.json")), ids=lambda path: path.stem)
def test_every_packaged_event_is_fulfilled(
    invoke: Invoke, call: Callable[..., Outcome], path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.stem == "revert":  # The packaged example has none, and its checksum is to stay.
        assert call(json.loads(path.read_text())).text.startswith(f"sql/{HOTFIX}.sql has no revert line")
        return
    if path.stem == "verify":
        invoke("apply")
    if path.stem == "gate":  # No application's list is packaged here.
        (tmp_path / "schema.expect").write_text("-- expect: column public.drivers.email text not null\n")
        monkeypatch.setenv("SQL_DIR", str(tmp_path))
    outcome = call(json.loads(path.read_text()))
    assert outcome.error is None, outcome.text
    callers = {"eventbridge": "eventbridge", "step_functions": "step_functions", "ci": "ci", "runbook": "runbook"}
    assert outcome.response["caller"] == callers.get(path.stem, "direct")
    assert outcome.line["correlation_id"]


@pytest.mark.usefixtures("packaged_schema")
@pytest.mark.parametrize("path", sorted(Path("sql").glob("*.sql")), ids=lambda path: path.stem)
def test_every_packaged_hotfix_can_be_run_twice(invoke: Invoke, path: Path) -> None:
    assert invoke("verify", path.stem).error_name == "MismatchError"
    assert [invoke("apply", path.stem).result for _ in range(2)] == ["applied", "already_applied"]
    assert invoke("verify", path.stem).result == "verified"


def test_psql_can_run_a_packaged_file_as_it_is(database: Database, invoke: Invoke) -> None:
    database.run_as_owner(Path(f"sql/{HOTFIX}.sql").read_text())
    assert invoke("apply").result == "already_applied"
