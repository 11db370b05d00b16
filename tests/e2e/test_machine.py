"""The state machine, interpreted by moto, with the built function under Lambda's emulator and a real PostgreSQL.

A minute of its waits takes a few milliseconds here, unless a test says otherwise.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import laptop.machine
from laptop.emulator import EmulatedFunction, emulated_function, session_members
from laptop.environment import local_environment
from laptop.interpreter import FunctionError
from laptop.machine import Machine, running_machine
from laptop.places import BUILT_TEMPLATE, PROJECT
from laptop.postgres import free_port
from pg_hotfix_button import executions
from pg_hotfix_report import app as report
from pg_hotfix_report.search import LogUnavailableError
from tests.conftest import HOTFIX, PATIENCE_SECONDS, Database, until
from tests.e2e.test_operate import clean_environment
from tests.e2e.test_operate import run as run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import House

COLUMN = "public.drivers.active_since"
VERIFIED = f"{COLUMN} as expected, and can be selected by"
ADD_COLUMN = "ALTER TABLE drivers ADD COLUMN active_since timestamptz"
REQUEST = {"hotfix": HOTFIX, "action": "apply", "reason": "INC-4711", "requested_by": "ana.souza"}
AGAIN = f"./pg-hotfix apply {HOTFIX} --stack pg-hotfix-local --reason INC-4711"
VERIFY = f"./pg-hotfix verify {HOTFIX} --stack pg-hotfix-local"
LOG_GROUP = "/ecs/kaviar"
PATTERN = '"P2022"'
WATCH = {"ApplicationLogGroup": LOG_GROUP, "ErrorPattern": PATTERN}


@dataclass(frozen=True)
class Ended:
    execution: executions.Execution
    steps: list[str]
    messages: list[dict[str, str]]

    @property
    def verdict(self) -> tuple[str, Any]:
        """How it ended, and as what."""
        return self.execution.status, self.execution.error or self.execution.output["result"]


def read_progress(states: Any, arn: str) -> list[str]:
    """The names of the states that were entered, the oldest first, and each failure as `<state>: <error>`."""
    steps = [step for step in executions.read_steps(states, arn) if step.error or step.attempt == 1]
    return [f"{step.state}: {step.error}" if step.error else step.state for step in steps]


@dataclass(frozen=True)
class Stage:
    """One state machine, its clients, and the queue that gets its reports."""

    machine: Machine
    states: Any
    queues: Any
    queue_url: str
    transcript: list[str]

    def start(self, request: Any) -> str:
        text = json.dumps(request)
        arn: str = self.states.start_execution(
            stateMachineArn=self.machine.arn, input=text, name=f"test-{time.time_ns()}"
        )["executionArn"]
        return arn

    def wait(self, arn: str) -> Ended:
        execution = executions.wait_until_ended(self.states, arn, PATIENCE_SECONDS)
        history = self.states.get_execution_history(executionArn=arn, includeExecutionData=True)
        received = self.queues.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get("Messages", [])
        messages = [json.loads(message["Body"]) for message in received]
        self.transcript.append(json.dumps([history, messages], default=str))
        self.transcript.append(repr(execution))
        return Ended(execution, read_progress(self.states, arn), messages)

    def run(self, request: Any) -> Ended:
        return self.wait(self.start(request))

    def wait_for_step(self, arn: str, step: str, times: int = 1) -> None:
        # moto works hard to tell a history.
        until(lambda: read_progress(self.states, arn).count(step) >= times, 0.2)


@pytest.fixture
def database(incident: Database) -> Database:
    return incident


@pytest.fixture
def staged(
    house: House, database: Database, no_secret_in_output: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Stage]]:
    """Sets up a state machine with the given values; no password may be in any history, output or report."""
    monkeypatch.setattr(executions, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(executions, "LONGEST_PAUSE_SECONDS", 0.05)
    with contextlib.ExitStack() as stack:
        states, queues, topics = (
            stack.enter_context(contextlib.closing(house.aws.client(service)))
            for service in ("stepfunctions", "sqs", "sns")
        )

        def stage(function: EmulatedFunction = house.function, minute_seconds: float = 0.02, **options: Any) -> Stage:
            machine = stack.enter_context(
                running_machine(house.aws, function, minute_seconds=minute_seconds, **options)
            )
            queue_url = queues.create_queue(QueueName=f"reports-{time.time_ns()}")["QueueUrl"]
            attributes = queues.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
            topics.subscribe(TopicArn=machine.topic_arn, Protocol="sqs", Endpoint=attributes["QueueArn"])
            return Stage(machine, states, queues, queue_url, no_secret_in_output)

        yield stage


@pytest.fixture
def run(staged: Callable[..., Stage]) -> Callable[..., Ended]:
    """Runs one execution to its end: a request like the incident's, changed by the fields given."""

    def run(options: dict[str, Any] | None = None, **fields: Any) -> Ended:
        return staged(**(options or {})).run(REQUEST | fields)

    return run


@contextlib.contextmanager
def held_lock(database: Database) -> Iterator[Callable[[], None]]:
    """The table is read by a transaction that stays open until the function that is given is called."""
    with database.connect() as blocker:
        blocker.run("BEGIN")
        blocker.run("LOCK TABLE drivers IN ACCESS SHARE MODE")
        released = threading.Event()

        def release() -> None:
            if not released.is_set():
                released.set()
                blocker.run("ROLLBACK")

        yield release
        release()


