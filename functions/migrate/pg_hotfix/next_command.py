"""The commands that an error's last line may give, for the shell in which ./pg-hotfix runs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pg_hotfix.request import Request

PROGRAM = "./pg-hotfix"


def commands_after(request: Request | None, stack: str | None) -> dict[str, str]:
    """By the names that `HotfixError.then` uses: `again` is the same request, the others are another action on the same
    hotfix. Without `stack`, as on a laptop, the reader adds the stack; without a request there is only the help."""
    if request is None:
        return dict.fromkeys(("again", "plan", "apply", "verify", "force"), f"{PROGRAM} --help")

    def command(action: str, *options: str) -> str:
        where = ["--stack", stack] if stack else []
        return shlex.join([PROGRAM, action, *([request.hotfix] if request.hotfix else []), *options, *where])

    reason = ["--reason", request.reason] if request.reason and request.action in ("apply", "revert") else []
    again = command(
        request.action,
        *(["--plan-hash", request.plan_hash] if request.plan_hash else []),
        *(["--record", request.record] if request.record else []),
        *(["--force"] if request.force else []),
        *reason,
    )
    if request.hotfix is None:  # `check` of everything, and `gate`
        return dict.fromkeys(("again", "plan", "apply", "verify", "force"), again)
    return {
        "again": again,
        "plan": command("plan"),
        "apply": command("apply", *reason),
        "verify": command("verify"),
        "force": command("revert", "--force", "--reason", request.reason or "<why the data may go>"),
    }
