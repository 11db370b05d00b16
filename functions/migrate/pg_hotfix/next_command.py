"""The commands that an error's last line may give, for the shell in which ./pg-hotfix runs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pg_hotfix.request import Request

PROGRAM = "./pg-hotfix"
NAMES = ("again", "plan", "apply", "verify", "force", "other")
# parse_request refuses it: nobody drops data with a command that was only pasted.
REASON_TO_WRITE = "<why the data may go>"
LONGEST_REASON = 200


def commands_after(request: Request | None, stack: str | None) -> dict[str, str]:
    """By the names that `HotfixError.then` uses: `again` is the same request, `other` a plan of another hotfix, the
    rest another action on the same hotfix. Without `stack`, as on a laptop, the reader adds the stack; without a
    request there is only the help. The reason to drop data is never filled in."""
    if request is None:
        return dict.fromkeys(NAMES, f"{PROGRAM} --help")
    where = ["--stack", stack] if stack else []

    def command(action: str, *options: str) -> str:
        return shlex.join([PROGRAM, action, *([request.hotfix] if request.hotfix else []), *options, *where])

    bound = ["--plan-hash", request.plan_hash] if request.plan_hash else []  # parse_request: an apply only
    changes = request.action in ("apply", "revert")
    reason = ["--reason", request.reason] if changes and request.reason and may_be_pasted(request.reason) else []
    again = command(
        request.action,
        *bound,
        *(["--record", request.record] if request.record else []),
        *(["--force", *(reason or ["--reason", REASON_TO_WRITE])] if request.force else reason),
    )
    if request.hotfix is None:  # `check` of everything, and `gate`
        return dict.fromkeys(NAMES, again)
    return {
        "again": again,
        "plan": command("plan"),
        "apply": command("apply", *bound, *reason),
        "verify": command("verify"),
        "force": command("revert", "--force", "--reason", REASON_TO_WRITE),
        "other": shlex.join([PROGRAM, "plan", "<id>", *where]),
    }


def may_be_pasted(reason: str) -> bool:
    """Whether it can stand in a command: a terminal shows it as it is, it is short, and no option."""
    return reason.isprintable() and len(reason) <= LONGEST_REASON and not reason.startswith("-")
