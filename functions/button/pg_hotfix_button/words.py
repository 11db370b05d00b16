"""Figures and states in words."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from pg_hotfix_button.results import read_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, tzinfo

    from pg_hotfix_button.executions import Execution, Step
    from pg_hotfix_button.results import Result

SUCCEEDED = "SUCCEEDED"
# Each of these must read as a failure, whatever else is written there.
ENDED_OTHERWISE = {"FAILED": "Failed", "TIMED_OUT": "Timed out", "ABORTED": "Stopped"}
NO_CAUSE = {
    "TIMED_OUT": "The execution ran out of time. Whether it has changed the database is not known here. Refresh the "
    "widget; if the column is missing, apply again: that is safe.",
    "ABORTED": "Somebody stopped the execution. Whether it has changed the database is not known here. Refresh the "
    "widget; if the column is missing, apply again: that is safe.",
}


def say_duration(seconds: float) -> str:
    """At most two units, such as "5 min 40 s"."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    parts = []
    rest = round(seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def say_size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def say_table(table: Mapping[str, Any]) -> str:
    rows, size = table.get("estimated_rows"), table.get("estimated_bytes")
    if isinstance(rows, int) and isinstance(size, int) and rows >= 0:
        known = [f"about {rows:,} rows", say_size(size)]
    else:
        known = ["size not known: the table was never analyzed"]
    known += [f"owned by {table['owner']}"] if table.get("owner") else []
    return ", ".join(known)


def say_state(execution: Execution) -> str:
    """How it ended, in a word or two; only a success reads as one."""
    if execution.is_running:
        return "Running"
    if execution.status == SUCCEEDED:
        return result_of(execution).said
    return ENDED_OTHERWISE.get(execution.status, execution.status)


def has_failed(execution: Execution) -> bool:
    return not execution.is_running and execution.status != SUCCEEDED


def result_of(execution: Execution) -> Result:
    return read_result(execution.output.get("result"))


def say_cause(execution: Execution) -> str:
    return execution.cause or NO_CAUSE.get(execution.status, "The execution gave no reason.")


def say_steps(steps: Sequence[Step]) -> list[str]:
    """The calls so far. Tries that failed in the same way are counted, as in `Apply: LockBusyError, tried 3 times`."""
    said: list[tuple[str, str]] = []
    calls = [step for step in steps if step.kind == "Task" and (step.error or step.attempt == 1)]
    for (state, error), same in itertools.groupby(calls, key=lambda step: (step.state, step.error)):
        count = len(list(same))
        times = "once" if count == 1 else f"{count} times"
        if error and said and said[-1] == (state, state):
            said.pop()  # Its failures already say that it was called.
        said.append((state, f"{state}: {error}, tried {times}" if error else state))
    return [text for _, text in said]


def find_failure(steps: Sequence[Step]) -> Step | None:
    """The failure of the call that is tried again now."""
    last = next((step for step in reversed(steps) if step.error or step.attempt == 1), None)
    return last if last and last.error else None


def tone_of(execution: Execution) -> str:
    if execution.is_running:
        return "busy"
    return "bad" if has_failed(execution) else result_of(execution).tone


def seconds_of(execution: Execution, now: datetime) -> float:
    return ((execution.stopped or now) - execution.started).total_seconds()


def say_time(moment: datetime, zone: tzinfo) -> str:
    there = moment.astimezone(zone)
    return f"{there:%Y-%m-%d %H:%M:%S} {there.tzname()}"


# What others may have written


def text_of(value: object) -> str:
    """The value as text: somebody may start the state machine with any JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def database_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    found = plan.get("database")
    return found if isinstance(found, dict) else {}


def objects_of(plan: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = plan.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
