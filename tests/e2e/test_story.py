"""The README shows what `make run` really prints."""

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


def test_the_story_in_the_readme_is_the_one_that_make_run_tells() -> None:
    found = re.search(r"<!-- make run -->\n```text\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    assert found
    make("build")  # So that the run need not say that it builds.
    before = children()
    with adopting_orphans():
        result = make("run")
        assert children() <= before, "make run has left processes behind"
    assert result.returncode == 0, result.stdout + result.stderr
    assert without_figures(result.stdout) == without_figures(found[1])


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