def set_in(name: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    """Changes a definition: the state has these fields, or its retriers, whichever know them."""

    def change(definition: dict[str, Any]) -> None:
        for target in (definition["States"][name], *definition["States"][name]["Retry"]):
            target |= {key: value for key, value in fields.items() if key in target}

    return change


# What it does


def test_a_missing_column_is_planned_applied_verified_and_reported(
    run: Callable[..., Ended], database: Database
) -> None:
    ended = run()
    assert ended.verdict == ("SUCCEEDED", "applied")
    output = ended.execution.output
    assert set(output) == {"request", "result", "summary", "plan", "apply", "verify", "report"}
    assert output["request"] == REQUEST | {
        "plan_hash": None,
        "record": None,
        "force": None,
        "correlation_id": ended.execution.arn,
    }
    assert [output[key]["result"] for key in ("plan", "apply", "verify")] == ["would_apply", "applied", "verified"]
    assert output["summary"] == output["apply"]["summary"]
    assert {output[key]["caller"] for key in ("plan", "apply", "verify")} == {"step_functions"}
    assert len({output[key]["request_id"] for key in ("plan", "apply", "verify")}) == 3
    assert output["apply"]["finished_at_ms"] <= output["verify"]["finished_at_ms"] <= time.time() * 1000
    assert database.run("SELECT count(*) FROM pg_attribute WHERE attname = 'active_since'") == [[1]]
    assert [step for step in ended.steps if step in ("Plan", "Apply", "Verify", "Publish")] == [
        *("Plan", "Apply", "Verify", "Publish"),
    ]


def test_a_column_that_is_there_is_verified_and_never_applied(run: Callable[..., Ended], database: Database) -> None:
    database.run_as_owner(ADD_COLUMN)
    ended = run(plan_hash="0" * 64)  # Stale, but a retry after success is no error.
    assert ended.verdict == ("SUCCEEDED", "already_applied")
    assert "Apply" not in ended.steps
    assert set(ended.execution.output) == {"request", "result", "summary", "plan", "verify", "report"}
    assert ended.execution.output["verify"]["result"] == "verified"


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"action": "plan"}, "would_apply"),
        ({"action": None}, "would_apply"),
        ({"action": "check", "hotfix": None}, "ready"),
    ],
)
def test_a_look_is_one_invocation_without_a_report(
    run: Callable[..., Ended], fields: dict[str, Any], result: str
) -> None:
    ended = run(**fields)
    assert ended.verdict == ("SUCCEEDED", result)
    assert set(ended.execution.output) == {"request", "result", "summary", "plan"}
    assert ended.messages == []


def test_a_gate_that_stops_a_deploy_tells_its_caller_all_and_nobody_else(
    house: House, staged: Callable[..., Stage], database: Database, tmp_path: Path
) -> None:
    (tmp_path / "schema.expect").write_text(f"-- expect: column {COLUMN} timestamptz\n")
    secret_arn = house.aws.put_secret("kaviar/gate", json.dumps(database.secret()))
    environment = local_environment(database.server.ca_bundle, secret_arn, house.aws.endpoint_url)
    with emulated_function(environment | {"SQL_DIR": str(tmp_path)}) as function:
        stage = staged(function)
        stopped = stage.run({"action": "gate"})
        database.run_as_owner(ADD_COLUMN)
        passed = stage.run({"action": "gate"})
    assert stopped.verdict == ("FAILED", "MismatchError")
    assert f"\n  {COLUMN}\n    expected  timestamp with time zone null\n    actual    missing\n" in str(
        stopped.execution.cause
    )
    # A report of a hotfix is none of a gate.
    assert (stopped.messages, "Publish" in stopped.steps) == ([], False)
    assert passed.verdict == ("SUCCEEDED", "passed")
    assert set(passed.execution.output) == {"request", "result", "summary", "plan"}


def test_an_empty_request_is_a_plan_that_names_no_hotfix(staged: Callable[..., Stage]) -> None:
    ended = staged().run({})
    assert ended.verdict == ("FAILED", "RequestError")
    assert ended.execution.cause is not None
    assert ended.execution.cause.startswith("The request to plan names no hotfix.")


def test_verify_alone_proves_the_column_without_a_report(run: Callable[..., Ended], database: Database) -> None:
    database.run_as_owner(ADD_COLUMN)
    ended = run(action="verify")
    assert ended.verdict == ("SUCCEEDED", "verified")
    assert set(ended.execution.output) == {"request", "result", "summary", "verify", "report"}
    assert ended.messages == []


def test_the_plan_that_was_seen_is_the_one_that_is_applied(staged: Callable[..., Stage]) -> None:
    stage = staged()
    seen = stage.run(REQUEST | {"action": "plan"}).execution.output["plan"]["plan_hash"]
    assert stage.run(REQUEST | {"plan_hash": seen}).verdict == ("SUCCEEDED", "applied")


# Prisma's own DDL.
HISTORY = """CREATE TABLE "_prisma_migrations" (
    id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
    migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(),
    applied_steps_count integer NOT NULL DEFAULT 0)"""


@pytest.fixture
def prisma_history(database: Database) -> Iterator[None]:
    database.run_as_owner(HISTORY)
    yield
    database.run_as_owner('DROP TABLE "_prisma_migrations"')


