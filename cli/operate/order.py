"""What was typed, the request that it makes, and the line to type for the same again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cli.program import PROGRAM
from laptop.errors import LocalError
from pg_hotfix import errors, request

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Order:
    """What was typed; empty is what was not. One of `environment` and `stack` is given, and a `hotfix` unless the
    action needs none."""

    action: str
    hotfix: str = ""
    environment: str = ""
    stack: str = ""
    reason: str = ""
    by: str = ""
    plan_hash: str = ""
    record: str = ""
    force: bool = False
    direct: bool = False

    @property
    def is_direct(self) -> bool:
        # check is about the function: nothing else stands in between.
        return self.direct or self.action == "check"

    def command(self, **changes: str | bool) -> str:
        """The line to type for the same, with those changes."""
        order = replace(self, **changes)  # type: ignore[arg-type]
        options = {
            "--env": order.environment,
            "--stack": order.stack,
            "--reason": order.reason,
            "--by": order.by,
            "--plan-hash": order.plan_hash,
            "--record": order.record,
        }
        flags = {"--force": order.force, "--direct": order.direct}
        words = [word for option, value in options.items() if value for word in (option, value)]
        words += [flag for flag, is_set in flags.items() if is_set]
        return shlex.join([PROGRAM, order.action, *([order.hotfix] if order.hotfix else []), *words])

    def look_again(self) -> str:
        """The line to type for a plan of the same hotfix, which is bound to no other plan."""
        return self.command(action="plan", plan_hash="", record="", force=False)


def make_request(order: Order, environment: Mapping[str, str]) -> dict[str, str]:
    """The request as the function takes it, with who asks and for which run, if a pipeline's environment tells.

    Raises:
        LocalError: the function would refuse the request; nothing was contacted.
    """
    body = {
        "hotfix": order.hotfix,
        "action": order.action,
        "reason": order.reason,
        "requested_by": order.by or name_in_pipeline(environment),
        "plan_hash": order.plan_hash,
        "record": order.record,
        "force": "true" if order.force else "",
        "correlation_id": run_of_pipeline(environment),
    }
    body = {key: value.strip() for key, value in body.items() if value.strip()}
    try:
        request.parse_request(body)
    except errors.RequestError as error:
        raise LocalError(f"RequestError: {error}") from error
    return body


def name_in_pipeline(environment: Mapping[str, str]) -> str:
    """Who started the pipeline, whose own identity is a machine's; empty outside of one."""
    names = ("GITHUB_TRIGGERING_ACTOR", "GITHUB_ACTOR", "CODEBUILD_INITIATOR")
    return next((environment[name] for name in names if environment.get(name)), "")


def run_of_pipeline(environment: Mapping[str, str]) -> str:
    """The pipeline's run, in the form by which the function knows its caller; empty outside of one."""
    if all(environment.get(name) for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")):
        return "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}".format_map(environment)
    return environment.get("CODEBUILD_BUILD_ARN", "")
