"""What a deployed stack answers, in words: each step, what became of it, and the line to type next."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli import show
from cli.program import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.operate.order import Order
    from pg_hotfix_button.executions import Step

# Of a failure that is tried again; the whole text follows when it is final.
FIRST_LINES = 2


@dataclass(frozen=True)
class Ending:
    """What became of a request. `output` is as the state machine returns it, {} unless it succeeded; else `error` and
    `cause` are the failure's name and text. `arn` is the execution, if there was one, and `request` what it was started
    with."""

    output: dict[str, Any]
    error: str | None = None
    cause: str | None = None
    arn: str | None = None
    request: dict[str, Any] | None = None

    @property
    def result(self) -> object:
        return self.output.get("result")

    def as_json(self) -> str:
        failure = {"error": self.error, "cause": self.cause, "execution": self.arn, "request": self.request}
        answer = {key: value for key, value in failure.items() if value} if self.error else self.output
        return f"{json.dumps(answer, indent=2, ensure_ascii=False)}\n"


def show_ending(ending: Ending, order: Order) -> None:
    """Prints the verdict of that order and what to type next."""
    show.console.print()
    if ending.error:
        show.console.print(ending.error, style="bold red")
        show.show_text(ending.cause or "", "red")
        lines = next_after_failure(ending, order)
    else:
        show.console.print(show.say_result(ending.result))
        show_output(ending.output)
        lines = next_after_success(ending.output, order)
    # A gate is about no hotfix, and a report is.
    if ending.arn and order.action != "gate":
        show.show_title("Report:")
        show.show_text(shlex.join([PROGRAM, "report", ending.arn]))
    # The last line is the one to type next.
    if lines:
        show.show_title("Next:")
        show.show_text("\n".join(lines))


def show_output(output: Mapping[str, Any]) -> None:
    show.show_text(str(output.get("summary") or ""))
    seen: dict[str, Any] = next((output[name] for name in ("verify", "apply", "plan") if name in output), {})
    show.show_columns(seen.get("objects", ()))
    for blocker in seen.get("blockers", ()):
        show.show_text(f"In the way: {blocker['text']}", "yellow")
    history = seen.get("prisma")
    if history and history["state"] != "no_history":
        show.show_text(f"The next prisma migrate deploy: {history['next_deploy']}")
    answers = [output[name] for name in ("plan", "apply", "verify") if name in output]
    for text in dict.fromkeys(note["text"] for answer in answers for note in answer.get("notes", ())):
        show.show_text(text, "yellow")
    if "endpoint" in output:
        show.show_text(f"The endpoint answered {output['endpoint']['status']}.")
    if "watch" in output:
        show.show_text(f"The application's log was free of the error for {output['watch']['minutes']} min.")
    if output.get("result") == "would_apply":
        show.show_text(f"plan_hash {seen['plan_hash']}")
        show.show_text(seen["sql"].strip())


def next_after_success(output: Mapping[str, Any], order: Order) -> list[str]:
    if output.get("result") == "would_apply":
        return [order.command(action="apply", plan_hash=output["plan"]["plan_hash"])]
    if output.get("result") == "already_applied" and "verify" not in output:
        return [order.command(action="verify", plan_hash="", record="")]
    return []


def next_after_failure(ending: Ending, order: Order) -> list[str]:
    # Most texts end in the command to type next; a second one would contradict it.
    last = (ending.cause or "").strip().rpartition("\n")[2]
    return [] if "pg-hotfix " in last else [order.command()]


def show_step(step: Step) -> None:
    """Prints a line if the step is one that takes time."""
    at = show.format_time(step.at)
    if step.error:
        text = " ".join(step.text.splitlines()[:FIRST_LINES])
        show.show_text(f"{at}  {step.state}: {'. '.join(filter(None, [step.error, text]))}", "yellow")
    elif step.attempt > 1:
        show.show_text(f"{at}  {step.state}, attempt {step.attempt}")
    elif step.kind in ("Task", "Wait"):
        show.show_text(f"{at}  {step.state}")
