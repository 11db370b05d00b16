"""The lines that a report gives to paste into a shell. Whatever of a request stands in them is checked or quoted."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pg_hotfix_report.run import Run

# Actions about the whole database rather than about one hotfix.
WITHOUT_ID = ("check", "gate")
WITH_ID = ("plan", "apply", "verify", "revert")
HOTFIX_ID = re.compile(r"[0-9]{14}_[a-z0-9_]{1,200}")
PLAN_HASH = re.compile(r"[0-9a-f]{64}")
LONGEST_REASON = 200
# The state machine is called like its stack: arn:aws:states:REGION:ACCOUNT:execution:STACK-hotfix:NAME
EXECUTION_ARN = re.compile(r"arn:[\w-]+:states:[\w-]+:\d{12}:execution:(?P<stack>[A-Za-z][A-Za-z0-9-]*)-hotfix:[^:\s]+")
# Where no execution tells which stack it was.
ANY_STACK = "NAME"


def ask(action: str, hotfix: str | None, arn: str | None, *options: str) -> str:
    """The line that asks the execution's stack for that action; for a check, if that takes an id and there is none."""
    if action in WITH_ID and hotfix and HOTFIX_ID.fullmatch(hotfix):
        words = ["./pg-hotfix", action, hotfix]
    else:
        words = ["./pg-hotfix", action if action in WITHOUT_ID else "check"]
    return shlex.join([*words, "--stack", name_stack(arn), *options])


def ask_again(run: Run) -> str:
    """The line that makes the same request again, with the identity of whoever pastes it."""
    return ask(str(run.request.get("action") or "plan"), run.hotfix, run.arn, *list_options(run.request))


def list_options(request: Mapping[str, Any]) -> list[str]:
    reason, plan_hash = request.get("reason"), request.get("plan_hash")
    options = []
    if isinstance(reason, str) and reason.isprintable() and 0 < len(reason) <= LONGEST_REASON:
        options += ["--reason", reason]
    if isinstance(plan_hash, str) and PLAN_HASH.fullmatch(plan_hash):
        options += ["--plan-hash", plan_hash]
    if request.get("record") == "prisma":
        options += ["--record", "prisma"]
    if request.get("force") in (True, "true"):
        options += ["--force"]
    return options


def read_report(arn: str) -> str:
    return shlex.join(["./pg-hotfix", "report", arn])


def read_lines(log_group: str, pattern: str, since_ms: object) -> str:
    """The line that shows what a search of the application's log has found."""
    words = ["aws", "logs", "filter-log-events", "--log-group-name", log_group, "--start-time", str(since_ms)]
    return shlex.join([*words, "--filter-pattern", pattern])


def name_stack(arn: str | None) -> str:
    named = EXECUTION_ARN.fullmatch(arn or "")
    return named["stack"] if named else ANY_STACK
