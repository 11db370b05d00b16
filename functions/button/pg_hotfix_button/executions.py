"""The executions of the state machine: starts one, once, and reads how it ended."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_stepfunctions import SFNClient
    from mypy_boto3_stepfunctions.type_defs import ExecutionListItemTypeDef

RUNNING = "RUNNING"
# One page of ListExecutions has at most this many; older executions do not matter in an incident.
LOOKED_AT = 1000
# The keys of a request that decide what is done, beside the action and the hotfix.
DECIDING = ("plan_hash", "record", "force")
# ListExecutions may not list yet what has just been started.
LISTED_WITHIN = timedelta(seconds=30)
# DescribeExecution may not know yet what has just been started.
KNOWN_WITHIN_SECONDS = 3.0
# The calls that start an execution: if AWS refuses one of them, nothing was started. DescribeExecution follows a start.
STARTING = {"ListExecutions", "StartExecution", "Invoke"}
# From this HTTP status on, a call that failed may have been carried out.
SERVER_ERRORS = 500
# The pauses between two readings of a running execution: short at first, since most take a second or two.
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 1.5


@dataclass(frozen=True)
class Execution:
    """One execution as it is now. `output` is what the machine returned, {} unless it succeeded; `error` and `cause`
    are its failure's name and text. `request` is whatever it was started with, by anybody."""

    arn: str
    name: str
    status: str
    started: datetime
    stopped: datetime | None
    request: dict[str, Any]
    output: dict[str, Any]
    error: str | None
    cause: str | None

    @property
    def is_running(self) -> bool:
        return self.status == RUNNING


@dataclass(frozen=True)
class Step:
    """One step of an execution: a state was entered, tried again, or failed. `kind` is the state's type, such as Task;
    `text` is that of a failure."""

    at: datetime
    state: str
    kind: str
    attempt: int = 1
    error: str | None = None
    text: str = ""


class OtherPlanError(Exception):
    """An execution for the hotfix runs with another plan than the caller's, or does less. Nothing was started."""

    def __init__(self, hotfix: str, running: Execution) -> None:
        by = running.request.get("requested_by") or "nobody named"
        what = "A revert" if running.request.get("action") == "revert" else "An apply"
        super().__init__(
            f"{what} of {hotfix}, asked for by {by}, has been running since "
            f"{running.started.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC. It uses another plan than yours, or does less. "
            "Nothing was started."
        )


def start_once(client: SFNClient, machine_arn: str, request: Mapping[str, Any]) -> str:
    """An execution of that request runs: a new one, or the one that runs already. Returns its ARN.

    If several people press the button several times after the same plan, only one execution is started: its name is
    made of the request and of the last execution like it, and Step Functions accepts a name only once.

    https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html

    Raises:
        OtherPlanError: the one that runs uses another plan than the request, or does not record what the request wants
            recorded. Nothing was started.
    """
    # A gate has no hotfix.
    action, hotfix = request["action"], request.get("hotfix", "schema")
    wanted = {key: request[key] for key in DECIDING if request.get(key)}
    last = find_last(client, machine_arn, name_prefix(action, hotfix))
    if last and last["status"] == RUNNING:
        running = describe(client, last["executionArn"]) if wanted else None
        if running is None or wanted.items() <= running.request.items():
            return last["executionArn"]
        if running.is_running:  # and has not ended since it was listed
            raise OtherPlanError(hotfix, running)
    last_name = last["name"] if last else None
    text = json.dumps(request)
    while True:
        name = execution_name(action, hotfix, wanted, last_name)
        try:
            return client.start_execution(stateMachineArn=machine_arn, name=name, input=text)["executionArn"]
        except client.exceptions.ExecutionAlreadyExists:
            # Another caller started it just before, or it is so old that it is no longer listed. An old one would keep
            # its name forever, so the next name is made from it. The name includes what is wanted, so that a forced
            # revert does not return the refusal before it.
            existing = describe(client, execution_arn(machine_arn, name))
            if existing.is_running or existing.started > datetime.now(UTC) - LISTED_WITHIN:
                return existing.arn
            last_name = name


