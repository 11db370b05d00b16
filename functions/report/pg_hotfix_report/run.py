"""What became of a request, read from whatever tells it: a state machine's data, its output, or the function alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

ACTIONS = ("plan", "apply", "verify", "check", "revert")
READ_ONLY = ("plan", "verify", "check", "gate")
NOT_TOLD = "not told"


@dataclass(frozen=True)
class Run:
    """A request and what is known of its end. `output` is the state machine's, as far as it came; `error` and `cause`
    are the failure's name and text. Times are ISO 8601 in UTC. `steps` says what was called, if a history was read. Of
    a `partial` one nobody has kept what the function answered before the failure."""

    output: dict[str, Any]
    error: str | None = None
    cause: str | None = None
    arn: str | None = None
    started: str | None = None
    ended: str | None = None
    steps: tuple[str, ...] = ()
    partial: bool = False

    @property
    def request(self) -> dict[str, Any]:
        return object_in(self.output, "request")

    @property
    def hotfix(self) -> str | None:
        return text_of(self.request.get("hotfix"))

    @property
    def reverting(self) -> bool:
        return self.request.get("action") == "revert"

    @property
    def answers(self) -> dict[str, dict[str, Any]]:
        """What the function has answered, in that order, by the output's key; a revert's is `apply`."""
        return {key: self.output[key] for key in ("plan", "apply", "verify") if object_in(self.output, key)}

    @property
    def watched_minutes(self) -> int:
        """For how long the application's log was free of the error."""
        minutes = object_in(self.output, "watch").get("minutes")
        return minutes if isinstance(minutes, int) else 0

    @property
    def failed_action(self) -> str | None:
        """What the function was last asked for, and gave no answer to; None if it has answered all."""
        if not self.error or self.partial or "verify" in self.answers:
            return None
        asked = self.request.get("action")
        if asked != "apply":
            return asked if asked in ACTIONS else None
        if "plan" not in self.answers:
            return "plan"
        if "apply" in self.answers:
            return "verify"
        # As ChooseNext of the state machine chooses: what is there already may still have to be recorded.
        planned = self.answers["plan"].get("result")
        return "verify" if planned == "already_applied" and self.request.get("record") is None else "apply"


def read_state(event: dict[str, Any]) -> Run:
    """From the state machine's own data, as its tasks send it. The failure is as it was caught."""
    state, execution = object_in(event, "state"), object_in(event, "execution")
    failure = object_in(state, "failure")
    return Run(
        output=object_in(object_in(state, "run"), "output"),
        error=text_of(failure.get("Error")),
        cause=text_of(failure.get("Cause")),
        arn=text_of(execution.get("arn")),
        started=moment(execution.get("started")),
        ended=moment(execution.get("ended")),
    )


def read_answer(answer: dict[str, Any]) -> Run | None:
    """From an execution's output, a response of the function, or either's failure; None if it is neither."""
    if error := answer.get("error") or answer.get("errorType"):
        request = object_in(answer, "request")
        cause = text_of(answer.get("cause") or answer.get("errorMessage"))
        output = {"request": request} if request else {}
        return Run(output, str(error), cause, text_of(answer.get("execution")), partial=True)
    if "objects" in answer and answer.get("action") in ACTIONS:
        request = {key: answer.get(key) for key in ("hotfix", "action", "requested_by", "reason")}
        key = {"check": "plan", "revert": "apply"}.get(answer["action"], answer["action"])
        taken = {name: answer.get(name) for name in ("result", "summary")}
        return Run({"request": request, **taken, key: answer})
    if "request" not in answer:
        return None
    # What only the state machine knew is in the report that it has kept.
    kept = object_in(object_in(object_in(answer, "report"), "json"), "execution")
    return Run(answer, arn=kept.get("arn"), started=kept.get("started"), ended=kept.get("ended"))


# What others may have written


def object_in(whole: dict[str, Any], key: str) -> dict[str, Any]:
    found = whole.get(key)
    return found if isinstance(found, dict) else {}


def objects_in(whole: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = whole.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def text_of(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def moment(value: object) -> str | None:
    """The time in UTC, from what AWS gives in one place or another: ISO 8601, seconds since 1970, or a datetime."""
    try:
        match value:
            case datetime():
                at = value
            case str():
                at = datetime.fromisoformat(value)
            case int() | float():
                at = datetime.fromtimestamp(value, UTC)
            case _:
                return None
        return at.astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None