@pytest.mark.parametrize(("column", "result"), [("", "applied"), (ADD_COLUMN, "already_applied")])
def test_what_is_to_be_recorded_is_whether_the_column_was_there_or_not(
    run: Callable[..., Ended], database: Database, prisma_history: None, column: str, result: str
) -> None:
    if column:
        database.run_as_owner(column)
    ended = run(record="prisma")
    assert ended.verdict == ("SUCCEEDED", result)
    assert ended.execution.output["apply"]["prisma"]["recorded_here"] is True
    assert ended.execution.output["verify"]["prisma"]["state"] == "recorded"


def test_without_a_history_nothing_is_recorded(run: Callable[..., Ended]) -> None:
    ended = run(record="prisma")
    assert ended.verdict == ("FAILED", "RelationError")
    assert "_prisma_migrations" in str(ended.execution.cause)


# The way back

RATING = "20260301101500_add_rating"
RATING_FILE = """-- expect: column public.drivers.rating smallint null
-- revert: ALTER TABLE drivers DROP COLUMN IF EXISTS rating;
ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating smallint;
"""
REVERT = REQUEST | {"hotfix": RATING, "action": "revert", "reason": "INC-4712"}


@pytest.fixture
def reversible(house: House, database: Database, tmp_path: Path) -> Iterator[EmulatedFunction]:
    """A function with a file that has a way back, and that is applied to a table with one row."""
    (tmp_path / f"{RATING}.sql").write_text(RATING_FILE)
    secret_arn = house.aws.put_secret("kaviar/database", json.dumps(database.secret()))
    environment = local_environment(database.server.ca_bundle, secret_arn, house.aws.endpoint_url)
    database.run_as_owner(f"{RATING_FILE}; INSERT INTO drivers (id, name) VALUES (gen_random_uuid(), 'Marina Lopes')")
    with emulated_function(environment | {"SQL_DIR": str(tmp_path), "LOCK_WAIT_SECONDS": "1"}) as function:
        yield function
    database.run_as_owner("DELETE FROM drivers; ALTER TABLE drivers DROP COLUMN IF EXISTS rating")


def test_a_revert_is_one_invocation_with_a_report(
    staged: Callable[..., Stage], reversible: EmulatedFunction, database: Database
) -> None:
    checks = {"EndpointUrl": "http://127.0.0.1:9/", **WATCH}
    ended = staged(reversible, EnvironmentName="prod", **checks).run(REVERT)
    assert ended.verdict == ("SUCCEEDED", "reverted")
    output = ended.execution.output
    assert set(output) == {"request", "result", "summary", "apply", "report"}
    assert (output["apply"]["action"], output["apply"]["caller"]) == ("revert", "step_functions")
    assert [step for step in ended.steps if step in ("Plan", "Apply", "Verify", "CallEndpoint", "WaitAMinute")] == [
        "Apply",
    ]
    assert database.run("SELECT FROM pg_attribute WHERE attname = 'rating'") == []
    assert output["report"]["json"]["execution"]["changed"] is True
    assert "## Rollback\n\nThis run was the rollback." in output["report"]["markdown"]
    (message,) = ended.messages
    assert message["Subject"] == "pg-hotfix prod: reverted"
    assert message["Message"].startswith(f"{RATING} in prod: reverted\n\n{output['summary']}\n\n")


def test_a_revert_that_would_lose_data_fails_with_its_advice_until_it_is_forced(
    staged: Callable[..., Stage], reversible: EmulatedFunction, database: Database
) -> None:
    database.run_as_owner("UPDATE drivers SET rating = 5")
    stage = staged(reversible)
    refused = stage.run(REVERT)
    assert refused.verdict == ("FAILED", "RevertRefusedError")
    assert refused.execution.cause is not None
    assert refused.execution.cause.startswith("public.drivers.rating is in use: at least one row no longer holds")
    assert refused.steps.count("Apply: RevertRefusedError") == 1
    (message,) = refused.messages
    assert message["Message"].startswith(f"revert of {RATING} in local failed: RevertRefusedError\n\n")
    for force, result in ((True, "reverted"), ("true", "already_reverted")):
        assert stage.run(REVERT | {"force": force}).verdict == ("SUCCEEDED", result)


def test_a_revert_waits_for_a_busy_table_as_an_apply_does(
    staged: Callable[..., Stage], reversible: EmulatedFunction, database: Database
) -> None:
    stage = staged(reversible)
    with held_lock(database) as release:
        arn = stage.start(REVERT)
        stage.wait_for_step(arn, "Apply: LockBusyError")
        release()
        ended = stage.wait(arn)
    assert ended.verdict == ("SUCCEEDED", "reverted")


# What is refused, at once


@pytest.mark.parametrize(
    ("fields", "error", "step"),
    [
        ({"plan_hash": "0" * 64}, "PlanChangedError", "Apply"),
        ({"sql": "DROP TABLE drivers"}, "RequestError", "Plan"),
        ({"action": "drop"}, "RequestError", "Plan"),
        ({"action": {"plan": "apply"}}, "RequestError", "Plan"),
        ({"action": "verify"}, "MismatchError", "Verify"),
        ({"action": "verify", "plan_hash": "0" * 64}, "RequestError", "Verify"),
        ({"action": "plan", "plan_hash": "0" * 64}, "RequestError", "Plan"),
        ({"hotfix": "20260301101500_nobody_knows"}, "UnknownHotfixError", "Plan"),
        ({"action": "revert"}, "HotfixFileError", "Apply"),
        ({"action": "revert", "force": True, "reason": None}, "RequestError", "Apply"),
        ({"force": True}, "RequestError", "Plan"),
    ],
)
def test_what_no_retry_can_help_fails_at_once(
    run: Callable[..., Ended], fields: dict[str, Any], error: str, step: str
) -> None:
    ended = run(**fields)
    assert ended.verdict == ("FAILED", error)
    assert [entry for entry in ended.steps if entry.startswith(step)] == [step, f"{step}: {error}"]


