"""What the handler answers and records when it contacts nobody: bad events, ids, files and settings."""

from __future__ import annotations

import json
import os
import socket
import string
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

import app
from pg_hotfix import hotfix
from pg_hotfix.errors import HotfixError
from pg_hotfix.history.prisma import History
from pg_hotfix.promises.column.catalog import Column, Found
from pg_hotfix.promises.column.line import Expectation
from pg_hotfix.report import Report
from pg_hotfix.request import parse_request
from pg_hotfix.server import credentials
from pg_hotfix.settings import read_settings
from tests.conftest import FakeContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Outcome

    Call = Callable[..., Outcome]

ID = "20260301101500_add_drivers_note"
FILE = "-- expect: column public.drivers.note text\nALTER TABLE drivers ADD COLUMN IF NOT EXISTS note text;\n"
ARN = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:kaviar/database-AbCdEf"
CONTRACT = {
    *(
        "hotfix",
        "action",
        "result",
        "objects",
        "steps",
        "database",
        "attempts",
        "lock_wait_ms",
        "lock_held_ms",
        "duration_ms",
    ),
    *("blockers", "sql_sha256", "plan_hash", "caller", "requested_by", "reason", "request_id", "started_at"),
}
REQUEST = {"hotfix": ID, "action": "apply", "reason": "INC-4711", "requested_by": "ana"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks a name up or connects fails the test. No `except Exception` can swallow that."""

    def refuse(*what: object, **_: object) -> None:
        pytest.fail(f"something was contacted: {what[1:] if isinstance(what[0], socket.socket) else what}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.fixture(autouse=True)
def deployed(sql_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A function with a secret's ARN, credentials of its own, and one good file. Returns the files' folder."""
    for name in ("DB_HOST", "DB_PORT", "DB_NAME", "DB_CA_BUNDLE", "LOCK_WAIT_SECONDS", "STATEMENT_TIMEOUT_MS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DB_SECRET_ARN", ARN)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "sa-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    credentials.secrets_provider.cache_clear()
    (sql_dir / f"{ID}.sql").write_text(FILE)
    return sql_dir


def test_a_good_request_would_be_noticed_contacting_secrets_manager() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"something was contacted: .*secretsmanager\.sa-east-1"):
        hotfix.run(parse_request(REQUEST), read_settings(os.environ), lambda: 55_000)


BAD_EVENTS: dict[str, tuple[object, str]] = {
    "no object": ([REQUEST], "RequestError"),
    "nothing": (None, "RequestError"),
    "empty": ({}, "RequestError"),
    "unknown action": (REQUEST | {"action": "drop"}, "RequestError"),
    "a host": (REQUEST | {"host": "evil.example"}, "RequestError"),
    "a user in the detail": (
        {"detail-type": "x", "source": "y", "id": "z", "detail": REQUEST | {"user": "postgres"}},
        "RequestError",
    ),
    "SQL": (REQUEST | {"sql": "DROP TABLE drivers"}, "RequestError"),
    "SQL in the id": (REQUEST | {"hotfix": "DROP TABLE drivers"}, "RequestError"),
    "a path in the id": (REQUEST | {"hotfix": f"../opt/{ID}"}, "RequestError"),
    "unknown id": (REQUEST | {"hotfix": "20260301101500_nobody_knows"}, "UnknownHotfixError"),
}


@pytest.mark.parametrize(("event", "error"), BAD_EVENTS.values(), ids=BAD_EVENTS)
def test_a_bad_event_ends_before_anything_is_contacted(call: Call, event: object, error: str) -> None:
    outcome = call(event)
    assert outcome.error_name == error
    assert "Nothing was contacted and nothing was changed." in outcome.text


@pytest.mark.parametrize("action", ["check", "plan", "apply", "verify"])
@pytest.mark.parametrize(
    "content",
    [
        "ALTER TABLE drivers ADD COLUMN note text;",
        FILE.replace("text\n", "\n"),
        f"{FILE}COMMIT;",
        f"{FILE}\\i other.sql",
        f"{FILE}SELECT 'open",
        f"{FILE}SET lock_timeout = 0;",
        f"{FILE}COPY drivers FROM STDIN;",
        f"\ufeff{FILE}",
    ],
)
def test_a_bad_file_ends_before_anything_is_contacted(call: Call, deployed: Path, action: str, content: str) -> None:
    (deployed / f"{ID}.sql").write_text(content)
    outcome = call({"hotfix": ID, "action": action})
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text.startswith(f"sql/{ID}.sql ")
    assert "Nothing was contacted and nothing was changed." in outcome.text


