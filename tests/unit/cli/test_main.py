"""The command line's exit codes, and that every command explains itself."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from cli import main as entry
from cli.main import SECTIONS, cli, main
from laptop.errors import LocalError

ALL = sorted(cli.commands)


@pytest.mark.parametrize("name", ALL)
def test_each_command_explains_itself_and_its_options(name: str) -> None:
    command = cli.commands[name]
    told = CliRunner().invoke(cli, [name, "--help"])
    assert told.exit_code == 0
    assert command.short_help
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and name != "formalize":
            assert parameter.help, f"{name} {parameter.name}"


def test_the_help_lists_every_command_under_one_heading() -> None:
    told = CliRunner().invoke(cli, ["--help"]).output
    assert sorted(str(one.name) for commands in SECTIONS.values() for one in commands) == ALL
    for heading, commands in SECTIONS.items():
        assert f"\n{heading}:\n  {commands[0].name} " in told
    for name in ALL:
        assert told.count(f"\n  {name} ") == 1


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (0, 0),
        (1, 1),
        (LocalError("Nothing was started."), 1),
        (click.UsageError("Which?"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_exit_code_is_zero_only_for_success(
    ending: int | BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end() -> int:
        if isinstance(ending, BaseException):
            raise ending
        return ending

    monkeypatch.setitem(entry.cli.commands, "end", click.Command("end", callback=end))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["end"]) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    if isinstance(ending, LocalError):
        assert said.err == "Nothing was started.\n"