def test_a_column_of_another_type_fails_with_the_whole_advice(run: Callable[..., Ended], database: Database) -> None:
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN active_since text")
    ended = run()
    assert ended.verdict == ("FAILED", "MismatchError")
    assert ended.execution.cause == (
        f"{COLUMN} exists but is not what {HOTFIX} expects. Nothing was changed.\n"
        "  expected  timestamp with time zone null\n"
        "  actual    text null\n"
        "ADD COLUMN IF NOT EXISTS keeps an existing column as it is. If the actual column is right, correct the file:\n"
        f"  -- expect: column {COLUMN} text null\n"
        "Otherwise change the column by a separate migration.\n"
        f"Prove the corrected file, and deploy it:  ./pg-hotfix prove sql/{HOTFIX}.sql\n"
        f"When the plan succeeds, apply:  {AGAIN}"
    )
    assert ended.steps.count("Plan: MismatchError") == 1


def test_an_input_that_is_no_object_is_a_failure_too(staged: Callable[..., Stage]) -> None:
    assert staged().run(["apply"]).execution.status == "FAILED"


def test_a_verify_that_fails_after_an_apply_does_not_hide_what_was_committed(
    staged: Callable[..., Stage], database: Database
) -> None:
    def pause_before_verify(definition: dict[str, Any]) -> None:
        definition["States"]["Pause"] = {"Type": "Wait", "Seconds": 60, "Next": "Verify"}
        definition["States"]["AskToVerify"]["Next"] = "Pause"

    stage = staged(minute_seconds=1.0, change=pause_before_verify)
    arn = stage.start(REQUEST)
    stage.wait_for_step(arn, "Pause")
    database.run_as_owner("ALTER TABLE drivers DROP COLUMN active_since")
    ended = stage.wait(arn)
    assert ended.verdict == ("FAILED", "MismatchError")
    assert ended.execution.cause is not None
    before, what, *_ = ended.execution.cause.split("\n")
    assert before.startswith(f"Before this failure the apply answered: {COLUMN} applied, committed and proved; ")
    assert what == f"{COLUMN} is missing; {HOTFIX} expects it. Nothing was changed."


# What is tried again


def test_a_table_that_is_busy_for_minutes_is_reached_in_the_end(
    staged: Callable[..., Stage], database: Database
) -> None:
    stage = staged()
    with held_lock(database) as release:
        arn = stage.start(REQUEST)
        stage.wait_for_step(arn, "Apply: LockBusyError", times=2)
        release()
        ended = stage.wait(arn)
    assert ended.verdict == ("SUCCEEDED", "applied")
    assert ended.steps.count("Apply") == 1


def test_a_table_that_stays_busy_fails_with_whoever_is_in_the_way(
    staged: Callable[..., Stage], database: Database
) -> None:
    with held_lock(database):
        ended = staged(change=set_in("Apply", MaxAttempts=2)).run(REQUEST)
    assert ended.verdict == ("FAILED", "LockBusyError")
    assert ended.steps.count("Apply: LockBusyError") == 3
    assert ended.execution.cause is not None
    assert ended.execution.cause.startswith(f"public.drivers stayed locked for 1 s, so {HOTFIX} was not applied.")
    assert "\nIn the way: pid " in ended.execution.cause
    assert "or end it now (its transaction is rolled back):  SELECT pg_terminate_backend(" in ended.execution.cause


def test_a_database_that_cannot_be_reached_is_tried_nine_times(
    house: House, staged: Callable[..., Stage], database: Database
) -> None:
    secret_arn = house.aws.put_secret("kaviar/nowhere", json.dumps(database.secret(port=free_port())))
    environment = local_environment(database.server.ca_bundle, secret_arn, house.aws.endpoint_url)
    with emulated_function(environment) as function:
        ended = staged(function).run(REQUEST)
    assert ended.verdict == ("FAILED", "DatabaseUnavailableError")
    assert ended.steps.count("Plan: DatabaseUnavailableError") == 9
    assert ended.execution.cause is not None
    *_, plan, apply = ended.execution.cause.split("\n")
    assert plan.startswith(f"Run it again:  ./pg-hotfix plan {HOTFIX}")
    assert apply == f"When the plan succeeds, apply:  {AGAIN}"


def test_a_function_that_dies_while_it_waits_is_run_again(
    house: House, staged: Callable[..., Stage], database: Database
) -> None:
    stage = staged(house.fragile)
    with held_lock(database) as release:
        arn = stage.start(REQUEST)
        signal_during_apply(house, stage, arn, signal.SIGKILL)
        stage.wait_for_step(arn, "Apply: Runtime.ExitError")
        release()
        ended = stage.wait(arn)
    assert ended.verdict == ("SUCCEEDED", "applied")
    assert ended.steps.count("Apply: Runtime.ExitError") == 1


