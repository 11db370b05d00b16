"""One invocation of the built function, and psql, on the embedded database."""

import json
import signal
import subprocess
from pathlib import Path

from cli import show
from laptop.environment import running_database, running_laptop
from laptop.errors import LocalError
from laptop.psql import psql_command, psql_environment


def invoke_function(path: Path) -> int:
    """The built function was invoked once against the laptop's database. Returns 1 when it failed, else 0."""
    try:
        event = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LocalError(f"{path} is not JSON: {error}") from error
    with running_laptop() as laptop:
        invocation = laptop.function.invoke(event)
    show.show_invocation(invocation)
    if invocation.error_type:
        return 1
    show.show_json(invocation.payload)
    return 0


def open_psql() -> int:
    """psql was used until its end; returns its exit code."""
    with running_database() as (server, login):
        # A Ctrl-C is psql's: it cancels a query and must not end the server.
        previous = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            return subprocess.run(psql_command(), env=psql_environment(server, login), check=False).returncode
        finally:
            signal.signal(signal.SIGINT, previous)
