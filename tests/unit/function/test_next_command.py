"""The command at the end of an error's text, for the shell in which ./pg-hotfix runs."""

from __future__ import annotations

import shlex
import string
from typing import Any

import pytest

from pg_hotfix import errors
from pg_hotfix.errors import HotfixError
from pg_hotfix.next_command import commands_after
from pg_hotfix.request import parse_request

ID = "20260212092000_add_drivers_active_since"
HASH = "0123456789abcdef" * 4
STACK = "pg-hotfix-prod"


@pytest.mark.parametrize(
    ("event", "again"),
    [
        ({"hotfix": ID}, f"./pg-hotfix plan {ID} --stack pg-hotfix-prod"),
        ({"hotfix": ID, "action": "apply"}, f"./pg-hotfix apply {ID} --stack pg-hotfix-prod"),
        (
            {"hotfix": ID, "action": "apply", "plan_hash": HASH, "record": "prisma", "reason": "INC-4711: it's 500"},
            (
                f"./pg-hotfix apply {ID} --plan-hash {HASH} --record prisma --reason 'INC-4711: it'\"'\"'s 500'"
                " --stack pg-hotfix-prod"
            ),
        ),
        (
            {"hotfix": ID, "action": "revert", "force": True, "reason": "INC-4712"},
            f"./pg-hotfix revert {ID} --force --reason INC-4712 --stack pg-hotfix-prod",
        ),
        ({"hotfix": ID, "action": "plan", "reason": "dashboard"}, f"./pg-hotfix plan {ID} --stack pg-hotfix-prod"),
        ({"action": "check"}, "./pg-hotfix check --stack pg-hotfix-prod"),
        ({"action": "gate"}, "./pg-hotfix gate --stack pg-hotfix-prod"),
    ],
)
def test_the_same_request_is_written_as_a_command(event: dict[str, Any], again: str) -> None:
    assert commands_after(parse_request(event), STACK)["again"] == again


def test_another_action_on_the_same_hotfix_keeps_the_reason_of_what_changes_something() -> None:
    request = parse_request({"hotfix": ID, "action": "apply", "plan_hash": HASH, "reason": "INC-4711"})
    assert commands_after(request, STACK) == {
        "again": f"./pg-hotfix apply {ID} --plan-hash {HASH} --reason INC-4711 --stack pg-hotfix-prod",
        "plan": f"./pg-hotfix plan {ID} --stack pg-hotfix-prod",
        "apply": f"./pg-hotfix apply {ID} --plan-hash {HASH} --reason INC-4711 --stack pg-hotfix-prod",
        "verify": f"./pg-hotfix verify {ID} --stack pg-hotfix-prod",
        "force": f"./pg-hotfix revert {ID} --force --reason '<why the data may go>' --stack pg-hotfix-prod",
        "other": "./pg-hotfix plan '<id>' --stack pg-hotfix-prod",
    }


@pytest.mark.parametrize("reason", [{}, {"reason": "INC-4712"}, {"reason": "INC-4712", "force": True}])
def test_the_reason_to_drop_data_is_left_to_write_and_refused_until_it_is_written(reason: dict[str, Any]) -> None:
    force = commands_after(parse_request({"hotfix": ID, "action": "revert", **reason}), None)["force"]
    assert force == f"./pg-hotfix revert {ID} --force --reason '<why the data may go>'"
    with pytest.raises(errors.RequestError):
        parse_request({"hotfix": ID, "action": "revert", "force": True, "reason": shlex.split(force)[-1]})


@pytest.mark.parametrize("reason", ["INC-4711 \u202egnihton", "x" * 201])
def test_a_reason_that_a_terminal_would_not_show_as_it_is_stands_in_no_command(reason: str) -> None:
    request = {"hotfix": ID, "reason": reason}
    commands = commands_after(parse_request(request | {"action": "apply"}), None)
    assert {commands["again"], commands["apply"]} == {f"./pg-hotfix apply {ID}"}
    assert commands_after(parse_request(request | {"action": "revert"}), None)["again"] == f"./pg-hotfix revert {ID}"
    forced = commands_after(parse_request(request | {"action": "revert", "force": True}), None)
    assert forced["again"] == f"./pg-hotfix revert {ID} --force --reason '<why the data may go>'"


def test_a_reason_of_200_characters_still_stands_in_the_command() -> None:
    commands = commands_after(parse_request({"hotfix": ID, "action": "apply", "reason": "x" * 200}), None)
    assert commands["again"] == f"./pg-hotfix apply {ID} --reason {'x' * 200}"


def test_a_stack_that_is_not_known_is_left_out() -> None:
    assert commands_after(parse_request({"hotfix": ID}), None)["again"] == f"./pg-hotfix plan {ID}"


@pytest.mark.parametrize("event", [None, {"action": "gate"}, {"action": "check"}])
def test_without_a_hotfix_every_command_can_be_run_as_it_stands(event: dict[str, Any] | None) -> None:
    commands = commands_after(parse_request(event) if event else None, STACK)
    wanted = ["--help"] if event is None else [event["action"], "--stack", STACK]
    assert {tuple(shlex.split(command)) for command in commands.values()} == {("./pg-hotfix", *wanted)}


LAST_LINES = [errors.AGAIN, errors.REPAIRED, errors.OTHER, errors.PLAN, errors.APPLY, errors.VERIFY]
LAST_LINES += [errors.FORCE, errors.HELP, errors.LIST]


@pytest.mark.parametrize(
    "then", [*LAST_LINES, errors.prove("x.sql"), *(one.then for one in HotfixError.__subclasses__())]
)
def test_each_last_line_is_one_command_after_two_spaces(then: str) -> None:
    told, _, command = then.partition(":  ")
    named = [name for _, name, _, _ in string.Formatter().parse(command) if name]
    assert told[0].isupper()
    assert named or command.startswith("./pg-hotfix ")
    assert set(named) <= commands_after(None, None).keys()


def test_the_last_line_is_added_to_the_text_and_to_nothing_else() -> None:
    error = errors.column_used(ID, "public.drivers.rating")
    before, facts = str(error), dict(error.facts)
    error.add_command(commands_after(parse_request({"hotfix": ID, "action": "revert", "reason": "INC-4712"}), STACK))
    assert (
        str(error)
        == error.message
        == (
            f"{before}\nTo drop it all the same, with everything in it, for good:"
            f"  ./pg-hotfix revert {ID} --force --reason '<why the data may go>' --stack pg-hotfix-prod"
        )
    )
    assert error.facts == facts
