"""The README shows what `make run` really prints."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.test_commands import make


def test_the_story_in_the_readme_is_the_one_that_make_run_tells() -> None:
    found = re.search(r"<!-- make run -->\n```text\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    assert found
    make("build")  # So that the run need not say that it builds.
    result = make("run")
    assert result.returncode == 0, result.stdout + result.stderr
    assert without_figures(result.stdout) == without_figures(found[1])


def without_figures(text: str) -> str:
    """The text without what differs from run to run."""
    text = re.sub(r"request_id=\S+", "request_id=...", text)
    return re.sub(r"\d+(\.\d+)?( m?s\b|(?= attempts)|(?= lock))|(_ms=)[\d.]+", r"\3#\2", text)
