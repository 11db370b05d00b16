"""What is computed from the samples of the runs, and whether the targets are met."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.probes import Sample
from bench.wire import UnderLock

NOBODY, PSQL, PG_HOTFIX = "nobody", "psql", "pg-hotfix"
BUSY_LIMIT_SECONDS = 5.0


@dataclass(frozen=True)
class Stalls:
    worst_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Run:
    """One run of one tool. `column_ms` is from the end of who was in the way, or from the tool's start where nobody
    goes, to the commit of the column; None when it was there before, or is not there. `reads` begin at 0."""

    scenario: str
    tool: str
    outcome: str
    readers: Stalls
    writers: Stalls
    column_ms: float | None
    reads: list[Sample]


@dataclass(frozen=True)
class Findings:
    """All that was measured. `under_lock` is by tool; `busy_seconds` are pg-hotfix's, None where it gave up."""

    runs: Sequence[Run]
    under_lock: Mapping[str, Sequence[UnderLock]]
    busy_seconds: Sequence[float | None]

    def of(self, tool: str, scenario: str) -> list[Run]:
        return [run for run in self.runs if (run.tool, run.scenario) == (tool, scenario)]


@dataclass(frozen=True)
class Target:
    what: str
    found: str
    met: bool


def format_ms(ms: float) -> str:
    return f"{ms:.1f}" if abs(ms) < 100 else f"{ms:,.0f}"


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the smallest of the values that at least so many percent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def steady(samples: Sequence[Sample], interval_ms: float) -> list[Sample]:
    """Returns the samples, and those of the requests that were not sent because the one before had no answer yet.

    A client that waits for ten seconds is one slow request; the users behind it would have been thousands.
    https://github.com/HdrHistogram/HdrHistogram#corrected-vs-raw-value-recording-calls
    """
    return [
        Sample(sample.at + missed * interval_ms / 1000, sample.ms - missed * interval_ms)
        for sample in samples
        for missed in range(max(1, math.ceil(sample.ms / interval_ms)))
    ]


def summarise(samples: Sequence[Sample], interval_ms: float) -> Stalls:
    waits = [sample.ms for sample in steady(samples, interval_ms)]
    return Stalls(max(waits), percentile(waits, 99))


def typical(runs: Sequence[Run]) -> Run:
    """Returns the run in the middle, by the worst stall of a reader."""
    return sorted(runs, key=lambda run: run.readers.worst_ms)[(len(runs) - 1) // 2]


def judge(findings: Findings) -> list[Target]:
    """Returns the targets, each with what was found. Of several runs the median counts."""

    def worst(tool: str, scenario: str) -> float:
        return median(max(run.readers.worst_ms, run.writers.worst_ms) for run in findings.of(tool, scenario))

    quiet, blocked, rerun = (worst(PG_HOTFIX, scenario) for scenario in ("quiet", "reader", "rerun"))
    psql, undisturbed = worst(PSQL, "reader"), worst(NOBODY, "rerun")
    late = max(
        math.inf if run.column_ms is None else run.column_ms
        for scenario in ("reader", "writer")
        for run in findings.of(PG_HOTFIX, scenario)
    )
    in_time = sum(seconds is not None and seconds <= BUSY_LIMIT_SECONDS for seconds in findings.busy_seconds)
    held, psql_held = (median(use.ms for use in findings.under_lock[tool]) for tool in (PG_HOTFIX, PSQL))
    return [
        Target(
            "a long reader makes pg-hotfix stall others at most 1.5 times as long as on the quiet table",
            f"{format_ms(blocked)} to {format_ms(quiet)} ms",
            blocked <= 1.5 * quiet,
        ),
        Target("and 500 times less than psql", f"{psql / blocked:,.0f} times", psql >= 500 * blocked),
        Target("the column is there 100 ms after the blocker, in every run", f"{format_ms(late)} ms", late <= 100),
        Target(
            "a re-run stalls others no more than 1.5 times what they see without any tool",
            f"{format_ms(rerun)} to {format_ms(undisturbed)} ms",
            rerun <= 1.5 * undisturbed,
        ),
        Target(
            "a busy table is reached within 5 s in 99 of 100 runs",
            f"{in_time} of {len(findings.busy_seconds)}",
            in_time >= 0.99 * len(findings.busy_seconds),
        ),
        Target(
            "the lock is held at most 1.5 times as long as by psql",
            f"{format_ms(held)} to {format_ms(psql_held)} ms",
            held <= 1.5 * psql_held,
        ),
    ]
