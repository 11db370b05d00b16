"""Removes everything that the other targets made, after stopping a server that a killed run left behind.

Runs on the machine's own Python with nothing but the standard library: `make clean` must not set up anything.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from laptop.places import PROJECT, STATE, memory_directory, shared_directory

MADE = [
    *(".aws-sam", ".local", ".venv", ".tools"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache"),
]
STOP_SECONDS = 15.0


def main() -> None:
    outside = (shared_directory(), memory_directory())
    for root in (STATE, *outside):
        for pid_file in root.rglob("postmaster.pid"):
            stop_server(pid_file)
    for directory in (*(PROJECT / name for name in MADE), *outside):
        shutil.rmtree(directory, ignore_errors=True)
    for cache in PROJECT.rglob("__pycache__"):
        shutil.rmtree(cache, ignore_errors=True)


def stop_server(pid_file: Path) -> None:
    """No server works in that cluster any more."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int(pid_file.read_text().split()[0])
        deadline = time.monotonic() + STOP_SECONDS
        # The number may belong to any other process by now; the server is the one that works in the cluster.
        while Path(f"/proc/{pid}/cwd").readlink() == pid_file.parent and time.monotonic() < deadline:
            os.kill(pid, signal.SIGINT)
            time.sleep(0.1)


if __name__ == "__main__":
    main()
