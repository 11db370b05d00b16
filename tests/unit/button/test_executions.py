"""Executions of the state machine, started and read by boto3 from moto's Step Functions."""

from __future__ import annotations

import contextlib
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from pg_hotfix_button import executions
from pg_hotfix_button.executions import (
    OtherPlanError,
    describe,
    execution_name,
    has_started_nothing,
    read_steps,
    start_once,
    wait_until_ended,
)
from tests.unit.conftest import BUSY_FUNCTION, answer, in_turn, lose, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_stepfunctions import SFNClient

    from laptop.aws import FakeAws
    from tests.unit.conftest import FakeTime

ID = "20260212092000_add_drivers_active_since"
LOOK = {"action": "plan", "hotfix": ID}
APPLY = {"action": "apply", "hotfix": ID, "plan_hash": "a" * 64}
WAITING: dict[str, Any] = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}}}
DONE: dict[str, Any] = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}

type Create = Callable[[dict[str, Any]], str]


@pytest.fixture
def caller(aws: FakeAws) -> Iterator[SFNClient]:
    """A client for answers of its own: the other one tidies up."""
    with contextlib.closing(aws.client("stepfunctions")) as client:
        yield client


def test_while_one_runs_no_second_is_started(client: SFNClient, create: Create) -> None:
    machine = create(WAITING)
    first = start_once(client, machine, APPLY | {"reason": "INC-4711"})
    assert start_once(client, machine, APPLY | {"reason": "another"}) == first
    assert len(executions.list_newest(client, machine)) == 1


