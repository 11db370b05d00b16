"""The README shows lines that `make run` really prints."""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.test_commands import make

if TYPE_CHECKING:
    from collections.abc import Iterator

PR_SET_CHILD_SUBREAPER = 36


LEFT_OUT = "..."


def test_the_story_in_the_readme_is_the_one_that_make_run_tells() -> None:
    found = re.search(r"<!-- make run -->\n```text\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    assert found
    assert len(found[1].splitlines()) <= 15
    make("build")  # So that the run need not say that it builds.
    before = children()
    with adopting_orphans():
        result = make("run")
        assert children() <= before, "make run has left processes behind"
    assert result.returncode == 0, result.stdout + result.stderr
    assert not_in_order(without_figures(found[1]).splitlines(), without_figures(result.stdout).splitlines()) is None


def not_in_order(shown: list[str], printed: list[str]) -> str | None:
    """The first line shown that is not the next one printed, or after `...` not one of those that follow; None if all
    are. Where no `...` ends what is shown, all that was printed must be."""
    at, skipping = 0, False
    for line in shown:
        if line == LEFT_OUT:
            skipping = True
            continue
        rest = printed[at:] if skipping else printed[at : at + 1]
        if line not in rest:
            return line
        at, skipping = at + rest.index(line) + 1, False
    return None if skipping or at == len(printed) else printed[at]


def test_lines_that_were_not_printed_or_stand_elsewhere_are_found() -> None:
    printed = ["one", "two", "three", "four"]
    assert not_in_order(printed, printed) is None
    assert not_in_order(["one", "...", "three", "..."], printed) is None
    assert not_in_order(["one", "three", "..."], printed) == "three"
    assert not_in_order(["...", "three", "two", "..."], printed) == "two"
    assert not_in_order(["...", "five", "..."], printed) == "five"
    assert not_in_order(["two", "..."], printed) == "two"
    assert not_in_order(["one", "two", "three"], printed) == "four"


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Within the block whoever outlives a process that was started here becomes a child of this process.

    https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html
    """
    prctl = ctypes.CDLL(None).prctl
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def children() -> set[str]:
    """The process ids of those that this process has started or adopted."""
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


def without_figures(text: str) -> str:
    """The text without what differs from run to run."""
    text = re.sub(r"request_id=\S+", "request_id=...", text)
    return re.sub(r"\d+(\.\d+)?( m?s\b|(?= attempts)|(?= lock))|(_ms=)[\d.]+", r"\3#\2", text)
