"""A request is carried out in a deployed stack and followed to its end. The exit code is 0 only for success."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from botocore import exceptions
from botocore.config import Config

from cli import show
from cli.operate import verdict
from cli.operate.order import make_request
from cli.operate.stack import NOTHING_STARTED, QUICK, Stack, explain, find_stack
from cli.operate.verdict import Ending
from laptop.errors import LocalError
from laptop.places import PROJECT, shown
from pg_hotfix_button import executions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mypy_boto3_stepfunctions import SFNClient

    from cli.operate.order import Order

# What `expect-schema` wrote.
LIST = PROJECT / "sql" / "schema.expect"
POLL_SECONDS = 1.0
# The function answers within 55 s, after a cold start. A second invocation would only repeat the first.
ONCE = Config(connect_timeout=5, read_timeout=70, retries={"mode": "standard", "total_max_attempts": 1})


def run(order: Order, answer: Path | None) -> int:
    """The request has run to its end, and was shown. The answer is in that file as JSON, if one is named. Returns 0 for
    success, 1 for a failure.

    Raises:
        LocalError: it could not be started or followed; the text says which.
    """
    ending = carry_out(order, make_request(order, os.environ))
    if order.action == "gate" and not ending.error:
        refuse_other_list(ending, LIST, order.command())
    verdict.show_ending(ending, order)
    if answer:
        write_answer(answer, ending)
    return 1 if ending.error else 0


def write_answer(path: Path, ending: Ending) -> None:
    try:
        path.write_text(ending.as_json())
    except OSError as error:
        raise LocalError(f"The answer above could not be written to {path}: {error.strerror}.") from error


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
    return invoke_function(stack, body) if order.is_direct else run_machine(order, stack, body)


def invoke_function(stack: Stack, body: dict[str, str]) -> Ending:
    """The function was invoked once, and has answered.

    https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
    """
    with told_if_interrupted("The function goes on to its end. The same command again is safe."):
        try:
            answer = stack.session.client("lambda", config=ONCE).invoke(
                FunctionName=stack.function, Payload=json.dumps(body)
            )
            payload = json.loads(answer["Payload"].read())
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise explain(error, f"The function {stack.function} did not answer", state_of(error)) from error
    if "FunctionError" in answer:
        return Ending({}, payload.get("errorType", "FunctionError"), payload.get("errorMessage", json.dumps(payload)))
    # As the state machine keeps them.
    key = {"check": "plan", "gate": "plan", "revert": "apply"}.get(body["action"], body["action"])
    return Ending({"request": body, "result": payload["result"], "summary": payload["summary"], key: payload})


def run_machine(order: Order, stack: Stack, body: dict[str, str]) -> Ending:
    """An execution of the request has ended: a new one, or one like it that ran already."""
    client = stack.session.client("stepfunctions", config=QUICK)
    going_on = f"What was started goes on. To follow it:  {order.command()}"
    with told_if_interrupted(going_on):
        try:
            arn = executions.start_once(client, stack.machine_arn, body)
        except executions.OtherPlanError as error:
            unbound = order.command(plan_hash="", record="", force=False)
            raise LocalError(
                f"{error}\nWhen it has ended, look again:  {order.look_again()}\n"
                f"To follow it until then:  {unbound}\n"
                "That second line is bound to no plan: once the other has ended, it starts one of its own."
            ) from error
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise explain(error, f"The state machine {stack.machine_arn} did not start", state_of(error)) from error
        try:
            return follow(client, arn)
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise explain(error, f"The execution {arn} can't be seen", going_on) from error


def follow(client: SFNClient, arn: str) -> Ending:
    """The execution has ended; each of its steps was shown as soon as it was seen."""
    execution = executions.describe(client, arn)
    by = execution.request.get("requested_by", "nobody named")
    show.show_text(f"execution {execution.name}, started at {show.format_time(execution.started)} UTC by {by}")
    shown = 0
    while True:
        # Read after the status: of an execution that has ended, this holds all.
        steps = executions.read_steps(client, arn)
        for step in steps[shown:]:
            verdict.show_step(step)
        shown = len(steps)
        if not execution.is_running:
            break
        time.sleep(POLL_SECONDS)
        execution = executions.describe(client, arn)
    if execution.status == "SUCCEEDED":
        return Ending(execution.output, arn=execution.arn)
    # One that was stopped or ran out of time has no text of its own.
    cause = execution.cause or "Its last step may have been carried out or not: plan tells what is there."
    return Ending({}, execution.error or execution.status, cause, execution.arn)


@contextlib.contextmanager
def told_if_interrupted(text: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nInterrupted. {text}", file=sys.stderr)
        raise


def state_of(error: Exception) -> str:
    if executions.has_started_nothing(error):
        return NOTHING_STARTED
    return "Whether it was started is not known; the same command again is safe."
