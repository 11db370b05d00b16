"""What the commands print: in colour on a terminal, plain when piped."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from pg_hotfix import results
from pg_hotfix_report import logline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from laptop.emulator import Invocation

console = Console(highlight=False, emoji=False, markup=False, soft_wrap=True)

TONES = {"good": "bold green", "warn": "bold yellow"}


def show_title(text: str) -> None:
    console.print(text, style="bold")


def show_step(number: int, name: str, what: str) -> None:
    console.print()
    console.print(Text.assemble((f"{number}. {name}", "bold cyan"), f"  {what}"))


def show_text(text: str, style: str = "", *, mark: str | None = None) -> None:
    """Prints the lines indented; the one that holds `mark` stands out."""
    for line in text.splitlines():
        console.print(f"   {line}", style="bold green" if mark and mark in line else style)


def show_invocation(invocation: Invocation) -> None:
    """Prints the answer that the caller gets and the line that the log group gets."""
    if invocation.error_type:
        show_text(invocation.error_type, "bold red")
        show_text(invocation.error_message or "", "red")
    else:
        show_answer(invocation.payload, invocation.seconds)
    for record in invocation.logs:
        if str(record.get("message", "")).startswith("hotfix "):
            show_text(f"log: {logline.format_log_line(record)}", "dim")


def show_answer(answer: Mapping[str, Any], seconds: float) -> None:
    console.print(Text.assemble("   ", say_result(answer["result"]), f"  {describe_times(answer, seconds)}"))
    show_columns(answer["objects"])


def say_result(word: object) -> Text:
    """The word as the function answers it, in its colour; one that nobody knows says so."""
    result = results.read_result(word)
    return Text(word if isinstance(word, str) and word in results.RESULTS else result.said, TONES[result.tone])


def show_columns(columns: Sequence[Mapping[str, Any]]) -> None:
    for column in columns:
        name = ".".join(str(column[part]) for part in ("schema", "table", "column"))
        found = (", found: the same", "") if column["matches"] else (f", found: {column['actual']}", "yellow")
        if column["actual"] == "missing" and column["changed"]:
            found = (", dropped", "")
        console.print(Text.assemble(f"   {name}  expected: {column['expected']}", found))


def show_json(value: Any) -> None:
    console.print_json(json.dumps(value))


def describe_times(answer: Mapping[str, Any], seconds: float) -> str:
    """Returns how long the run took, how long the caller waited for it, and what became of the lock."""
    if answer["lock_held_ms"]:
        lock = f"ACCESS EXCLUSIVE held for {answer['lock_held_ms']} ms"
    elif answer["action"] in ("apply", "revert"):
        lock = "no lock taken, no DDL run"
    else:
        lock = "read only"
    return f"in {answer['duration_ms']} ms, answered after {seconds * 1000:.0f} ms; {lock}"


def format_time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%H:%M:%S}"
