"""`make hotfix`: a hotfix of a deployed stack is run and followed to its end. Whatever fails, the exit code tells."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from botocore import exceptions
from botocore.config import Config

from local import show, verdict
from local.errors import LocalError
from local.functions import errors, executions, request
from local.places import PROJECT, shown
from local.stack import NOTHING_STARTED, QUICK, Stack, environments, explain, find_stack
from local.verdict import Ending

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mypy_boto3_stepfunctions import SFNClient

# What `make gate` wrote.
LIST = PROJECT / "sql" / "schema.expect"
POLL_SECONDS = 1.0
# The function answers within 55 s, after a cold start. A second invocation would only repeat the first.
ONCE = Config(connect_timeout=5, read_timeout=70, retries={"mode": "standard", "total_max_attempts": 1})
# What the caller types. All come by the environment, where neither make nor a shell changes a reason's characters.
VARIABLES = ("ENV", "STACK", "ID", "ACTION", "REASON", "BY", "PLAN_HASH", "RECORD", "FORCE", "DIRECT", "OUTPUT")
# What a shell and a form of GitHub make of yes and no.
FORCED = {"1": "true", "0": "", "false": ""}
USAGE = """\
make hotfix ENV=prod ID=<id> ACTION=plan|apply|verify [REASON=INC-4711] [BY=ana] [PLAN_HASH=<from the plan>]
make hotfix ENV=prod ID=<id> ACTION=revert REASON=INC-4712 [BY=ana] [FORCE=1, whatever the rows hold]
make hotfix ENV=prod ACTION=check|gate
Also: STACK=<name> instead of ENV, OUTPUT=<file> for the answer as JSON, DIRECT=1 to go around the state machine, and
with apply RECORD=prisma to write the row of Prisma's history."""


@dataclass(frozen=True)
class Order:
    """What the caller wants: the variables as typed, and the request that they make."""

    typed: Mapping[str, str]
    request: Mapping[str, str]

    @property
    def is_direct(self) -> bool:
        # Whether the function is ready is asked of the function itself, with nothing else in between.
        return bool(self.typed["DIRECT"]) or self.request["action"] == "check"

    def command(self, **changes: str) -> str:
        """The line to type for the same, with those changes."""
        values = {name: value for name, value in {**self.typed, **changes}.items() if value and name != "OUTPUT"}
        # make takes a dollar on its command line for the beginning of a variable.
        return shlex.join(["make", "hotfix", *(f"{name}={value.replace('$', '$$')}" for name, value in values.items())])


def main(environment: Mapping[str, str]) -> int:
    """The hotfix has run to its end, and the exit code is 0 only if it succeeded."""
    # What ends a pipeline's job ends this in the same way as Ctrl-C, also where a shell ignores that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        order = read_order(environment)
        if order is None:
            print(describe_usage(), file=sys.stderr)
            return 2
        ending = carry_out(order)
        if order.request["action"] == "gate" and not ending.error:
            refuse_other_list(ending, LIST, order.command())
        verdict.show_ending(ending, order.command)
        if order.typed["OUTPUT"]:
            write_answer(Path(order.typed["OUTPUT"]), ending)
        return 1 if ending.error else 0
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


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
            f"The gate was passed with another list than {shown(path)}: the deployed one is older, or newer. "
            f"{ending.output['summary']} Nothing was changed. Deploy this one, and run again:  {command}"
        )


def describe_usage() -> str:
    packaged = "".join(f"\n  {path.stem}" for path in sorted((PROJECT / "sql").glob("*.sql")))
    return f"{USAGE}\nENV is one of {', '.join(environments())}. The packaged ids:{packaged}"


def read_order(environment: Mapping[str, str]) -> Order | None:
    """None when something is missing without which nobody knows what is meant.

    Raises:
        LocalError: the function would refuse the request; nothing was contacted.
    """
    typed = {name: environment.get(name, "").strip() for name in VARIABLES}
    whole = typed["ACTION"] in request.ACTIONS and (typed["ENV"] or typed["STACK"])
    if not whole or (typed["ACTION"] not in ("check", "gate") and not typed["ID"]):
        return None
    body = {
        "hotfix": typed["ID"],
        "action": typed["ACTION"],
        "reason": typed["REASON"],
        "requested_by": typed["BY"] or name_in_pipeline(environment),
        "plan_hash": typed["PLAN_HASH"],
        "record": typed["RECORD"],
        "force": FORCED.get(typed["FORCE"], typed["FORCE"]),
        "correlation_id": run_of_pipeline(environment),
    }
    body = {key: value for key, value in body.items() if value}
    try:
        request.parse_request(body)
    except errors.RequestError as error:
        raise LocalError(f"RequestError: {error}") from error
    return Order(typed, body)


def name_in_pipeline(environment: Mapping[str, str]) -> str:
    """Who started the pipeline, whose own identity is a machine's; empty outside of one."""
    names = ("GITHUB_TRIGGERING_ACTOR", "GITHUB_ACTOR", "CODEBUILD_INITIATOR")
    return next((environment[name] for name in names if environment.get(name)), "")


def run_of_pipeline(environment: Mapping[str, str]) -> str:
    """The pipeline's run, in the form by which the function knows its caller; empty outside of one."""
    if environment.get("GITHUB_RUN_ID"):
        return "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}".format_map(environment)
    return environment.get("CODEBUILD_BUILD_ARN", "")


def carry_out(order: Order) -> Ending:
    """The request has run to its end in the stack.

    Raises:
        LocalError: it could not be started or followed; the text says which.
    """
    stack = find_stack(order.typed["ENV"], order.typed["STACK"])
    body = {"requested_by": stack.identity} | dict(order.request)
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
            unbound = {"PLAN_HASH": "", "RECORD": "", "FORCE": ""}
            raise LocalError(
                f"{error}\nWhen it has ended, look again:  {order.command(ACTION='plan', **unbound)}\n"
                f"To follow it until then:  {order.command(**unbound)}\n"
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
        return Ending(execution.output)
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


if __name__ == "__main__":
    sys.exit(main(os.environ))