def test_check_of_everything_names_the_file_that_is_broken(call: Call, deployed: Path) -> None:
    (deployed / "20260301101501_broken.sql").write_text("BEGIN;")
    outcome = call({"action": "check"})
    assert outcome.text == (
        "sql/20260301101501_broken.sql contains transaction control (BEGIN). Nothing was contacted and nothing was"
        " changed. Remove it: the whole file runs in one transaction, which is committed only after the proof."
    )


def test_a_file_with_any_name_is_named_in_the_command(call: Call, deployed: Path) -> None:
    (deployed / "a {again} b.sql").write_text(FILE)
    outcome = call({"action": "check"})
    assert outcome.text.startswith("sql/a {again} b.sql has a name that is not an id.")
    assert outcome.then == "Prove the corrected file, and deploy it:  ./pg-hotfix prove 'sql/a {again} b.sql'"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_SECRET_ARN", ""),
        ("DB_PORT", "0"),
        ("DB_CA_BUNDLE", "nowhere/ca.pem"),
        ("SQL_DIR", "nowhere"),
        ("LOCK_WAIT_SECONDS", "0"),
        ("STATEMENT_TIMEOUT_MS", "0"),
    ],
)
def test_a_bad_setting_ends_before_anything_is_contacted(
    call: Call, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    outcome = call(REQUEST)
    assert outcome.error_name == "ConfigurationError"
    assert outcome.text.startswith(f"{name} ")
    assert "Nothing was contacted and nothing was changed." in outcome.text


def test_a_function_without_a_single_file_is_refused(call: Call, deployed: Path) -> None:
    (deployed / f"{ID}.sql").unlink()
    assert call({"action": "check"}).text == (
        f"SQL_DIR contains no hotfix ({deployed}). Nothing was contacted and nothing was changed. Deploy with at"
        " least one file in sql/."
    )


def test_too_little_time_ends_before_anything_is_contacted(call: Call) -> None:
    outcome = call(REQUEST, seconds=3.0)
    assert outcome.error_name == "ConfigurationError"
    assert "ms to work and to report. Nothing was changed. Raise the Timeout of MigrateFunction" in outcome.text


# What is recorded


def test_a_refused_request_is_one_line_with_everything_known(call: Call) -> None:
    before_ms = time.time() * 1000 - 1  # What is compared with it is rounded.
    outcome = call(REQUEST | {"hotfix": "20260301101500_nobody_knows", "correlation_id": "run-1"})
    (line,) = outcome.logs
    after_ms = time.time() * 1000
    assert 0 <= line.pop("duration_ms") <= after_ms - before_ms
    assert before_ms <= line.pop("finished_at_ms") <= after_ms
    for of_powertools in ("location", "timestamp", "started_at", "xray_trace_id", "cold_start"):
        line.pop(of_powertools, None)
    assert line == {
        "level": "ERROR",
        "message": "hotfix failed",
        "service": "pg-hotfix",
        "error": "UnknownHotfixError",
        "retryable": False,
        "advice": f"{outcome.text}\n{outcome.then}",
        "hotfix": "20260301101500_nobody_knows",
        "action": "apply",
        "caller": "direct",
        "requested_by": "ana",
        "reason": "INC-4711",
        "request_id": FakeContext.aws_request_id,
        "correlation_id": "run-1",
        "function_name": "MigrateFunction",
        "function_memory_size": 512,
        "function_arn": FakeContext.invoked_function_arn,
        "function_request_id": FakeContext.aws_request_id,
    }


@pytest.mark.parametrize(("stack", "option"), [("pg-hotfix-prod", " --stack pg-hotfix-prod"), ("", "")])
def test_a_text_ends_in_the_same_request_as_a_command(
    call: Call, monkeypatch: pytest.MonkeyPatch, stack: str, option: str
) -> None:
    monkeypatch.setenv("STACK_NAME", stack)
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "0")
    outcome = call(REQUEST)
    assert (
        str(outcome.error)
        == outcome.line["advice"]
        == (
            "LOCK_WAIT_SECONDS is '0', not a whole number from 1 to 840. Nothing was contacted and nothing was changed."
            " Correct the stack's parameter LockWaitSeconds, and deploy.\n"
            f"When that is done, run it again:  ./pg-hotfix apply {ID} --reason INC-4711{option}"
        )
    )


