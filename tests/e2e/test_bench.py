"""`make bench` and `make bench-locks` run: every tool and every scenario once, for a moment. No time is looked at."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from typing import TYPE_CHECKING

from laptop.places import PROJECT
from tests.conftest import PATIENCE_SECONDS, STATE

if TYPE_CHECKING:
    from pathlib import Path


def run_bench(module: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *options],
        cwd=PROJECT,
        env=os.environ | {"PG_HOTFIX_STATE": str(STATE)},
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE_SECONDS,
        check=False,
    )


def test_every_tool_adds_the_column_and_every_scenario_plays(tmp_path: Path) -> None:
    picture = tmp_path / "latency.svg"
    options = ["--short", "--hold=0.3", "--rows=2000", "--busy-runs=2", f"--plot={picture}"]
    result = run_bench("bench.locks", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("   ")]
    assert sorted(row[0].lower() for row in rows if row[-2:] == ["exit", "0"]) == [
        *("alembic", "dbmate", "psql", "psql,", "yoyo"),
    ]
    assert [row[0] for row in rows if row[-1] == "applied"] == ["pg-hotfix"]
    assert "the column was there in 2 of 2 runs" in result.stdout
    assert ET.fromstring(picture.read_text()).find("{*}path") is not None


def test_every_figure_of_the_speed_is_there_after_one_run(tmp_path: Path) -> None:
    picture = tmp_path / "waterfall.svg"
    result = run_bench("bench.speed", "--runs=1", f"--plot={picture}")
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("   ")]
    others = Counter(" ".join(row[-2:]) for row in rows)
    assert (others["ms naive"], others["MB naive"]) in ((9, 5), (5, 4))  # The latter without the share of a processor.
    for program in ("ms pg8000", "pg8000, TCP_NODELAY", "ms psql"):
        assert others[program] == 2
    targets = [line for line in result.stdout.splitlines() if line.startswith(("   met", "   NOT MET"))]
    # What is counted, not timed, holds on any machine.
    assert [line for line in targets if "NOT MET" in line and ("round trip" in line or "package" in line)] == []
    assert len(ET.fromstring(picture.read_text()).findall("{*}rect")) == 13
