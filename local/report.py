"""`make report`: what a hotfix did, as people would write it afterwards, from an execution or from its saved answer."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore import exceptions

from local.errors import LocalError
from local.functions import executions, report, run, words
from local.stack import QUICK, explain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_stepfunctions import SFNClient

FORMATS = {"": "markdown", "markdown": "markdown", "json": "json"}
EXECUTION_ARN = re.compile(r"arn:[\w-]+:states:(?P<region>[\w-]+):\d{12}:execution:[^:\s]+:[^:\s]+")
STILL_RUNNING = "It had not ended when this report was made."
USAGE = """\
make report EXECUTION=<arn>   with your own credentials: states:DescribeExecution, states:GetExecutionHistory
make report FILE=<json>       what OUTPUT=<file> of make hotfix, the function or describe-execution has written
Also: FORMAT=json for the facts as JSON."""


def main(environment: Mapping[str, str]) -> int:
    """The report was printed: then, and only then, the exit code is 0, also if what it tells of has failed."""
    arn, file, form = (environment.get(name, "").strip() for name in ("EXECUTION", "FILE", "FORMAT"))
    if bool(arn) == bool(file) or form not in FORMATS:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        made = report.make_report(read_execution(arn) if arn else read_file(Path(file)))
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    text = made["markdown"] if FORMATS[form] == "markdown" else json.dumps(made["json"], indent=2) + "\n"
    # Whatever the terminal's own character set is: the report is a file of UTF-8.
    sys.stdout.buffer.write(text.encode())
    return 0


def read_file(path: Path) -> run.Run:
    """
    Raises:
        LocalError: the file can't be read, or holds nothing that a report can be made of.
    """
    try:
        answer = json.loads(path.read_text())
    except OSError as error:
        raise LocalError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise LocalError(f"{path} is not JSON. Write it with  make hotfix ... OUTPUT={path}") from error
    found = None
    if isinstance(answer, dict):
        found = read_description(answer) if "executionArn" in answer else run.read_answer(answer)
    if found is None:
        raise LocalError(
            f"{path} holds neither an answer of the function nor an execution. Write it with  make hotfix ... "
            f"OUTPUT={path}  or  aws stepfunctions describe-execution --execution-arn ... > {path}"
        )
    return found


def read_execution(arn: str) -> run.Run:
    """The execution as it is now; of one that has failed, with what its steps had answered before.

    Raises:
        LocalError: it can't be seen.
    """
    named = EXECUTION_ARN.fullmatch(arn)
    if named is None:
        raise LocalError(f"{arn!r} is not the ARN of an execution, such as make hotfix and the reports show it.")
    try:
        with contextlib.closing(
            boto3.client("stepfunctions", region_name=named["region"], config=QUICK)  # the one that it is in
        ) as client:
            found = read_description(client.describe_execution(executionArn=arn))
            steps = tuple(words.say_steps(executions.read_steps(client, arn)))
            output = read_last_output(client, arn) if found.error else {}
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        raise explain(error, f"The execution {arn} can't be seen", "Nothing was changed.") from error
    return replace(found, steps=steps, output=output or found.output, partial=found.partial and not output)


def read_description(seen: Mapping[str, Any]) -> run.Run:
    """From what DescribeExecution answers, be it boto3's or the JSON that the AWS CLI prints.

    https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html
    """
    status = str(seen.get("status"))
    output = executions.read_object(seen.get("output"))
    request = executions.read_object(seen.get("input"))
    failed = status != "SUCCEEDED"
    cause = seen.get("cause") or (STILL_RUNNING if status == executions.RUNNING else words.NO_CAUSE.get(status))
    return run.Run(
        output or {"request": request},
        error=(seen.get("error") or status) if failed else None,
        cause=cause if failed else None,
        arn=str(seen["executionArn"]),
        started=run.moment(seen.get("startDate")),
        ended=run.moment(seen.get("stopDate")),
        partial=failed,
    )


def read_last_output(client: SFNClient, arn: str) -> dict[str, Any]:
    """What the state machine had kept for its output when it entered its last state: a failure returns none of it."""
    output: dict[str, Any] = {}
    for page in client.get_paginator("get_execution_history").paginate(executionArn=arn):
        for event in page["events"]:
            entered = executions.read_object(event.get("stateEnteredEventDetails", {}).get("input"))
            output = run.object_in(run.object_in(entered, "run"), "output") or output
    return output


if __name__ == "__main__":
    sys.exit(main(os.environ))