def test_a_function_that_answers_too_late_is_run_again_and_finds_its_work_done(
    house: House, staged: Callable[..., Stage], database: Database
) -> None:
    stage = staged(house.fragile, change=set_in("Apply", TimeoutSeconds=2))
    with held_lock(database) as release:
        arn = stage.start(REQUEST)
        signal_during_apply(house, stage, arn, signal.SIGSTOP)
        stage.wait_for_step(arn, "Apply: States.Timeout")
        release()
        send_to_runtime(house.fragile, signal.SIGCONT)
        ended = stage.wait(arn)
    assert ended.verdict == ("SUCCEEDED", "already_applied")


def test_a_function_that_dies_every_time_fails_with_advice(house: House, staged: Callable[..., Stage]) -> None:
    stage = staged(house.fragile, change=set_in("Apply", MaxAttempts=0))
    with held_lock(house.database):
        arn = stage.start(REQUEST)
        signal_during_apply(house, stage, arn, signal.SIGKILL)
        ended = stage.wait(arn)
    assert ended.verdict == ("FAILED", "Runtime.ExitError")
    assert ended.execution.cause is not None
    first, *advice = ended.execution.cause.split("\n")
    assert first.startswith("The function did not answer (Runtime.ExitError: RequestId: ")
    assert first.endswith("Error: Runtime exited with error: signal: killed).")
    assert advice == [
        "The file was applied completely or not at all: PostgreSQL rolls back what was not committed.",
        f"Run the same request again; it is safe:  {AGAIN}",
    ]


def test_a_function_that_never_answers_fails_under_a_name_of_our_own(
    house: House, staged: Callable[..., Stage]
) -> None:
    house.fragile.invoke({"action": "check"})  # Its process is there only from the first invocation on.
    stage = staged(house.fragile, change=set_in("Plan", MaxAttempts=0, TimeoutSeconds=1))
    send_to_runtime(house.fragile, signal.SIGSTOP)
    try:
        ended = stage.run(REQUEST)
    finally:
        send_to_runtime(house.fragile, signal.SIGCONT)
    assert ended.verdict == ("FAILED", "FunctionCallError")
    assert ended.execution.cause == (
        "The function did not answer (States.Timeout).\nNothing was changed: plan only reads.\n"
        f"Run the same request again; it is safe:  {AGAIN}"
    )


def signal_during_apply(house: House, stage: Stage, arn: str, number: signal.Signals) -> None:
    """The signal was sent while the apply of that execution waited for the lock."""
    stage.wait_for_step(arn, "Apply")
    house.database.until_waited_for()
    send_to_runtime(house.fragile, number)


def send_to_runtime(function: EmulatedFunction, number: signal.Signals) -> None:
    """The signal was sent to the process that runs the function's code, as Lambda itself does without asking."""
    address = function.url.split("/")[2].encode()
    (emulator,) = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and address in command_line(process)
    ]
    (runtime,) = [pid for pid in session_members(emulator) if pid != emulator]
    os.kill(runtime, number)


def command_line(process: Path) -> list[bytes]:
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_bytes().split(b"\0")
    return []


# Two at once


def test_a_double_click_starts_one_execution(staged: Callable[..., Stage], database: Database) -> None:
    stage = staged()
    with held_lock(database) as release:
        first, second = (executions.start_once(stage.states, stage.machine.arn, REQUEST) for _ in range(2))
        release()
        assert first == second
        assert stage.wait(first).verdict == ("SUCCEEDED", "applied")
    assert len(executions.list_newest(stage.states, stage.machine.arn)) == 1


def test_two_people_who_press_the_button_at_once_start_one_execution(
    staged: Callable[..., Stage], database: Database
) -> None:
    stage = staged()
    people = [REQUEST | {"requested_by": f"person {number}"} for number in range(8)]
    with held_lock(database) as release, ThreadPoolExecutor(len(people)) as pool:
        arns = set(pool.map(lambda person: executions.start_once(stage.states, stage.machine.arn, person), people))
        release()
        (arn,) = arns
        assert stage.wait(arn).verdict == ("SUCCEEDED", "applied")
    assert len(executions.list_newest(stage.states, stage.machine.arn)) == 1


# The endpoint


@dataclass
class Endpoint:
    """Answers with these status codes in turn, and with the last of them from then on."""

    url: str
    statuses: list[int]
    seen: list[str]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    answering = Endpoint("", [200], [])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            answering.seen.append(f"{self.command} {self.path}")
            status = answering.statuses.pop(0) if len(answering.statuses) > 1 else answering.statuses[0]
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815 - the name is http.server's

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    answering.url = f"http://127.0.0.1:{server.server_port}/api/admin/drivers/1"
    yield answering
    server.shutdown()
    thread.join()
    server.server_close()


def calling(endpoint: Endpoint) -> dict[str, str]:
    return {"EndpointUrl": endpoint.url}


@pytest.mark.parametrize("statuses", [[204], [503, 502, 504, 429, 200]])
def test_an_endpoint_that_answers_200_to_299_in_the_end_is_success(
    run: Callable[..., Ended], endpoint: Endpoint, statuses: list[int]
) -> None:
    endpoint.statuses, calls = list(statuses), len(statuses)
    ended = run(calling(endpoint))
    assert ended.verdict == ("SUCCEEDED", "applied")
    assert ended.execution.output["endpoint"] == {"status": statuses[-1]}
    assert endpoint.seen == ["HEAD /api/admin/drivers/1"] * calls
    (message,) = ended.messages
    assert f"\nEndpoint: {endpoint.url} answered {statuses[-1]}\n" in message["Message"]