def test_an_event_that_is_no_request_is_logged_without_its_content(call: Call) -> None:
    outcome = call(REQUEST | {"password": "Kq7-tr0ub4dor"})
    assert outcome.error_name == "RequestError"
    assert "Kq7-tr0ub4dor" not in json.dumps(outcome.logs) + outcome.text
    unknown = ("hotfix", "action", "caller", "requested_by", "reason")
    assert {name: outcome.line.get(name) for name in unknown} == dict.fromkeys(unknown)


def test_an_event_that_no_log_could_write_is_logged_all_the_same(call: Call) -> None:
    outcome = call({"detail-type": "x", "source": "y", "id": "\ud800", "detail": REQUEST})
    assert (outcome.error_name, outcome.line["error"]) == ("RequestError", "RequestError")


def test_the_correlation_id_of_one_request_is_not_in_the_next_ones_line(call: Call) -> None:
    call(REQUEST | {"hotfix": "20260301101500_nobody_knows", "correlation_id": "run-1"})
    assert call({}).line.get("correlation_id") != "run-1"
    assert (
        call(REQUEST | {"hotfix": "20260301101500_nobody_knows"}).line["correlation_id"] == FakeContext.aws_request_id
    )


def test_a_refusal_counts_as_failed_and_nothing_else(call: Call) -> None:
    outcome = call({})
    (blob,) = outcome.metrics
    (directive,) = blob["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "PgHotfix"
    assert [sorted(dimensions) for dimensions in directive["Dimensions"]] == [["environment", "service"]]
    assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == {
        "Failed": "Count",
        "DurationMs": "Milliseconds",
    }
    assert (blob["service"], blob["environment"]) == ("pg-hotfix", "test")
    assert outcome.metric("Failed") == 1


def test_the_metrics_of_one_failure_are_not_counted_again_with_the_next(call: Call) -> None:
    assert [call({}).metric("Failed") for _ in range(3)] == [1, 1, 1]


def test_the_line_of_a_defect_says_only_where_it_is(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("Kq7-planted")

    monkeypatch.setattr(hotfix, "run", fail)
    outcome = call(REQUEST)
    assert (outcome.error_name, outcome.line["error"]) == ("InternalError", "InternalError")
    assert outcome.line["retryable"] is False
    assert outcome.text.startswith("pg-hotfix has a defect (ZeroDivisionError at test_app.py:")
    assert outcome.error is not None
    assert "Kq7-planted" not in "".join(traceback.format_exception(outcome.error)) + json.dumps(outcome.logs)
    assert outcome.metric("Failed") == 1


# What is answered


def make_column(name: str, *, matches: bool, changed: bool) -> Column:
    schema, table, column = name.split(".")
    found = Found(
        relation_oid=1,
        relation_kind="r",
        owner="app",
        owned=True,
        schema_usable=True,
        lockable=True,
        has_children=False,
        estimated_rows=-1,
        estimated_bytes=0,
        expected_type="text",
        type_matches=matches,
        collation_matches=matches,
        actual_type="text" if matches else None,
        collation=None,
        not_null=False if matches else None,
        not_valid=False,
        identity=None,
        generated=None,
        printed=None,
        changed_here=changed,
        state="1" if matches else "1-",
    )
    return Column(
        Expectation(schema, table, column, "text"),
        found,
        expected="text null",
        actual="text null" if matches else "missing",
        matches=matches,
        changed_here=changed,
    )


THERE = make_column("public.drivers.name", matches=True, changed=False)
MADE = make_column("public.drivers.note", matches=True, changed=True)
DROPPED = make_column("public.drivers.rating", matches=False, changed=True)
LACKING = make_column("public.riders.note", matches=False, changed=False)


@pytest.mark.parametrize(
    ("report", "summary"),
    [
        (
            Report("applied", (THERE, MADE), {}, lock_held_ms=1.4),
            "public.drivers.note applied, committed and proved; the lock was held for 1.4 ms.",
        ),
        (Report("already_applied", (THERE,), {}), "public.drivers.name already as expected; nothing was run."),
        (
            Report("would_apply", (THERE, LACKING), {}),
            "public.riders.note missing; apply would run the file; nobody is in the way now.",
        ),
        (
            Report("verified", (THERE, MADE), {"user": "kaviar_app"}),
            "public.drivers.name, public.drivers.note as expected, and can be selected by kaviar_app.",
        ),
        (
            Report("passed", (THERE, MADE, LACKING), {}),
            "As the application expects: 3 columns of 2 tables.",
        ),
        (
            Report("reverted", (LACKING, DROPPED), {}, lock_held_ms=1.4),
            "public.drivers.rating dropped, committed and proved gone; the lock was held for 1.4 ms.",
        ),
        (
            Report("reverted", (DROPPED,), {}, lock_held_ms=1.4, forced=True),
            (
                "public.drivers.rating dropped, committed and proved gone; the lock was held for 1.4 ms. Forced: the"
                " rows were not checked."
            ),
        ),
        (Report("already_reverted", (LACKING,), {}), "public.riders.note already missing; nothing was run."),
        (
            Report("ready", (THERE,), {}, hotfixes=(ID,)),
            "Secret, network, TLS, login and ownership work for 1 hotfix file.",
        ),
    ],
)
def test_the_result_is_summed_up_in_a_sentence(report: Report, summary: str) -> None:
    assert app.summarise(report) == summary


@pytest.mark.parametrize(
    ("history", "added"),
    [
        (History("public._prisma_migrations", "not_recorded", ""), ""),
        (
            History("public._prisma_migrations", "recorded", "", recorded_here=True),
            " Recorded in public._prisma_migrations.",
        ),
        (
            History("public._prisma_migrations", "failed", "", (ID, "20260101000000_broken")),
            f" The next prisma migrate deploy stops with P3009: {ID} and 20260101000000_broken failed.",
        ),
    ],
)
def test_the_summary_has_what_matters_of_prismas_history(history: History, added: str) -> None:
    summary = "public.drivers.name already as expected; nothing was run."
    assert app.summarise(Report("already_applied", (THERE,), {}, history=history)) == summary + added


@pytest.mark.parametrize("state", ["recorded", "other_checksum", "not_recorded", "rolled_back"])
def test_the_summary_of_a_revert_says_what_prisma_will_not_bring_back(state: str) -> None:
    history = History("public._prisma_migrations", state, "")
    said = " public._prisma_migrations still has it as applied: no prisma migrate deploy will bring it back."
    added = said if state in ("recorded", "other_checksum") else ""
    summary = "public.riders.note already missing; nothing was run."
    assert app.summarise(Report("already_reverted", (LACKING,), {}, history=history)) == summary + added


def test_each_table_is_described_once() -> None:
    columns = (THERE, MADE, LACKING)
    assert [(table["schema"], table["table"]) for table in app.describe_tables(columns)] == [
        ("public", "drivers"),
        ("public", "riders"),
    ]


def test_the_response_is_the_finished_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hotfix, "run", lambda *_: Report("applied", (MADE,), {"name": "kaviar"}, attempts=1))
    outcome = call(REQUEST)
    assert outcome.line["message"] == "hotfix finished"
    # Powertools leaves out of the line what is None.
    assert {name: outcome.line.get(name) for name in outcome.response} == outcome.response
    assert set(outcome.response) >= CONTRACT
    assert [
        name for name in ("Applied", "LockWaitMs", "LockHeldMs", "DurationMs") if outcome.metric(name) is None
    ] == []
    assert outcome.metric("Failed") is None


def test_no_name_of_a_fact_collides_with_a_name_of_the_log_record(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in HotfixError.__subclasses__():
        facts: dict[str, Any] = {"columns": [], "blockers": [], "attempts": 1, "lock_wait_ms": 1}

        def fail(*_: object, error: type[HotfixError] = error, facts: dict[str, Any] = facts) -> None:
            raise error(string.ascii_letters, **facts)

        monkeypatch.setattr(hotfix, "run", fail)
        assert call(REQUEST).line["error"] == error.__name__
