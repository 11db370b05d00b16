"""The commands of whoever is on call. Each needs AWS credentials and nothing else of this machine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from laptop.places import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable


def complete_id(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    return [path.stem for path in sorted((PROJECT / "sql").glob("*.sql")) if path.stem.startswith(typed)]


def complete_environment(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    sections = tomllib.loads((PROJECT / "samconfig.toml").read_text(encoding="utf-8"))
    names = ("dev" if name == "default" else name for name, section in sections.items() if isinstance(section, dict))
    return [name for name in names if name.startswith(typed)]


def read_id(_: click.Context, __: click.Parameter, typed: str) -> str:
    """A shell completes the path of the file: its stem is the id."""
    return Path(typed).stem if typed.endswith(".sql") else typed


def refuse_option(context: click.Context, parameter: click.Parameter, typed: str) -> str:
    """`--reason --force` would take the flag for the reason."""
    if typed in {option for one in context.command.params for option in one.opts}:
        raise click.BadParameter(f"{typed} is an option: a text must come first.", context, parameter)
    return typed


def needs_stack(command: Callable[..., int]) -> Callable[..., Any]:
    """The options that say which stack is meant, who asks and why, and where the answer goes."""
    options = [
        click.option(
            *("--env", "environment"),
            default="",
            metavar="ENV",
            shell_complete=complete_environment,
            help="The stack of that environment of samconfig.toml: dev, staging or prod.",
        ),
        click.option(
            "--stack",
            default="",
            metavar="NAME",
            help="The stack's name, if it is not that of an environment.",
        ),
        click.option(
            "--reason",
            default="",
            callback=refuse_option,
            metavar="TEXT",
            help="Why, in one line: the incident's number, for example.",
        ),
        click.option(
            "--by",
            default="",
            callback=refuse_option,
            metavar="NAME",
            help="Who asks. Default: the name in your AWS login.",
        ),
        click.option(
            *("--json", "answer"),
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write the answer, or the error and its text, into FILE as JSON.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


hotfix_id = click.argument("hotfix", metavar="ID", shell_complete=complete_id, callback=read_id)
direct = click.option(
    "--direct", is_flag=True, help="Invoke the function itself, not the state machine: no retry, nothing is watched."
)


def carry_out(
    action: str, *, answer: Path | None, environment: str, stack: str, record: str | None = None, **typed: Any
) -> int:
    from cli.operate.execution import run
    from cli.operate.order import Order

    if bool(environment) == bool(stack):
        raise click.UsageError("Which stack? Name its environment, --env prod, or the stack, --stack pg-hotfix-prod.")
    if typed.get("force") and not typed["reason"]:
        raise click.UsageError("--force needs --reason: why may the data go?")
    if typed.get("plan_hash") and not re.fullmatch("[0-9a-f]{64}", typed["plan_hash"]):
        raise click.UsageError("--plan-hash takes the 64 hex digits that plan has printed.")
    if str(answer) == "-":
        raise click.UsageError("--json writes into a file: name one.")
    order = Order(action, environment=environment, stack=stack, record=record or "", **typed)
    return run(order, answer)


@click.command(short_help="Show what holds, what would run, and who is in the way.")
@hotfix_id
@needs_stack
@direct
def plan(**typed: Any) -> int:
    """Show what holds, which SQL would run under which lock, and who is in the way. Nothing is changed.

    The last line printed is the apply that is bound to this plan.
    """
    return carry_out("plan", **typed)


@click.command(short_help="Run what is missing, prove it, and see whether the application works again.")
@hotfix_id
@needs_stack
@click.option("--plan-hash", default="", metavar="HASH", help="Apply only what the plan with this hash showed.")
@click.option("--record", type=click.Choice(["prisma"]), help="Write the row of Prisma's migration history as well.")
@direct
def apply(**typed: Any) -> int:
    """Run what is missing, prove it, commit, look again over a new connection, and see whether the application works.

    An execution that runs already is followed. Ctrl-C leaves it running; the same command again goes on following it.
    """
    return carry_out("apply", **typed)


@click.command(short_help="Prove that every promise holds now.")
@hotfix_id
@needs_stack
@direct
def verify(**typed: Any) -> int:
    """Prove that every promise of the file holds, and that the role may select each column. Nothing is changed."""
    return carry_out("verify", **typed)


@click.command(short_help="Undo a hotfix by the reviewed revert lines of its file.")
@hotfix_id
@needs_stack
@click.option("--force", is_flag=True, help="Drop the column whatever its rows hold. Needs --reason.")
@direct
def revert(**typed: Any) -> int:
    """Undo a hotfix by the reviewed revert lines of its file, and prove that it is gone."""
    return carry_out("revert", **typed)


@click.command(short_help="Prove every link that an incident needs: secret, network, login, rights, files.")
@click.argument("hotfix", metavar="[ID]", default="", shell_complete=complete_id, callback=read_id)
@needs_stack
def check(**typed: Any) -> int:
    """Prove every link that an incident needs: secret, network, TLS, login, limits, rights, files. Nothing is changed.

    With an ID only that file is looked at; its SHA-256 is in the answer.
    """
    return carry_out("check", **typed)


@click.command(short_help="Compare the database with sql/schema.expect, before a deploy.")
@needs_stack
@direct
def gate(**typed: Any) -> int:
    """Compare the database with sql/schema.expect, everything that the application expects. Nothing is changed."""
    return carry_out("gate", **typed)


@click.command(short_help="Print what a hotfix did, as Markdown, for the incident's record.")
@click.argument("source", metavar="EXECUTION")
@click.option(
    *("--json", "facts"),
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report's facts into FILE as JSON as well.",
)
def report(source: str, facts: Path | None) -> int:
    """Print what a hotfix did, as Markdown.

    EXECUTION is the ARN of an execution, read with your own credentials (states:DescribeExecution,
    states:GetExecutionHistory), or a file that --json or `aws stepfunctions describe-execution` has written.
    """
    from cli.operate.report import print_report

    return print_report(source, facts)


COMMANDS = (plan, apply, verify, revert, check, gate, report)
