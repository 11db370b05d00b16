"""The commands of a laptop: what they print, their exit codes, and that they leave nothing running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from laptop.errors import LocalError
from laptop.places import PROJECT
from laptop.postgres import running_server
from tests.conftest import PATIENCE_SECONDS, STATE, until

if TYPE_CHECKING:
    from collections.abc import Iterator

HOTFIX = "20260212092000_add_drivers_active_since"


def checkout(folder: Path) -> Path:
    """A project of its own for a command that writes into it: other tests look at the true one meanwhile."""
    written = {"Makefile", "cli", "functions", "laptop", "pg-hotfix", "requirements", "sql"}
    folder.mkdir()
    for path in PROJECT.iterdir():
        copy = folder / path.name
        if path.name not in written:
            copy.symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(path, copy)
    return folder


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(["make", "--silent", *arguments], PROJECT, "")


def pg_hotfix(*arguments: str, stdin: str = "", project: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    return run([str(project / "pg-hotfix"), *arguments], project, stdin)


def run(command: list[str], directory: Path, stdin: str) -> subprocess.CompletedProcess[str]:
    # Without the variables of the make that runs these tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment["PG_HOTFIX_STATE"] = str(STATE)
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_invoke_exits_zero_with_the_answer() -> None:
    result = pg_hotfix("invoke", "events/plan.json")
    assert result.returncode == 0, result.stderr
    assert HOTFIX in result.stdout
    assert "log: INFO hotfix finished action=plan" in result.stdout
    assert "\x1b" not in result.stdout


def test_invoke_exits_non_zero_with_the_whole_error_when_the_function_failed(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text('{"hotfix": "20260101000000_no_such_file", "action": "apply"}')
    result = pg_hotfix("invoke", str(event))
    assert result.returncode != 0
    assert "UnknownHotfixError" in result.stdout
    assert "20260101000000_no_such_file" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_invoke_without_a_usable_event_names_what_is_wrong(tmp_path: Path) -> None:
    missing = pg_hotfix("invoke")
    assert missing.returncode == 2
    assert "Missing argument 'EVENT'" in missing.stderr
    assert "such as events/plan.json" in " ".join(pg_hotfix("invoke", "--help").stdout.split())
    event = tmp_path / "event.json"
    event.write_text("{")
    broken = pg_hotfix("invoke", str(event))
    assert broken.returncode != 0
    assert broken.stderr.startswith(f"{event} is not JSON: ")


def test_psql_opens_the_database_of_the_incident() -> None:
    result = pg_hotfix("psql", stdin="SELECT count(*) AS drivers FROM drivers;\n")
    assert result.returncode == 0, result.stderr
    assert "drivers" in result.stdout


# A shell starts background jobs, such as some CI's, with SIGINT ignored, nohup with SIGHUP, and children inherit that.
HOLD = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from pathlib import Path
from laptop.postgres import running_server
with running_server(Path(sys.argv[1])) as server:
    print(server.process.pid, flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that runs a server in `tmp_path`, and that server's process id."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.terminate()


def is_running(pid: int) -> bool:
    # A zombie, which nobody has waited for yet, has no directory any more.
    try:
        Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return False
    return True


def wait_until_ended(pid: int) -> None:
    until(lambda: not is_running(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_server_too(holder: tuple[subprocess.Popen[str], int], number: signal.Signals) -> None:
    process, server_pid = holder
    process.send_signal(number)
    process.wait(PATIENCE_SECONDS)
    wait_until_ended(server_pid)


def test_a_server_left_by_a_killed_run_is_stopped_and_its_data_kept(
    holder: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, server_pid = holder
    process.kill()
    process.wait(PATIENCE_SECONDS)
    assert is_running(server_pid)
    with running_server(tmp_path) as server, server.connect() as admin:
        assert admin.run("SELECT 1") == [[1]]
    wait_until_ended(server_pid)


def test_a_second_command_is_told_who_uses_the_database(
    holder: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, _ = holder
    with pytest.raises(LocalError) as refused, running_server(tmp_path):
        pass
    assert str(refused.value) == (
        f"The embedded PostgreSQL of {tmp_path} is in use by process {process.pid}: quit that first."
    )
