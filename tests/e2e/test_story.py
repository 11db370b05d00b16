"""The README shows what `make run` really prints."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from local.places import PROJECT, shared_directory
from tests.e2e.test_commands import make


def test_the_story_in_the_readme_is_the_one_that_make_run_tells() -> None:
    found = re.search(r"<!-- make run -->\n```text\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    assert found
    make("build")  # So that the run need not say that it builds.
    before = running_servers()
    result = make("run")
    assert result.returncode == 0, result.stdout + result.stderr
    assert without_figures(result.stdout) == without_figures(found[1])
    assert running_servers() <= before


def running_servers() -> set[str]:
    """The process ids of the programs that a run of this checkout starts."""
    ours = (bytes(PROJECT), bytes(shared_directory()))
    servers = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            named = any(name in words for name in (b"/bin/postgres\0", b"aws-lambda-rie", b"awslambdaric"))
            if named and any(folder in words for folder in ours):
                servers.add(path.parent.name)
    return servers


def without_figures(text: str) -> str:
    """The text without what differs from run to run."""
    text = re.sub(r"request_id=\S+", "request_id=...", text)
    return re.sub(r"\d+(\.\d+)?( m?s\b|(?= attempts)|(?= lock))|(_ms=)[\d.]+", r"\3#\2", text)
