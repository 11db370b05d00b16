"""What an operator reads."""

from typing import Any

import pytest

from cli.show import describe_times, show_columns
from laptop.build import digest_of
from pg_hotfix_report.logline import format_log_line


def test_a_log_line_is_abridged_to_what_is_read_first() -> None:
    record = {
        "level": "INFO",
        "message": "hotfix finished",
        "service": "pg-hotfix",
        "action": "apply",
        "result": "applied",
        "lock_held_ms": 0.9,
        "reason": "INC 4711",
        "request_id": "1",
    }
    assert format_log_line(record) == (
        'INFO hotfix finished action=apply result=applied lock_held_ms=0.9 reason="INC 4711"'
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"action": "apply", "result": "applied", "lock_held_ms": 0.9}, "ACCESS EXCLUSIVE held for 0.9 ms"),
        ({"action": "apply", "result": "already_applied", "lock_held_ms": 0.0}, "no lock taken, no DDL run"),
        ({"action": "revert", "result": "already_reverted", "lock_held_ms": 0.0}, "no lock taken, no DDL run"),
        ({"action": "plan", "result": "would_apply", "lock_held_ms": 0.0}, "read only"),
    ],
)
def test_the_lock_is_told_in_words(answer: dict[str, Any], words: str) -> None:
    assert describe_times(answer | {"duration_ms": 20}, 1.2) == f"in 20 ms, answered after 1200 ms; {words}"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"actual": "smallint null", "matches": True, "changed": True}, "found: the same"),
        ({"actual": "missing", "matches": False, "changed": False}, "found: missing"),
        ({"actual": "missing", "matches": False, "changed": True}, "dropped"),
    ],
)
def test_what_became_of_a_column_is_told(seen: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = {"schema": "public", "table": "drivers", "column": "rating", "expected": "smallint null"}
    show_columns([name | seen])
    assert capsys.readouterr().out == f"   public.drivers.rating  expected: smallint null, {words}\n"


def test_a_changed_or_renamed_source_is_another_digest(tmp_path: Any) -> None:
    source = tmp_path / "app.py"
    source.write_text("one")
    first = digest_of([source])
    assert digest_of([source]) == first
    source.write_text("two")
    assert digest_of([source]) != first
    source.write_text("one")
    assert digest_of([source.rename(tmp_path / "other.py")]) != first
