"""What a hotfix did, as people would write it afterwards, from an execution or from its saved answer."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore import exceptions

from cli.operate.stack import QUICK, explain
from cli.program import PROGRAM
from laptop.errors import LocalError
from pg_hotfix_button import executions, words
from pg_hotfix_report import app as report
from pg_hotfix_report import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_stepfunctions import SFNClient

EXECUTION_ARN = re.compile(r"arn:[\w-]+:states:(?P<region>[\w-]+):\d{12}:execution:[^:\s]+:[^:\s]+")
STILL_RUNNING = "It had not ended when this report was made."


def print_report(source: str, facts: Path | None) -> int:
    """The report of an execution, or of a saved answer, was printed as Markdown; its facts are in that file as JSON, if
    one is named. Returns 0, also if what the report tells of has failed.

    Raises:
        LocalError: there is nothing to report, or the file can't be written.
    """
    is_file = ":" not in source or Path(source).exists()
    made = report.make_report(read_file(Path(source)) if is_file else read_execution(source))
    # Whatever the terminal's own character set is: the report is a file of UTF-8.
    sys.stdout.buffer.write(made["markdown"].encode())
    if facts:
        try:
            facts.write_text(json.dumps(made["json"], indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise LocalError(f"The facts could not be written to {facts}: {error.strerror}.") from error
    return 0


def read_file(path: Path) -> run.Run:
    """
    Raises:
        LocalError: the file can't be read, or holds nothing that a report can be made of.
    """
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LocalError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise LocalError(f"{path} is not JSON. Write it with  {PROGRAM} apply ... --json {path}") from error
    found = None
    if isinstance(answer, dict):
        found = read_description(answer) if "executionArn" in answer else run.read_answer(answer)
    if found is None:
        raise LocalError(
            f"{path} holds neither an answer of the function nor an execution. Write it with  {PROGRAM} apply ... "
            f"--json {path}  or  aws stepfunctions describe-execution --execution-arn ... > {path}"
        )
    return found


def read_execution(arn: str) -> run.Run:
    """The execution as it is now; of one that has failed, with what its steps had answered before.

    Raises:
        LocalError: it can't be seen.
    """
    named = EXECUTION_ARN.fullmatch(arn)
    if named is None:
        raise LocalError(f"{arn!r} is not the ARN of an execution, as the command line and the reports show it.")
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
