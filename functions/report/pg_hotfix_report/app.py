"""The Lambda function behind the state machine's last steps: it searches the application's log, and reports."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

from pg_hotfix_report.document import write_document
from pg_hotfix_report.explain import explain
from pg_hotfix_report.facts import collect_facts
from pg_hotfix_report.message import is_for_people, write_message
from pg_hotfix_report.run import read_state
from pg_hotfix_report.search import connect, search_log
from pg_hotfix_report.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pg_hotfix_report.run import Run
    from pg_hotfix_report.settings import Settings

# The state machine's data may have so much, with the report in it.
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
LARGEST_STATE_BYTES = 256 * 1024
# Step Functions has what Lambda answers beside the payload in its data, too.
RESERVED_BYTES = 8 * 1024

logger = logging.getLogger("pg-hotfix")


def lambda_handler(event: dict[str, Any], _: object) -> dict[str, Any]:
    return answer(event, read_settings(os.environ), connect)


def answer(event: dict[str, Any], settings: Settings, connect: Callable[[], Any]) -> dict[str, Any]:
    """What the state machine's task asks for: a search of the application's log, or the end of the execution.

    Raises:
        ErrorsContinueError, WatchError, LogUnavailableError: the search says so.
    """
    run = read_state(event)
    if event["task"] == "search_log":
        return search_log(run, settings, connect)
    return write_end(run, settings)


def write_end(run: Run, settings: Settings) -> dict[str, Any]:
    """All that the last states need, in the form of the state machine's data: the output, with the report if it can be
    made and fits; the failure, explained, if there is one; and the message, if anybody is told. Nothing is read or
    changed."""
    told = explain(run, settings) if run.error else run
    end: dict[str, Any] = {"run": {"output": run.output}}
    if told.error:
        end["failure"] = {"Error": told.error, "Cause": told.cause}
    if is_for_people(told):
        end["message"] = write_message(told, settings)
    # A failure that nobody is told of needs none: whoever planned reads its text.
    if is_for_people(told) or not told.error:
        report = try_report(told)
        if report and size_of(end) + size_of(report) + RESERVED_BYTES <= LARGEST_STATE_BYTES:
            end["run"] = {"output": run.output | {"report": report}}
    return end


def try_report(run: Run) -> dict[str, Any] | None:
    """The report, or None if a defect prevents it: the failure's text and the message are worth more than it is."""
    try:
        return make_report(run)
    except Exception:
        logger.exception("report failed")
        return None


def make_report(run: Run) -> dict[str, Any]:
    """The report as Markdown and, under `json`, as the facts of which that is made."""
    facts = collect_facts(run)
    return {"markdown": write_document(facts), "json": facts}


def size_of(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))
