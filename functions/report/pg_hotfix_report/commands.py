"""The lines that a report gives to paste into a shell. Whatever of a request stands in them is checked or quoted."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pg_hotfix_report.run import Run

# Actions about the whole database rather than about one hotfix.
WITHOUT_ID = ("check", "gate")
WITH_ID = ("plan", "apply", "verify", "revert")
# The options that only some actions have.
ONLY_OF = {
    "--plan-hash": ("apply",),
    "--record": ("apply",),
    "--force": ("revert",),
    "--direct": (*WITH_ID, "gate"),
}
HOTFIX_ID = re.compile(r"[0-9]{14}_[a-z0-9_]{1,200}")
PLAN_HASH = re.compile(r"[0-9a-f]{64}")
LONGEST_REASON = 200
# The state machine is called like its stack: arn:aws:states:REGION:ACCOUNT:execution:STACK-hotfix:NAME
EXECUTION_ARN = re.compile(r"arn:[\w-]+:states:[\w-]+:\d{12}:execution:(?P<stack>[A-Za-z][A-Za-z0-9-]*)-hotfix:[^:\s]+")
# Where no execution tells which stack it was.
ANY_STACK = "NAME"


def ask(action: str, hotfix: str | None, arn: str | None, options: Sequence[tuple[str, ...]] = ()) -> str:
    """The line that asks the execution's stack for that action, with those of the options that it has; for a check, if
    the action takes an id and there is none."""
    if action in WITH_ID and is_hotfix_id(hotfix):
        words = [action, str(hotfix)]
    else:
        action = action if action in WITHOUT_ID else "check"
        words = [action]
    words += ["--stack", name_stack(arn)]
    for option in options:
        if action in ONLY_OF.get(option[0], (action,)):
            words += option
    return shlex.join(["./pg-hotfix", *words])


def ask_again(run: Run) -> str:
    """The line that makes the same request again, with the identity of whoever pastes it."""
    return ask(str(run.request.get("action") or "plan"), run.hotfix, run.arn, list_options(run.request))


def may_be_pasted(reason: str) -> bool:
    """Whether it can stand in a command: a terminal shows it as it is, it is short, and no option."""
    return reason.isprintable() and 0 < len(reason) <= LONGEST_REASON and not reason.startswith("-")


def list_options(request: Mapping[str, Any]) -> list[tuple[str, ...]]:
    reason, plan_hash = request.get("reason"), request.get("plan_hash")
    options: list[tuple[str, ...]] = []
    if isinstance(reason, str) and may_be_pasted(reason):
        options += [("--reason", reason)]
    elif is_forced(request) and request.get("action") == "revert":  # which needs one
        options += [("--reason", "<why the data may go>")]
    if isinstance(plan_hash, str) and PLAN_HASH.fullmatch(plan_hash):
        options += [("--plan-hash", plan_hash)]
    if request.get("record") == "prisma":
        options += [("--record", "prisma")]
    if is_forced(request):
        options += [("--force",)]
    return options


def is_forced(request: Mapping[str, Any]) -> bool:
    return request.get("force") in (True, "true")


def is_hotfix_id(text: str | None) -> bool:
    return HOTFIX_ID.fullmatch(text or "") is not None


def read_report(arn: str) -> str:
    return shlex.join(["./pg-hotfix", "report", arn])


def read_lines(log_group: str, pattern: str, since_ms: object) -> str:
    """The line that shows what a search of the application's log has found."""
    words = ["aws", "logs", "filter-log-events", "--log-group-name", log_group, "--start-time", str(since_ms)]
    return shlex.join([*words, "--filter-pattern", pattern])


def name_stack(arn: str | None) -> str:
    named = EXECUTION_ARN.fullmatch(arn or "")
    return named["stack"] if named else ANY_STACK
