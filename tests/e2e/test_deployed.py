"""A stack that is really deployed: PG_HOTFIX_STACK names it, and the AWS login and region of this shell reach it.

    AWS_PROFILE=staging PG_HOTFIX_STACK=pg-hotfix-staging .venv/bin/python -m pytest tests/e2e/test_deployed.py

It only reads, unless PG_HOTFIX_E2E_APPLY=1: then it applies the packaged hotfix. Needed are the rights of GitHubRole,
and those to see what the stack consists of (cloudformation:DescribeStackResource, scheduler:GetSchedule,
cloudwatch:DescribeAlarms, ssm:DescribeDocument, lambda:InvokeFunction on the button).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from cli.main import main
from cli.operate.stack import find_stack
from pg_hotfix_button.executions import describe, start_once, wait_until_ended
from tests.conftest import HOTFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.operate.stack import Stack

STACK = os.environ.get("PG_HOTFIX_STACK", "")
pytestmark = pytest.mark.skipif(not STACK, reason="PG_HOTFIX_STACK names no deployed stack")

ALARMS = (
    *("ReadinessAlarm", "FailureAlarm", "ExecutionAlarm"),
    *("LockBusyAlarm", "DeadLetterAlarm"),
)
END_SECONDS = 300


@pytest.fixture
def stack() -> Stack:
    return find_stack("", STACK)


@pytest.fixture
def physical_id(stack: Stack) -> Callable[[str], str]:
    """Finds a resource of the stack by its name in template.yaml."""
    client = stack.session.client("cloudformation")

    def find(name: str) -> str:
        found = client.describe_stack_resource(StackName=STACK, LogicalResourceId=name)
        return found["StackResourceDetail"]["PhysicalResourceId"]

    return find


def hotfix(action: str) -> int:
    """The exit code of `./pg-hotfix`."""
    return main([action, "--stack", STACK, "--reason", "test", *([] if action == "check" else [HOTFIX])])


def test_it_is_ready() -> None:
    assert hotfix("check") == 0


def test_a_plan_goes_through_the_state_machine() -> None:
    assert hotfix("plan") == 0


def test_a_second_start_follows_the_first(stack: Stack) -> None:
    client = stack.session.client("stepfunctions")
    request = {"hotfix": HOTFIX, "action": "plan", "reason": "test", "requested_by": "test"}
    first = start_once(client, stack.machine_arn, request)
    was_running = describe(client, first).is_running
    second = start_once(client, stack.machine_arn, request)
    # One that has ended by then is no longer in the way.
    assert first == second or not was_running
    assert wait_until_ended(client, second, END_SECONDS).status == "SUCCEEDED"


def test_readiness_is_asked_for_by_a_schedule(stack: Stack, physical_id: Callable[[str], str]) -> None:
    schedule = stack.session.client("scheduler").get_schedule(Name=physical_id("ReadinessSchedule"))
    assert schedule["State"] == "ENABLED"
    assert "check" in schedule["Target"]["Input"]


def test_each_alarm_tells_somebody(stack: Stack, physical_id: Callable[[str], str]) -> None:
    names = [physical_id(name) for name in ALARMS]
    alarms = stack.session.client("cloudwatch").describe_alarms(AlarmNames=names)["MetricAlarms"]
    assert {alarm["AlarmName"] for alarm in alarms if alarm["AlarmActions"]} == {*names}


def test_the_runbook_is_there(stack: Stack, physical_id: Callable[[str], str]) -> None:
    document = stack.session.client("ssm").describe_document(Name=physical_id("ApplyHotfixRunbook"))["Document"]
    assert (document["Status"], document["DocumentType"]) == ("Active", "Automation")
    assert {parameter["Name"] for parameter in document["Parameters"]} >= {"HotfixId", "Reason", "Approvers"}


def test_the_button_answers(stack: Stack, physical_id: Callable[[str], str]) -> None:
    client = stack.session.client("lambda")
    answer: Any = client.invoke(FunctionName=physical_id("ButtonFunction"), Payload=json.dumps({"describe": True}))
    assert "FunctionError" not in answer
    assert json.loads(answer["Payload"].read())


@pytest.mark.skipif(os.environ.get("PG_HOTFIX_E2E_APPLY") != "1", reason="PG_HOTFIX_E2E_APPLY=1 would apply the hotfix")
def test_an_apply_is_applied_once() -> None:
    assert [hotfix("apply"), hotfix("apply"), hotfix("verify")] == [0, 0, 0]
