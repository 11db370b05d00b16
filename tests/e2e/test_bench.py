"""`make bench-locks` runs: every tool and every scenario once, for a moment. Its figures are not looked at."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from local.places import PROJECT

if TYPE_CHECKING:
    from pathlib import Path


def test_every_tool_adds_the_column_and_every_scenario_plays(tmp_path: Path) -> None:
    picture = tmp_path / "latency.svg"
    options = ["--short", "--hold=0.3", "--rows=2000", "--busy-runs=2", f"--plot={picture}"]
    result = subprocess.run(
        [sys.executable, "-m", "bench.locks", *options],
        cwd=PROJECT,
        env=os.environ | {"PG_HOTFIX_STATE": str(PROJECT / ".local" / "tests")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("   ")]
    assert sorted(row[0].lower() for row in rows if row[-2:] == ["exit", "0"]) == [
        *("alembic", "dbmate", "psql", "psql,", "yoyo"),
    ]
    assert [row[0] for row in rows if row[-1] == "applied"] == ["pg-hotfix"]
    assert "the column was there in 2 of 2 runs" in result.stdout
    assert ET.fromstring(picture.read_text()).find("{*}path") is not None
