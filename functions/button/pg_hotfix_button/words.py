"""Figures and states as a person would say them."""

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
# Whoever reads of one of these must not take it for a success, whatever else is written there.
ENDED_OTHERWISE = {"FAILED": "Failed", "TIMED_OUT": "Timed out", "ABORTED": "Stopped"}
NO_CAUSE = {
    "TIMED_OUT": "It ran out of time. What it had done by then is not known from here: look at the column, and apply "
    "again if it is missing; that is safe.",
    "ABORTED": "Somebody stopped it. What it had done by then is not known from here: look at the column, and apply "
    "again if it is missing; that is safe.",
}


def say_duration(seconds: float) -> str:
    """At most two units, as an operator would say it on the phone."""
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
        known = ["size not known: never analysed"]
    known += [f"owned by {table['owner']}"] if table.get("owner") else []
    return ", ".join(known)


def say_who(blocker: Mapping[str, Any]) -> str:
    if blocker.get("pid"):
        who = [f"{blocker.get('autovacuum') or ''} pid {blocker['pid']}".strip()]
    else:
        who = [f"prepared transaction {blocker.get('prepared_transaction') or 'with an unknown name'}"]
    who += [f"user {blocker['user']}"] if blocker.get("user") else []
    who += [f"application {blocker['application_name']}"] if blocker.get("application_name") else []
    return ", ".join(who)


def say_doing(blocker: Mapping[str, Any]) -> str:
    age = blocker.get("transaction_seconds")
    state = blocker.get("state") or ("prepared" if not blocker.get("pid") else None)
    if state is None and age is None:
        return "not visible to this role"
    return " ".join([state or "in a transaction", *([f"for {say_duration(age)}"] if age is not None else [])])


def say_lock(blocker: Mapping[str, Any]) -> str:
    verb = "holds" if blocker.get("granted") else "waits for"
    return f"{verb} {blocker.get('lock_mode')} on {blocker.get('table')}"


def say_waiting(blocker: Mapping[str, Any]) -> str:
    if not blocker.get("waiting"):
        return "nobody"
    pids = [f"pid {pid}" if pid else "a prepared transaction" for pid in blocker.get("waits_for") or ()]
    return ", ".join(pids) or "somebody"


def say_state(execution: Execution) -> str:
    """What became of it, in a word or two: the result's, and never a success for what is none."""
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
    return execution.cause or NO_CAUSE.get(execution.status, "It gave no reason.")


def say_steps(steps: Sequence[Step]) -> list[str]:
    """What was called so far; tries that failed in the same way are counted: `Apply: LockBusyError, tried 3 times`."""
    said: list[tuple[str, str]] = []
    calls = [step for step in steps if step.kind == "Task" and (step.error or step.attempt == 1)]
    for (state, error), same in itertools.groupby(calls, key=lambda step: (step.state, step.error)):
        count = len(list(same))
        times = "once" if count == 1 else f"{count} times"
        if error and said and said[-1] == (state, state):
            said.pop()  # That it was called is said by its failures already.
        said.append((state, f"{state}: {error}, tried {times}" if error else state))
    return [text for _, text in said]


def find_failure(steps: Sequence[Step]) -> Step | None:
    """The failure that is tried again now."""
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
    """The value as text, whatever somebody has sent: a machine can be started with any JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def database_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    found = plan.get("database")
    return found if isinstance(found, dict) else {}


def objects_of(plan: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = plan.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
