"""The result words of a run that has not failed, and what the metrics, the dashboard, the report and the shell say for
each. The button and the report have this file by a link in their folders.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """`said` is for people; `metric` is the name that CloudWatch counts it under, if it does. A result that is not
    `done` is shown as neither a success nor a failure: something is still to do, or nobody knows what was done."""

    said: str
    metric: str | None = None
    done: bool = True

    @property
    def tone(self) -> str:
        return "good" if self.done else "warn"


RESULTS = {
    "ready": Result("Ready", metric="Ready"),
    "would_apply": Result("Not applied yet", done=False),
    "applied": Result("Applied", metric="Applied"),
    "already_applied": Result("Already applied", metric="AlreadyApplied"),
    "verified": Result("Verified"),
    "passed": Result("Passed"),
    "reverted": Result("Reverted", metric="Reverted"),
    "already_reverted": Result("Already reverted"),
}


def read_result(word: object) -> Result:
    """What is said for that word. Another version may answer a word that is not in the list."""
    if isinstance(word, str) and word in RESULTS:
        return RESULTS[word]
    return Result(f"Unknown result: {word}" if word else "Ended without a result", done=False)
