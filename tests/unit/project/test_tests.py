"""Tests hold on a machine that is busy with something else, too."""

from __future__ import annotations

import re

import pytest

from laptop.places import PROJECT

FILES = {str(path.relative_to(PROJECT)): path.read_text() for path in (PROJECT / "tests").rglob("*.py")}
# What compares a measured time with a number. The other way is to ask a second session, as `Clock` of
# tests/integration/aftermath.py does, or to compare what the run itself says with what was seen before and after it.
MEASURED = re.compile(
    r"assert [^\n]*\b(?:perf_counter|elapsed)\b"
    r"|assert [^\n]*\bmonotonic\(\)[^\n]*[<>]=? ?[\d.]+$"
    r"|\w*(?:duration|stall|wait|held|took)_ms\"?\]?\)? *[<>]=? *[1-9]",
    re.MULTILINE,
)
# What gives up, or goes on, after a time of its own: `until`, `meanwhile` and PATIENCE_SECONDS do not.
IMPATIENT = re.compile(
    r"\b(?:result|exception|wait|join|settimeout|communicate)\((?:timeout=)?[1-9]|wait_for_timeout|call_later"
    r"|monotonic\(\) \+ [1-9]|START_SECONDS = [1-9]"
)


@pytest.mark.parametrize("pattern", [MEASURED, IMPATIENT], ids=["measured", "impatient"])
def test_no_test_says_how_long_something_may_take(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name}: {match[0]}"
        for name, text in FILES.items()
        for match in pattern.finditer(text)
        if "test_tests" not in name
    ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (MEASURED, "    assert time.monotonic() - began < 10"),
        (MEASURED, '    assert outcome.response["lock_wait_ms"] >= 900'),
        (MEASURED, "    assert longest_ms() < 500\n    assert 0 < held_ms < 1000"),
        (IMPATIENT, "    process.wait(10)"),
        (IMPATIENT, "        self.page.wait_for_timeout(500)"),
        (IMPATIENT, "    with call_later(0.4, release):"),
        (IMPATIENT, "    assert running.exception(30)"),
        (IMPATIENT, "    deadline = time.monotonic() + 30"),
    ],
)
def test_such_a_line_would_be_found(pattern: re.Pattern[str], line: str) -> None:
    assert pattern.search(line)