def test_who_asks_by_force_is_not_shown_the_refusal_of_right_before(
    client: SFNClient, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = create(DONE)
    monkeypatch.setattr(executions, "find_last", lambda *_: None)  # as the list may be late by some seconds
    revert = {"action": "revert", "hotfix": ID, "reason": "INC-4712"}
    refused = start_once(client, machine, revert)
    assert start_once(client, machine, revert) == refused
    assert start_once(client, machine, revert | {"force": "true"}) != refused


def test_two_who_saw_the_same_start_one(client: SFNClient, create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = create(WAITING)
    monkeypatch.setattr(executions, "find_last", lambda *_: None)  # neither sees the other's in the list yet
    first = start_once(client, machine, APPLY | {"requested_by": "ana"})
    assert start_once(client, machine, APPLY | {"requested_by": "bruno"}) == first


def test_what_has_ended_can_be_started_again(client: SFNClient, create: Create) -> None:
    machine = create(DONE)
    first = start_once(client, machine, LOOK)
    wait_until_ended(client, first, 5)
    second = start_once(client, machine, LOOK)
    assert second != first
    assert describe(client, second).request == LOOK


def test_an_execution_that_has_left_the_list_is_in_nobodys_way(
    client: SFNClient, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand looks later the last apply is no longer seen, but its name is taken for 90 days."""
    machine = create(DONE)
    monkeypatch.setattr(executions, "find_last", lambda *_: None)
    old = start_once(client, machine, APPLY)
    wait_until_ended(client, old, 5)
    assert start_once(client, machine, APPLY) == old  # as the list may be late by some seconds
    monkeypatch.setattr(executions, "LISTED_WITHIN", timedelta(0))
    new = start_once(client, machine, APPLY)
    wait_until_ended(client, new, 5)
    newer = start_once(client, machine, APPLY)
    assert len({old, new, newer}) == 3


@pytest.mark.parametrize("other", [{"action": "plan"}, {"hotfix": "20260301101500_other"}])
def test_another_request_is_another_execution(client: SFNClient, create: Create, other: dict[str, str]) -> None:
    machine = create(WAITING)
    assert start_once(client, machine, APPLY) != start_once(client, machine, APPLY | other)


@pytest.mark.parametrize("other", [{"plan_hash": "b" * 64}, {"plan_hash": None}, {}])
def test_an_apply_of_another_plan_is_not_followed(client: SFNClient, create: Create, other: dict[str, Any]) -> None:
    machine = create(WAITING)
    unbound = {"action": "apply", "hotfix": ID, "requested_by": "ana"}
    first = describe(client, start_once(client, machine, unbound | other))
    with pytest.raises(OtherPlanError) as refused:
        start_once(client, machine, APPLY)
    assert str(refused.value) == (
        f"An apply of {ID}, asked for by ana, has been running since {first.started.astimezone(UTC):%F %T} UTC. It"
        " uses another plan than yours, or does less. Nothing was started."
    )
    assert len(executions.list_newest(client, machine)) == 1
    assert start_once(client, machine, unbound) == first.arn  # whoever is bound to none may follow it


def test_an_apply_that_would_record_does_not_follow_one_that_does_not(client: SFNClient, create: Create) -> None:
    machine = create(WAITING)
    start_once(client, machine, APPLY)
    with pytest.raises(OtherPlanError):
        start_once(client, machine, APPLY | {"record": "prisma"})
    assert execution_name("apply", ID, {}, None) != execution_name("apply", ID, {"record": "prisma"}, None)


def test_an_apply_of_another_plan_that_has_just_ended_is_in_nobodys_way(
    client: SFNClient, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = create(DONE)
    first = wait_until_ended(client, start_once(client, machine, APPLY | {"plan_hash": "b" * 64}), 5)
    late: Any = {"name": first.name, "status": "RUNNING", "executionArn": first.arn}
    monkeypatch.setattr(executions, "find_last", lambda *_: late)
    assert start_once(client, machine, APPLY) != first.arn


def test_an_execution_that_is_not_known_yet_is_looked_for_again(caller: SFNClient, create: Create) -> None:
    arn = start_once(caller, create(WAITING), LOOK)
    unknown = refuse("ExecutionDoesNotExist")
    answer(caller, "DescribeExecution", in_turn(unknown, unknown, lambda **_: None))  # then moto answers
    assert describe(caller, arn).is_running


def test_an_execution_that_never_was_is_given_up_after_seconds(
    caller: SFNClient, create: Create, stop_time: Callable[..., FakeTime]
) -> None:
    machine = create(WAITING)
    clock = stop_time(executions)
    began = clock.now
    with pytest.raises(caller.exceptions.ExecutionDoesNotExist):
        describe(caller, executions.execution_arn(machine, "never"))
    assert 2 < clock.now - began <= executions.KNOWN_WITHIN_SECONDS


# Whether anything was started


def failure_of_start(caller: SFNClient, machine: str) -> Exception:
    with pytest.raises((BotoCoreError, ClientError)) as failed:
        start_once(caller, machine, APPLY)
    return failed.value


@pytest.mark.parametrize("call", ["ListExecutions", "StartExecution"])
def test_a_refusal_at_the_first_try_proves_that_nothing_was_started(
    caller: SFNClient, create: Create, call: str
) -> None:
    machine = create(WAITING)
    answer(caller, call, refuse("AccessDeniedException"))
    assert has_started_nothing(failure_of_start(caller, machine))


@pytest.mark.parametrize(
    "what", [lose, refuse("InternalServerError", 500), in_turn(lose, refuse("ExpiredTokenException"))]
)
def test_an_answer_that_was_lost_proves_nothing(
    caller: SFNClient, create: Create, what: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if a later try is refused."""
    machine = create(WAITING)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the tries of boto3
    answer(caller, "StartExecution", what)
    assert not has_started_nothing(failure_of_start(caller, machine))


def test_the_one_that_was_started_after_all_is_told_apart(
    caller: SFNClient, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = create(WAITING)
    start_once(caller, machine, APPLY | {"requested_by": "ana"})
    monkeypatch.setattr(executions, "find_last", lambda *_: None)
    answer(caller, "DescribeExecution", refuse("AccessDeniedException"))
    assert not has_started_nothing(failure_of_start(caller, machine))


def test_a_name_is_one_that_step_functions_takes() -> None:
    name = execution_name("verify", f"20260212092000_{'x' * 200}", {}, None)
    assert len(name) <= 80
    assert name.startswith("verify-20260212092000_xx")


def test_of_gates_too_only_one_runs_at_a_time(client: SFNClient, create: Create) -> None:
    machine = create(WAITING)
    first = start_once(client, machine, {"action": "gate"})
    assert start_once(client, machine, {"action": "gate", "reason": "another"}) == first
    assert describe(client, first).name.startswith("gate-schema-")


def test_waiting_ends_with_the_execution_or_with_its_time(client: SFNClient, create: Create) -> None:
    machine = create({"StartAt": "Wait", "States": {"Wait": WAITING["States"]["Wait"] | {"Seconds": 2}}})
    arn = start_once(client, machine, LOOK)
    assert wait_until_ended(client, arn, 0.5).is_running
    ended = wait_until_ended(client, arn, 20)
    assert (ended.status, ended.is_running) == ("SUCCEEDED", False)
    assert ended.stopped is not None


def test_an_execution_of_any_json_can_be_read(client: SFNClient, create: Create) -> None:
    arn = client.start_execution(stateMachineArn=create(DONE), name="any", input='["a", "list"]')["executionArn"]
    ended = wait_until_ended(client, arn, 5)
    assert (ended.request, ended.output) == ({}, {})


def test_a_failure_is_read_with_its_name_and_text(client: SFNClient, create: Create) -> None:
    machine = create(
        {"StartAt": "Failed", "States": {"Failed": {"Type": "Fail", "Error": "LockBusyError", "Cause": "Busy."}}}
    )
    ended = wait_until_ended(client, start_once(client, machine, LOOK), 5)
    assert (ended.status, ended.error, ended.cause, ended.output) == ("FAILED", "LockBusyError", "Busy.", {})


def test_the_steps_are_told_with_the_failures_that_are_tried_again(client: SFNClient, create: Create) -> None:
    call = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": BUSY_FUNCTION, "Payload": {}},
    }
    retry = [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1, "IntervalSeconds": 1}]
    states = {"First": {"Type": "Pass", "Next": "Call"}, "Call": call | {"Retry": retry, "End": True}}
    arn = start_once(client, create({"StartAt": "First", "States": states}), LOOK)
    wait_until_ended(client, arn, 10)
    steps = read_steps(client, arn)
    assert [(step.state, step.kind, step.attempt, step.error, step.text) for step in steps] == [
        ("First", "Pass", 1, None, ""),
        ("Call", "Task", 1, None, ""),
        ("Call", "Task", 1, "LockBusyError", "public.drivers stayed locked."),
        ("Call", "Task", 2, None, ""),
        ("Call", "Task", 2, "LockBusyError", "public.drivers stayed locked."),
    ]