def has_started_nothing(error: Exception) -> bool:
    """Whether this failure proves that nothing was started: AWS has refused the first try.

    boto3 reports only its last try. If the answer to an earlier one was lost, a refusal proves nothing.
    """
    if not isinstance(error, ClientError) or error.operation_name not in STARTING:
        return False
    metadata = error.response.get("ResponseMetadata", {})
    return metadata.get("HTTPStatusCode", SERVER_ERRORS) < SERVER_ERRORS and metadata.get("RetryAttempts") == 0


def execution_name(action: str, hotfix: str, wanted: Mapping[str, Any], last_name: str | None) -> str:
    """At most 80 characters, as Step Functions allows."""
    seen = hashlib.sha256(json.dumps([wanted, last_name], sort_keys=True).encode()).hexdigest()[:8]
    return f"{name_prefix(action, hotfix)}{seen}"


def name_prefix(action: str, hotfix: str) -> str:
    return f"{action}-{hotfix[:50]}-"


def execution_arn(machine_arn: str, name: str) -> str:
    return f"{machine_arn.replace(':stateMachine:', ':execution:')}:{name}"


def find_last(client: SFNClient, machine_arn: str, prefix: str) -> ExecutionListItemTypeDef | None:
    """The newest execution whose name begins so."""
    return next((found for found in list_newest(client, machine_arn) if found["name"].startswith(prefix)), None)


def list_newest(client: SFNClient, machine_arn: str) -> list[ExecutionListItemTypeDef]:
    """The newest first."""
    return client.list_executions(stateMachineArn=machine_arn, maxResults=LOOKED_AT)["executions"]


def describe(client: SFNClient, arn: str) -> Execution:
    """The execution as it is now, even if it was started just before.

    https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html
    """
    deadline = time.monotonic() + KNOWN_WITHIN_SECONDS
    while True:
        try:
            seen = client.describe_execution(executionArn=arn)
            break
        except client.exceptions.ExecutionDoesNotExist:
            if time.monotonic() + FIRST_PAUSE_SECONDS > deadline:
                raise
            time.sleep(FIRST_PAUSE_SECONDS)
    return Execution(
        arn=arn,
        name=seen["name"],
        status=seen["status"],
        started=seen["startDate"],
        stopped=seen.get("stopDate"),
        request=read_object(seen.get("input")),
        output=read_object(seen.get("output")),
        error=seen.get("error"),
        cause=seen.get("cause"),
    )


def read_object(text: str | None) -> dict[str, Any]:
    """{} for any other JSON: somebody may start an execution with a list."""
    value = json.loads(text or "{}")
    return value if isinstance(value, dict) else {}


def wait_until_ended(client: SFNClient, arn: str, seconds: float) -> Execution:
    """The execution when it has ended, or after that time."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while (execution := describe(client, arn)).is_running and time.monotonic() + pause < deadline:
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
    return execution


def read_steps(client: SFNClient, arn: str) -> list[Step]:
    """The steps so far, the oldest first.

    https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html
    """
    steps: list[Step] = []
    state, kind, attempt = "", "", 0
    for page in client.get_paginator("get_execution_history").paginate(executionArn=arn):
        for event in page["events"]:
            at = event["timestamp"]
            if "stateEnteredEventDetails" in event:
                state, kind = event["stateEnteredEventDetails"]["name"], event["type"].removesuffix("StateEntered")
                attempt = 0
                steps.append(Step(at, state, kind))
            elif event["type"] == "TaskScheduled":
                attempt += 1
                if attempt > 1:
                    steps.append(Step(at, state, kind, attempt))
            elif failure := event.get("taskFailedEventDetails") or event.get("taskTimedOutEventDetails"):
                error, text = failure.get("error", "failed"), read_cause(failure.get("cause", ""))
                steps.append(Step(at, state, kind, attempt, error, text))
    return steps


def read_cause(cause: str) -> str:
    """The text in the cause of a failure. Lambda sends a function's exception as JSON.

    https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html
    """
    try:
        return str(json.loads(cause)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        return cause
