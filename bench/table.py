"""The one table of `make bench-locks`, as plain text."""

import os
from collections import Counter
from collections.abc import Sequence
from statistics import median

from bench.figures import PG_HOTFIX, Findings, Run, Target, format_ms, judge
from bench.probes import READERS, READS_PER_SECOND, WRITERS, WRITES_PER_SECOND
from bench.scenarios import SCENARIOS
from bench.wire import UnderLock

NOTES = """
Every run is watched for at least {hold:g} s, so that all have the same chance of noise; "nobody" is the noise alone.
worst: the median of the runs' worst, and their range. p99: of requests at a steady rate, including those that a client
could not send because it still waited. column there: when its transaction committed, by the server's clock; counted
from the end of who is in the way in 2 and 3, from the start of the tool's program in 1 and 4.
psql, dbmate, Alembic and yoyo run as they come, without a lock_timeout. "psql, lock_timeout" is what experts do: 100 ms
and a shell loop that tries again after 0.5 s. pg-hotfix is the function as sam built it, warm, in Lambda's emulator.
All share one machine: what a program costs to start, such as Alembic's second of CPU, disturbs the others as well.
In 5 the histories of dbmate, Alembic and yoyo do not know the column, as when it was added by hand.
6 is what a proxy between tool and server sees, without readers and writers: from the message that takes the lock to the
answer that its transaction is over. So the way to the lock's grant counts too, and COMMIT; the same for every tool. The
server waits for the disk there, as in production; in 1 to 5 it does not, since a disk's hiccups would pass for stalls.
"""

COLUMNS = (22, 24, 8, 24, 8, 22, 0)
HEADINGS = (
    ("", "readers wait, ms", "", "writers wait, ms", "", "column there, ms"),
    ("", "worst (of all runs)", "p99", "worst (of all runs)", "p99", "(of all runs)", "  outcome"),
)


def format_line(cells: Sequence[str]) -> str:
    first, *others = zip(cells, COLUMNS, strict=False)
    return "".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def format_spread(values: Sequence[float]) -> str:
    """Returns the median, and the range if there is one."""
    if len(values) == 1:
        return format_ms(values[0])
    return f"{format_ms(median(values))} ({format_ms(min(values))}-{format_ms(max(values))})"


def format_row(runs: Sequence[Run]) -> str:
    """Returns the line for all runs of one tool in one scenario."""
    columns = [run.column_ms for run in runs if run.column_ms is not None]
    outcomes = Counter(run.outcome for run in runs)
    cells = [f"   {runs[0].tool}"]
    for stalls in ([run.readers for run in runs], [run.writers for run in runs]):
        cells += [format_spread([stall.worst_ms for stall in stalls]), format_ms(median(s.p99_ms for s in stalls))]
    outcome = ", ".join(name if len(outcomes) == 1 else f"{count} x {name}" for name, count in outcomes.items())
    return format_line([*cells, format_spread(columns) if columns else "", f"  {outcome}"])


def format_lock_row(tool: str, uses: Sequence[UnderLock]) -> str:
    statements, round_trips = max(use.statements for use in uses), max(use.round_trips for use in uses)
    held = format_spread([use.ms for use in uses])
    cells = f"{statements} statements", "", f"{round_trips} round trips", "", f"held {held}"
    return format_line([f"   {tool}", *cells])


def format_busy(seconds: Sequence[float | None]) -> str:
    """Returns the line for the repeated runs on the busy table; None is a run that did not reach it."""
    reached = [second for second in seconds if second is not None]
    times = f", after {median(reached):.2f} s, {max(reached):.2f} s at worst" if reached else ""
    return f"   {PG_HOTFIX}: the column was there in {len(reached)} of {len(seconds)} runs{times}"


def format_target(target: Target) -> str:
    return f"   {'met' if target.met else 'NOT MET':9}{target.what}: {target.found}"


def render(findings: Findings, rows: int, hold_seconds: float, postgres_version: str) -> str:
    """Returns the table, its notes, and the targets, which need every tool in every scenario."""
    tools = dict.fromkeys(run.tool for run in findings.runs)
    count = max(len(findings.of(tool, scenario.key)) for tool in tools for scenario in SCENARIOS)
    lines = [
        f"ADD COLUMN on {rows:,} rows; PostgreSQL {postgres_version}, {os.cpu_count()} cores; {count} runs of each.",
        f"{READERS} readers send {READS_PER_SECOND} requests a second, {WRITERS} writers {WRITES_PER_SECOND}.",
        "",
        *(format_line(headings) for headings in HEADINGS),
    ]
    for number, scenario in enumerate(SCENARIOS, start=1):
        lines.append(f"{number}. {scenario.title.format(hold=hold_seconds)}")
        lines += [format_row(runs) for tool in tools if (runs := findings.of(tool, scenario.key))]
    lines.append(f"{len(SCENARIOS) + 1}. Under the lock, on the quiet table")
    lines += [format_lock_row(tool, uses) for tool, uses in findings.under_lock.items()]
    lines += [
        f"{len(SCENARIOS) + 2}. As 4, {len(findings.busy_seconds)} times",
        format_busy(findings.busy_seconds),
        NOTES.format(hold=hold_seconds),
    ]
    if all(findings.of(tool, scenario.key) for tool in tools for scenario in SCENARIOS):
        lines += ["Targets:", *(format_target(target) for target in judge(findings))]
    return "\n".join(lines)