def test_an_endpoint_without_head_is_called_by_get(run: Callable[..., Ended], endpoint: Endpoint) -> None:
    endpoint.statuses = [405, 206]
    ended = run(calling(endpoint))
    assert ended.verdict == ("SUCCEEDED", "applied")
    assert ended.execution.output["endpoint"] == {"status": 206}
    assert endpoint.seen == ["HEAD /api/admin/drivers/1", "GET /api/admin/drivers/1"]


@pytest.mark.parametrize(("status", "calls"), [(500, 5), (401, 1)])
def test_an_endpoint_that_answers_otherwise_is_a_failure_after_a_proved_fix(
    run: Callable[..., Ended], endpoint: Endpoint, database: Database, status: int, calls: int
) -> None:
    endpoint.statuses = [status]
    ended = run(calling(endpoint))
    assert ended.verdict == ("FAILED", "EndpointCheckError")
    assert ended.execution.cause is not None
    first, proof, *_, last = ended.execution.cause.split("\n")
    assert first.startswith(f"The endpoint {endpoint.url} answered {status} ")
    assert proof == f"The change is committed and verified: {VERIFIED} {database.user}."
    assert last == f"When that is repaired, call the endpoint again:  {VERIFY}"
    assert len(endpoint.seen) == calls
    assert database.run("SELECT count(*) FROM pg_attribute WHERE attname = 'active_since'") == [[1]]


def test_the_endpoint_is_called_after_a_verify_too(
    run: Callable[..., Ended], endpoint: Endpoint, database: Database
) -> None:
    database.run_as_owner(ADD_COLUMN)
    ended = run(calling(endpoint), action="verify")
    assert ended.execution.output["endpoint"] == {"status": 200}


# More than Step Functions carries

LARGEST_STATE_BYTES = 256 * 1024
TOO_LARGE = (
    "The function's answer exceeds the 256 KiB that Step Functions carries. The file was applied completely or not at"
    " all: PostgreSQL rolls back what was not committed.\n"
    f"Ask the function itself what is there:  ./pg-hotfix plan {HOTFIX} --stack pg-hotfix-local --direct"
)


