"""The Lambda function behind the state machine's last step: what was done, as people would write it afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pg_hotfix_report.document import write_document
from pg_hotfix_report.facts import collect_facts
from pg_hotfix_report.run import read_state

if TYPE_CHECKING:
    from pg_hotfix_report.run import Run

# The state machine's data may have so much, with the report in it; nothing catches an execution that has more.
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
LARGEST_STATE_BYTES = 256 * 1024
RESERVED_BYTES = 8 * 1024


class ReportTooLargeError(Exception):
    """The report and what it tells of do not fit into the state machine's data. It goes on without."""


def make_report(run: Run) -> dict[str, Any]:
    """The report as Markdown and, under `json`, as the facts of which that is made."""
    facts = collect_facts(run)
    return {"markdown": write_document(facts), "json": facts}


def lambda_handler(event: dict[str, Any], _: object) -> dict[str, Any]:
    """The report of the execution whose data is in `event`. Nothing outside is read or changed.

    Raises:
        ReportTooLargeError: the execution could not hold it.
    """
    report = make_report(read_state(event))
    if size_of(event) + size_of(report) + RESERVED_BYTES > LARGEST_STATE_BYTES:
        raise ReportTooLargeError("The execution's data has no room for its report: make report EXECUTION=<arn>")
    return report


def size_of(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))
