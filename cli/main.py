"""`./pg-hotfix`: the commands of whoever is on call, and of whoever writes hotfixes."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # Until main() takes it, Ctrl-C ends the program without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from cli.author import commands as author
from cli.operate import commands as operate
from laptop.errors import LocalError
from laptop.places import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTIONS = {
    "On call, with your own AWS credentials": operate.COMMANDS,
    "Writing hotfixes, on this machine": author.COMMANDS,
}


class Sections(click.Group):
    """A group whose help lists its commands under the headings of SECTIONS, in their order."""

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(str(one.name), one.get_short_help_str(limit=90)) for one in commands])


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def cli() -> None:
    """Apply a reviewed schema hotfix to a private RDS PostgreSQL, and prove it.

    In an incident: plan, then apply with the --plan-hash that plan printed. The exit code is 0 only for success.
    """


for group in SECTIONS.values():
    for command in group:
        cli.add_command(command)


def main(arguments: Sequence[str]) -> int:
    """The command has run. Returns its exit code: 0 for success, 1 for a failure, 2 for a wrong command line, 130 after
    Ctrl-C."""
    sys.path += FUNCTIONS
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 must not end the program after the change.
            stream.reconfigure(errors="backslashreplace")
    # SIGTERM, which ends a pipeline's job, ends this as Ctrl-C does; a shell may have started it with both ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return int(cli.main(list(arguments), prog_name="pg-hotfix", standalone_mode=False) or 0)
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
