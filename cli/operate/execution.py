"""A request is carried out in a deployed stack and followed to its end. The exit code is 0 only for success."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, TypeVar

from botocore import exceptions
from botocore.config import Config

from cli import show
from cli.operate import verdict
from cli.operate.order import make_request
from cli.operate.stack import FAILURES, NOTHING_STARTED, QUICK, Stack, explain, find_stack
from cli.operate.verdict import Ending
from laptop.errors import LocalError
from laptop.places import PROJECT, shown
from pg_hotfix_button import executions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from mypy_boto3_stepfunctions import SFNClient

    from cli.operate.order import Order

# What `expect-schema` wrote.
LIST = PROJECT / "sql" / "schema.expect"
FIRST_POLL_SECONDS = 1.0
LONGEST_POLL_SECONDS = 5.0
Answer = TypeVar("Answer")
# For so long an execution is followed although AWS does not answer: it may run for 40 minutes.
OUTAGE_SECONDS = 300.0
# The function answers within 55 s, after a cold start. A second invocation would only repeat the first.
ONCE = Config(connect_timeout=5, read_timeout=70, retries={"mode": "standard", "total_max_attempts": 1})


def run(order: Order, answer: Path | None) -> int:
    """The request has run to its end, and was shown. The answer is in that file as JSON, if one is named. Returns 0 for
    success, 1 for a failure.

    Raises:
        LocalError: it could not be started or followed; the text says which.
    """
    if answer:
        # Before anything is contacted: later a file that can't be written would hide the verdict, and one of an earlier
        # run would be read as the answer of this.
        write_answer(answer, "", NOTHING_STARTED)
    try:
        ending = carry_out(order, make_request(order, os.environ))
        if order.action == "gate" and not ending.error:
            refuse_other_list(ending, LIST, order.command())
    except LocalError as error:
        if answer:
            write_answer(answer, Ending({}, type(error).__name__, str(error)).as_json(), str(error))
        raise
    if answer:
        said = ending.error or f"The result is {ending.result}."
        write_answer(answer, ending.as_json(), f"{said} {ending.cause or ''}".strip())
    verdict.show_ending(ending, order)
    return 1 if ending.error else 0


def write_answer(path: Path, text: str, state: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LocalError(f"{state} {path} cannot be written: {error.strerror}.") from error


def refuse_other_list(ending: Ending, path: Path, command: str) -> None:
    """The gate was passed with the list that is here, if there is one.

    Raises:
        LocalError: the function has another; it has looked, and changed nothing.
    """
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != ending.output["plan"]["sql_sha256"]:
        raise LocalError(
            f"The deployed list differs from {shown(path)}: one of them is older. {ending.output['summary']} "
            f"Nothing was changed. Deploy this list, and run again:  {command}"
        )


def carry_out(order: Order, request: Mapping[str, str]) -> Ending:
    """The request has run to its end in the stack.

    Raises:
        LocalError: it could not be started or followed; the text says which.
    """
    stack = find_stack(order.environment, order.stack)
    body = {"requested_by": stack.identity, **request}
    show.show_title(" ".join([body["action"], *([body["hotfix"]] if "hotfix" in body else []), "in", str(stack)]))
    show.show_text(f"requested by {body['requested_by']}, reason: {body.get('reason', '(none)')}")
    return invoke_function(order, stack, body) if order.is_direct else run_machine(order, stack, body)


def invoke_function(order: Order, stack: Stack, body: dict[str, str]) -> Ending:
    """The function was invoked once, and has answered.

    https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
    """
    again = f"Run it again; it is safe:  {order.command()}"
    with told_if_interrupted(lambda: f"The function goes on to its end. {again}"):
        try:
            answer = stack.session.client("lambda", config=ONCE).invoke(
                FunctionName=stack.function, Payload=json.dumps(body)
            )
            payload = json.loads(answer["Payload"].read())
        except FAILURES as error:
            raise explain(error, f"The function {stack.function} did not answer", state_of(error), again) from error
    if "FunctionError" in answer:
        return Ending({}, payload.get("errorType", "FunctionError"), payload.get("errorMessage", json.dumps(payload)))
    if not isinstance(payload, dict):
        return Ending(
            {}, "FunctionError", f"The function answered {json.dumps(payload)}, which is no answer of pg-hotfix."
        )
    # As the state machine keeps them.
    key = {"check": "plan", "gate": "plan", "revert": "apply"}.get(body["action"], body["action"])
    return Ending({"request": body, "result": payload.get("result"), "summary": payload.get("summary"), key: payload})


def run_machine(order: Order, stack: Stack, body: dict[str, str]) -> Ending:
    """An execution of the request has ended: a new one, or one like it that ran already."""
    client = stack.session.client("stepfunctions", config=QUICK)
    follow_it = f"To follow it:  {order.command()}"
    starting = Starting(client)
    with told_if_interrupted(lambda: f"{starting.state} {follow_it if starting.is_sent else ''}".strip()):
        try:
            arn = executions.start_once(client, stack.machine_arn, body)
        except executions.OtherPlanError as error:
            unbound = order.command(plan_hash="", record="", force=False)
            raise LocalError(
                f"{error}\nWhen it has ended, look again:  {order.look_again()}\n"
                f"To follow it until then:  {unbound}\n"
                "That second line is bound to no plan: once the other has ended, it starts one of its own."
            ) from error
        except FAILURES as error:
            again = f"Run it again:  {order.command()}"
            failed = f"The state machine {stack.machine_arn} did not start"
            raise explain(error, failed, state_of(error), again) from error
        starting.is_done = True
        try:
            return follow(client, arn)
        except FAILURES as error:
            state = "What was started goes on."
            raise explain(error, f"The execution {arn} can't be seen", state, follow_it) from error


class Starting:
    """How far a start has come, for whoever interrupts it."""

    def __init__(self, client: SFNClient) -> None:
        self.is_sent = False
        self.is_done = False
        client.meta.events.register("before-send.stepfunctions.StartExecution", self.note)

    def note(self, **_: object) -> None:
        self.is_sent = True

    @property
    def state(self) -> str:
        if self.is_done:
            return "What was started goes on."
        return "Whether it was started is not known." if self.is_sent else NOTHING_STARTED


def follow(client: SFNClient, arn: str) -> Ending:
    """The execution has ended; each of its steps was shown as soon as it was seen. A network that fails for minutes
    ends nothing; a caller who may not read the history sees no steps."""
    execution = patiently(lambda: executions.describe(client, arn))
    by = execution.request.get("requested_by", "nobody named")
    show.show_text(f"execution {execution.name}, started at {show.format_time(execution.started)} UTC by {by}")
    shown: int | None = 0
    pause = FIRST_POLL_SECONDS
    while True:
        if shown is not None:
            # Read after the status: of an execution that has ended, this holds all.
            try:
                steps = patiently(lambda: executions.read_steps(client, arn))
            except exceptions.ClientError as error:
                show.show_text(f"Its steps can't be seen ({error.response['Error'].get('Code')}).", "yellow")
                shown = None
            else:
                for step in steps[shown:]:
                    verdict.show_step(step)
                shown = len(steps)
        if not execution.is_running:
            break
        time.sleep(pause)
        pause = min(pause * 1.2, LONGEST_POLL_SECONDS)
        execution = patiently(lambda: executions.describe(client, arn))
    if execution.status == "SUCCEEDED":
        return Ending(execution.output, arn=execution.arn)
    # One that was stopped or ran out of time has no text of its own.
    cause = execution.cause or "Its last step may have been carried out or not: plan tells what is there."
    return Ending({}, execution.error or execution.status, cause, execution.arn, execution.request)


def patiently(ask: Callable[[], Answer]) -> Answer:  # noqa: UP047 - Python 3.11
    """The answer, also if AWS could not be reached for some minutes, or had too many calls."""
    deadline = time.monotonic() + OUTAGE_SECONDS
    told = False
    while True:
        try:
            return ask()
        except exceptions.ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if (status < executions.SERVER_ERRORS and not is_throttled(error)) or time.monotonic() > deadline:
                raise
        except (exceptions.HTTPClientError, exceptions.ConnectionError):
            if time.monotonic() > deadline:
                raise
        if not told:
            show.show_text("AWS does not answer; trying again for some minutes.", "yellow")
            told = True
        time.sleep(LONGEST_POLL_SECONDS)


def is_throttled(error: exceptions.ClientError) -> bool:
    return error.response["Error"].get("Code") in ("ThrottlingException", "TooManyRequestsException")


@contextlib.contextmanager
def told_if_interrupted(say: Callable[[], str]) -> Iterator[None]:
    """Whoever interrupts the block, or closes what it prints to, is told how far it has come."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # rich ends the program when its pipe is closed
        print(f"\nInterrupted. {say()}", file=sys.stderr)
        raise


def state_of(error: Exception) -> str:
    if executions.has_started_nothing(error):
        return NOTHING_STARTED
    return "Whether it was started is not known; the same command again is safe."