@pytest.fixture
def pad(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The function's answers to these actions, or to all, are so many bytes longer."""
    invoke = laptop.machine.invoke_function

    def pad(size: int, *actions: str) -> None:
        def answer(function: EmulatedFunction, event: Any) -> Any:
            whole = invoke(function, event)
            return whole | ({"sql": "-" * size} if not actions or event["action"] in actions else {})

        monkeypatch.setattr(laptop.machine, "invoke_function", answer)

    return pad


def test_an_answer_that_is_too_large_is_told_and_reported_as_what_it_is(
    run: Callable[..., Ended], pad: Callable[..., None], database: Database
) -> None:
    pad(LARGEST_STATE_BYTES, "apply")
    ended = run()
    assert ended.verdict == ("FAILED", "FunctionCallError")
    assert database.run("SELECT count(*) FROM pg_attribute WHERE attname = 'active_since'") == [[1]]
    assert ended.execution.cause == TOO_LARGE
    (message,) = ended.messages
    assert TOO_LARGE in message["Message"]


def test_three_long_answers_fit_where_one_of_them_twice_would_not(
    run: Callable[..., Ended], pad: Callable[..., None]
) -> None:
    pad(72 * 1024)
    ended = run()
    assert ended.verdict == ("SUCCEEDED", "applied")
    # With the report they would not.
    assert "report" not in ended.execution.output
    assert len(ended.messages) == 1


def test_answers_that_are_too_large_together_are_told_too(
    run: Callable[..., Ended], pad: Callable[..., None], database: Database
) -> None:
    pad(LARGEST_STATE_BYTES // 2, "plan", "verify")
    ended = run()
    assert ended.verdict == ("FAILED", "FunctionCallError")
    before, what, _ = (ended.execution.cause or "").split("\n")
    assert before.startswith(f"Before this failure the apply answered: {COLUMN} applied, committed and proved; ")
    assert what.startswith("The function's answer exceeds the 256 KiB that Step Functions carries. ")
    assert len(ended.messages) == 1
    assert database.run("SELECT count(*) FROM pg_attribute WHERE attname = 'active_since'") == [[1]]


def test_what_the_report_function_answers_changes_no_verdict_if_it_is_too_large(
    run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "answer", lambda *_: {"run": {"output": "-" * LARGEST_STATE_BYTES}})
    ended = run()
    assert ended.verdict == ("SUCCEEDED", "applied")
    assert ended.steps.count("Report") == 1
    assert ended.messages == []


@pytest.mark.parametrize("error", ["States.DataLimitExceeded", "States.Runtime"])
def test_the_interpreter_catches_by_states_all_what_aws_does_and_no_more(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    def fail(_function: EmulatedFunction, _event: Any) -> Any:
        raise FunctionError(error, "why")

    def drop_entry(definition: dict[str, Any]) -> None:
        if error != "States.Runtime":
            del definition["States"]["Plan"]["Catch"][0]

    monkeypatch.setattr(laptop.machine, "invoke_function", fail)
    ended = staged(change=drop_entry).run(REQUEST)
    assert ended.verdict == ("FAILED", error)
    assert ended.messages == []


# The log


@pytest.fixture
def write_log(house: House) -> Iterator[Callable[..., None]]:
    """Writes an event of the application's log into a stream, with the time given in ms, or of now."""
    with contextlib.closing(house.aws.client("logs")) as logs:
        logs.create_log_group(logGroupName=LOG_GROUP)
        for stream in ("a", "b", "c"):
            logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)

        def write(stream: str, message: str, timestamp: int | None = None) -> None:
            event = {"timestamp": timestamp or time.time_ns() // 1_000_000, "message": message}
            logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=[event])

        yield write
        logs.delete_log_group(logGroupName=LOG_GROUP)


ERROR = "PrismaClientKnownRequestError P2022: driver 42 of Marina Lopes"


def test_a_log_that_stays_quiet_is_watched_to_the_end(
    run: Callable[..., Ended], write_log: Callable[..., None]
) -> None:
    write_log("a", ERROR)  # Before the fix: what it was made for.
    write_log("b", "all is well")
    ended = run(WATCH)
    assert ended.verdict == ("SUCCEEDED", "applied")
    assert ended.execution.output["watch"] == {"minutes": 5}
    assert [ended.steps.count(step) for step in ("WaitAMinute", "SearchLog")] == [5, 5]
    (message,) = ended.messages
    assert "\nApplication log: no line matched the error pattern for 5 min after the verify\n" in message["Message"]


def test_an_error_after_the_fix_is_found_and_nothing_of_its_line_is_kept(
    staged: Callable[..., Stage], write_log: Callable[..., None], database: Database
) -> None:
    stage = staged(**WATCH, minute_seconds=1.0)
    arn = stage.start(REQUEST)
    stage.wait_for_step(arn, "WaitAMinute")
    write_log("c", ERROR)
    ended = stage.wait(arn)
    assert ended.verdict == ("FAILED", "ErrorsContinueError")
    assert ended.execution.cause == (
        "A line in the application's log matches the error pattern, at most"
        f" {ended.steps.count('WaitAMinute')} min after the verify.\n"
        f"The change is committed and verified: {VERIFIED} {database.user}.\n"
        "Something else may be missing, or an old version of the application still runs."
        f" {READ.format(verified_at(stage, arn))}\n{WATCH_AGAIN}"
    )
    history = stage.states.get_execution_history(executionArn=arn, includeExecutionData=True)
    assert "Marina" not in json.dumps([history, ended.messages], default=str)


READ = (
    f"Read its lines:  aws logs filter-log-events --log-group-name {LOG_GROUP} --start-time {{}} --filter-pattern"
    f" '{PATTERN}'"
)
WATCH_AGAIN = f"When that is repaired, watch the log again:  {VERIFY}"


def verified_at(stage: Stage, arn: str) -> int:
    """When the verify of that execution answered, in ms."""
    outputs = [
        json.loads(event["stateExitedEventDetails"]["output"])
        for event in stage.states.get_execution_history(executionArn=arn)["events"]
        if event.get("stateExitedEventDetails", {}).get("name") == "KeepVerify"
    ]
    moment: int = outputs[0]["run"]["output"]["verify"]["finished_at_ms"]
    return moment


def test_a_search_that_may_succeed_in_a_moment_is_tried_again_four_times(
    run: Callable[..., Ended], write_log: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = iter(range(4))

    def answer(event: dict[str, Any], *others: Any) -> dict[str, Any]:
        if event["task"] == "search_log" and next(refused, None) is not None:
            raise LogUnavailableError("ThrottlingException")
        return real(event, *others)

    real = report.answer
    monkeypatch.setattr(report, "answer", answer)
    ended = run(WATCH)
    assert ended.verdict == ("SUCCEEDED", "applied")
    assert ended.steps.count("SearchLog: LogUnavailableError") == 4


def test_a_log_that_cannot_be_read_is_no_success(staged: Callable[..., Stage], database: Database) -> None:
    stage = staged(**WATCH)
    arn = stage.start(REQUEST)
    ended = stage.wait(arn)
    assert ended.verdict == ("FAILED", "WatchError")
    assert ended.execution.cause == (
        f"The log {LOG_GROUP} could not be searched (ResourceNotFoundException), so nobody knows whether the errors of"
        " the application have ended.\n"
        f"The change is committed and verified: {VERIFIED} {database.user}.\n"
        f"{READ.format(verified_at(stage, arn))}\n{WATCH_AGAIN}"
    )
    assert ended.steps.count("SearchLog") == 1


# The report


def test_a_success_is_reported_in_words(run: Callable[..., Ended], database: Database) -> None:
    ended = run({"EnvironmentName": "prod"})
    (message,) = ended.messages
    assert message["Subject"] == "pg-hotfix prod: applied"
    assert message["Message"] == (
        f"{HOTFIX} in prod: applied\n\n"
        f"{ended.execution.output['summary']}\n"
        f"Verified over a new connection: {VERIFIED} {database.user}.\n\n"
        "Asked for by (self-declared): ana.souza\n"
        "Reason: INC-4711\n"
        "Endpoint: not called (the parameter EndpointUrl is empty)\n"
        "Application log: not watched (the parameter ApplicationLogGroup is empty)\n"
        f"Execution: {ended.execution.arn}\n"
        f"The whole report:  ./pg-hotfix report {ended.execution.arn}"
    )


def test_a_failure_is_reported_with_its_advice(run: Callable[..., Ended], database: Database) -> None:
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN active_since text")
    ended = run({"EnvironmentName": "prod"})
    (message,) = ended.messages
    assert message["Subject"] == "pg-hotfix prod: MismatchError"
    assert message["Message"].startswith(
        f"apply of {HOTFIX} in prod failed: MismatchError\n\n{ended.execution.cause}\n\nAsked for by (self-declared)"
    )


def test_a_look_that_fails_mails_nobody(run: Callable[..., Ended], database: Database) -> None:
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN active_since text")
    ended = run(action="plan")
    assert (ended.verdict, ended.messages) == (("FAILED", "MismatchError"), [])


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [({}, ("SUCCEEDED", "applied")), ({"sql": "SELECT 1"}, ("FAILED", "RequestError"))],
)
def test_a_message_that_cannot_be_sent_changes_no_verdict(
    run: Callable[..., Ended], fields: dict[str, Any], verdict: tuple[str, str]
) -> None:
    def to_nobody(definition: dict[str, Any]) -> None:
        definition["States"]["Publish"]["Parameters"]["TopicArn"] = "arn:aws:sns:us-east-1:123456789012:nobody-made-it"

    ended = run({"change": to_nobody}, **fields)
    assert ended.verdict == verdict
    assert len([step for step in ended.steps if step.startswith("Publish: SNS.")]) == 4


# The report that is kept


def make_report(tmp_path: Path, *arguments: str, **environment: str) -> str:
    """What `report` prints in a shell with this environment."""
    command = [str(PROJECT / "pg-hotfix"), "report", *arguments]
    result = run_command(command, clean_environment(tmp_path) | environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_kept_report_is_the_one_that_the_command_writes(run: Callable[..., Ended], tmp_path: Path) -> None:
    ended = run()
    kept = ended.execution.output["report"]
    assert kept["json"]["execution"]["arn"] == ended.execution.arn
    assert kept["json"]["execution"]["seconds"] > 0
    saved = tmp_path / "output.json"
    saved.write_text(json.dumps(ended.execution.output))
    facts = tmp_path / "facts.json"
    assert make_report(tmp_path, str(saved), "--json", str(facts)) == kept["markdown"]
    assert json.loads(facts.read_text()) == kept["json"]


def test_the_function_as_it_was_built_writes_the_same_report(run: Callable[..., Ended]) -> None:
    output = run().execution.output
    kept = output.pop("report")
    execution = {key: kept["json"]["execution"][key] for key in ("arn", "started", "ended")}
    program = "import json, sys; sys.path.insert(0, sys.argv[1]); from pg_hotfix_report import app; "
    program += "print(json.dumps(app.lambda_handler(json.load(sys.stdin), None)))"
    event = json.dumps({"task": "report", "execution": execution, "state": {"run": {"output": output}}})
    built = BUILT_TEMPLATE.parent / "ReportFunction"
    command = [sys.executable, "-I", "-S", "-c", program, str(built)]
    variables = {"ENVIRONMENT": "local", "ENDPOINT_URL": "", "APPLICATION_LOG_GROUP": "", "ERROR_PATTERN": "P2022"}
    result = subprocess.run(command, input=event, env=variables, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["run"]["output"] == output | {"report": kept}


def test_the_report_of_a_failure_is_made_of_its_history(
    staged: Callable[..., Stage], house: House, tmp_path: Path
) -> None:
    nobody = Endpoint(f"http://127.0.0.1:{free_port()}/", [], [])
    ended = staged(**calling(nobody)).run(REQUEST)
    login = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
    written = tmp_path / "facts.json"
    make_report(tmp_path, ended.execution.arn, "--json", str(written), AWS_ENDPOINT_URL=house.aws.endpoint_url, **login)
    facts = json.loads(written.read_text())
    told = facts["execution"]
    assert (told["error"], told["cause"], told["changed"]) == ("EndpointCheckError", ended.execution.cause, True)
    assert [call["action"] for call in told["calls"]] == ["plan", "apply", "verify"]
    assert [step for step in told["steps"] if step.startswith("CallEndpoint")]
    assert "The endpoint: it failed, see the error." in facts["not_checked"]


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [({}, ("SUCCEEDED", "applied")), ({"sql": "SELECT 1"}, ("FAILED", "RequestError"))],
)
def test_a_report_function_that_fails_changes_no_verdict(
    run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], verdict: tuple[str, str]
) -> None:
    monkeypatch.setattr(report, "answer", fail)
    ended = run(**fields)
    assert ended.verdict == verdict
    assert "report" not in ended.execution.output
    assert ended.steps.count("Report: RuntimeError") == 3
    assert ended.messages == []
    if verdict[0] == "FAILED":
        # As Lambda gives it: nobody has taken the text out of it.
        assert json.loads(ended.execution.cause or "")["errorMessage"].startswith(
            "The request has the unknown key 'sql'."
        )


def fail(*_: object) -> None:
    raise RuntimeError("a defect")


def test_a_failure_of_step_functions_that_nobody_explains_is_one_all_the_same(
    run: Callable[..., Ended], pad: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pad(LARGEST_STATE_BYTES, "plan")
    monkeypatch.setattr(report, "answer", fail)
    ended = run()
    assert ended.verdict == ("FAILED", "FunctionCallError")
    assert ended.execution.cause == (
        "A function did not answer, and the report function could not say why. If a change was asked for, it was made"
        " completely or not at all. Plan again to see which. To see what happened:  ./pg-hotfix report"
        f" {ended.execution.arn}"
    )
