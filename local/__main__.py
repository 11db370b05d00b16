"""The commands behind `make run`, `make invoke`, `make psql` and `make build`."""

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path

from local import show
from local.build import build_if_changed
from local.errors import LocalError
from local.laptop import running_database, running_laptop
from local.places import PROJECT
from local.psql import psql_command, psql_environment
from local.story import tell_story


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="tell the incident and its fix")
    commands.add_parser("invoke", help="invoke the built function once").add_argument("event", type=Path, nargs="?")
    commands.add_parser("psql", help="open psql on the embedded database")
    commands.add_parser("build", help="build the function when its sources changed")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "run":
                tell_story()
                return 0
            case "invoke":
                return invoke(options.event)
            case "psql":
                return open_psql()
            case _:
                build_if_changed()
                return 0
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def invoke(path: Path | None) -> int:
    """The built function was invoked once against the laptop's database; returns 1 when it failed."""
    event = read_event(path)
    with running_laptop() as laptop:
        invocation = laptop.function.invoke(event)
    show.show_invocation(invocation)
    if invocation.error_type:
        return 1
    show.show_json(invocation.payload)
    return 0


def read_event(path: Path | None) -> object:
    if path is None or not path.is_file():
        events = " ".join(str(event.relative_to(PROJECT)) for event in sorted((PROJECT / "events").glob("*.json")))
        problem = f"There is no file {path}." if path else "Which event?"
        raise LocalError(f"{problem} make invoke EVENT=events/plan.json, or one of: {events}")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise LocalError(f"{path} is not JSON: {error}") from error


def open_psql() -> int:
    """psql was used until its end; returns its exit code."""
    with running_database() as (server, login):
        # A Ctrl-C is psql's: it cancels a query and must not end the server.
        previous = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            return subprocess.run(psql_command(), env=psql_environment(server, login), check=False).returncode
        finally:
            signal.signal(signal.SIGINT, previous)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
