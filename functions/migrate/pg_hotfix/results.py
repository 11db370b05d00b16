"""What a run that has not failed came to, in one word, and what is said of each word everywhere: in the metrics, on the
dashboard, in the report and at a shell. The button and the report have this very file, by a link in their folders.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """`said` is for people, `metric` what CloudWatch counts it as, if at all. While something is still to do, or it is
    not known what was done, it is not `done`: then it is shown as neither a success nor a failure."""

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
    """What is said of that word. One that is not in the list, such as another version may answer, is unknown."""
    if isinstance(word, str) and word in RESULTS:
        return RESULTS[word]
    return Result(f"Unknown result: {word}" if word else "Ended without a result", done=False)
