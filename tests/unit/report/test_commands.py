"""Each line to paste that a function can write is one that the command line takes, whatever a caller has sent."""

from __future__ import annotations

import functools
import itertools
import shlex
from dataclasses import replace
from typing import Any

import click
import pytest

from cli.main import cli
from pg_hotfix.errors import RequestError
from pg_hotfix.next_command import commands_after
from pg_hotfix.request import ACTIONS, parse_request
from pg_hotfix_report import document, explain
from pg_hotfix_report.commands import ask, ask_again, read_report
from pg_hotfix_report.facts import collect_facts
from pg_hotfix_report.message import write_message
from pg_hotfix_report.run import Run
from tests.unit.report.test_report import ARN, INCIDENT, SETTINGS

HOTFIX = INCIDENT["request"]["hotfix"]
HOTFIXES: list[Any] = [HOTFIX, None, "", "--force", "x; rm -rf /", "-h", "$(id)", 7]
REASONS: list[Any] = [
    *(None, "", "INC-4711", "it's 3 a.m.; rm -rf / && `id` $HOME", "--force", "--reason", "-h", "--", "--record=other"),
    *("two\nlines", "\x1b[2J", "ação \u202e", '"', "\\", "x" * 1001, 7),
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"plan_hash": "a" * 64},
    {"record": "prisma"},
    {"force": "true"},
    {"plan_hash": "a" * 64, "record": "prisma", "force": True},
    {"plan_hash": "--force", "record": "other", "force": "--yes"},
]
ASKED = list(
    itertools.chain(
        itertools.product(HOTFIXES, [None], OPTIONS),
        itertools.product([HOTFIX], REASONS, [OPTIONS[0], OPTIONS[-2]]),
    )
)
REQUESTS = [
    {"action": action, "hotfix": hotfix, "reason": reason, **options}
    for action in [*ACTIONS, None, "drop", "--help", {"plan": 1}]
    for hotfix, reason, options in ASKED
]


@functools.cache
def parse(line: str) -> click.Context:
    """The line as the command line reads it, without anything being run."""
    program, *words = shlex.split(line)
    assert program == "./pg-hotfix"
    name, command, rest = cli.resolve_command(click.Context(cli), words)
    assert name
    assert command
    return command.make_context(name, rest)


def test_what_the_command_line_does_not_take_is_not_taken_here() -> None:
    for line in (
        "./pg-hotfix check --direct",
        "./pg-hotfix plan",
        f"./pg-hotfix revert {HOTFIX} --record prisma",
        "./pg-hotfix drop",
    ):
        with pytest.raises(click.UsageError):
            parse(line)


def commands_in(text: str) -> list[str]:
    """Every command in it that stands at a line's end, as each does."""
    return [line[line.index("./pg-hotfix ") :] for line in text.splitlines() if "./pg-hotfix " in line]


@pytest.mark.parametrize(
    "error",
    ["States.Timeout", "States.DataLimitExceeded", "Lambda.Unknown", "SomeError", "EndpointRefusedError", "WatchError"],
)
@pytest.mark.parametrize("names", [(), ("plan",), ("plan", "apply"), ("plan", "apply", "verify")])
def test_every_line_of_an_explained_failure_is_taken(error: str, names: tuple[str, ...]) -> None:
    settings = replace(SETTINGS, endpoint_url="https://api.kaviar.example/x" if error.startswith("Endpoint") else "")
    seen = set()
    for request in REQUESTS:
        run = Run({"request": request, **{name: INCIDENT[name] for name in names}}, error, "It failed.", arn=ARN)
        for failed in (run, replace(run, cause=None)):
            seen |= set(commands_in(explain.explain(failed, settings).cause or ""))
    assert seen
    for line in seen:
        assert parse(line).params["stack"] == "pg-hotfix-prod"


@pytest.mark.parametrize("direct", [False, True])
def test_what_is_asked_for_is_what_was_asked_and_what_is_dropped_is_checked(direct: bool) -> None:
    for request in REQUESTS:
        run = Run({"request": request}, arn=ARN)
        asked = parse(ask_again(run))
        if request["reason"] in ("INC-4711", "it's 3 a.m.; rm -rf / && `id` $HOME"):
            assert asked.params["reason"] == request["reason"]
        parse(ask(str(request["action"]), run.hotfix, run.arn, [("--direct",)] if direct else []))


@pytest.mark.parametrize("changed", [True, False, None])
@pytest.mark.parametrize("action", ["apply", "revert", "plan", "verify"])
def test_every_line_of_a_report_and_of_a_message_is_taken(action: str, changed: bool | None) -> None:
    for hotfix in HOTFIXES:
        run = Run(INCIDENT | {"request": INCIDENT["request"] | {"action": action, "hotfix": hotfix}}, arn=ARN)
        facts = collect_facts(run)
        facts["execution"]["changed"] = changed
        for revert in (None, "ALTER TABLE drivers DROP COLUMN IF EXISTS active_since;"):
            lines = commands_in(document.write_document(facts | {"revert": revert}))
            lines += commands_in(write_message(run, SETTINGS)["text"])
            assert read_report(ARN) in lines
            for line in lines:
                parse(line)


@pytest.mark.parametrize("stack", [None, "pg-hotfix-prod"])
def test_every_line_of_the_functions_own_texts_is_taken(stack: str | None) -> None:
    lines = set()
    for request in REQUESTS:
        try:
            lines |= set(commands_after(parse_request(request), stack).values())
        except RequestError:
            continue
    assert len(lines) > len(ACTIONS)
    for line in lines:
        parse(line)
    assert set(commands_after(None, stack).values()) == {"./pg-hotfix --help"}
