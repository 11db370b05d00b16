"""Any event is either a request of the contract or refused; nothing is contacted to tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pg_hotfix.errors import RequestError
from pg_hotfix.request import Request, parse_request

ID = "20260212092000_add_drivers_active_since"
HASH = "0123456789abcdef" * 4
EVENTS = Path(__file__).parents[3] / "events"

UNTOUCHED = "Nothing was contacted and nothing was changed."
ALLOWED = "The keys are hotfix, action, reason, requested_by, plan_hash, correlation_id, record, force."
ACTIONS = "check, plan, apply, verify, revert, gate"
FORM = "An id is 14 digits, an underscore, and lower-case words, such as 20260212092000_add_drivers_active_since."
RECORD = "Send record only with apply, to record the hotfix in Prisma's history as well."
FORCED = "Send force only with the action revert, and with a reason."
IN_ONE_LINE = "of at most 1000 characters in one line"
WHOLE = "The request to gate names a hotfix, but the gate checks the whole schema"
COPY = "Copy plan_hash from the answer of a plan, and send it with apply only."


def envelope(detail: Any, **fields: Any) -> dict[str, Any]:
    """An event as EventBridge delivers it."""
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Hotfix requested",
        "source": "pg-hotfix.request",
        "account": "123456789012",
        "time": "2026-02-12T09:20:00Z",
        "region": "sa-east-1",
        "resources": [],
        "detail": detail,
        **fields,
    }


def refuse(event: object) -> str:
    with pytest.raises(RequestError) as caught:
        parse_request(event)
    return str(caught.value)


# What is accepted


def test_a_whole_request_is_read() -> None:
    event = {
        "hotfix": ID,
        "action": "apply",
        "reason": "INC-4711",
        "requested_by": "ana",
        "plan_hash": HASH,
        "correlation_id": "run-1",
        "record": "prisma",
    }
    assert parse_request(event) == Request(ID, "apply", "INC-4711", "ana", HASH, "run-1", "direct", "prisma")


def test_a_request_without_an_action_is_a_plan_since_dashboards_refresh() -> None:
    assert parse_request({"hotfix": ID}) == Request(ID, "plan", None, None, None, None, "direct")


@pytest.mark.parametrize(
    ("value", "force"), [(True, True), ("true", True), (None, False), (False, False), ("false", False), (" ", False)]
)
def test_force_is_given_as_json_or_as_a_shell_gives_it(value: object, force: bool) -> None:
    request = parse_request({"hotfix": ID, "action": "revert", "reason": "INC-4712", "force": value})
    assert request == Request(ID, "revert", "INC-4712", None, None, None, "direct", force=force)


def test_only_check_and_gate_need_no_id() -> None:
    for action in ("check", "gate"):
        assert parse_request({"action": action}) == Request(None, action, None, None, None, None, "direct")
    assert parse_request({"action": "check", "hotfix": ID}).hotfix == ID


def test_null_is_a_field_left_out() -> None:
    assert parse_request({"hotfix": ID, **dict.fromkeys(["action", "reason", "plan_hash"])}) == parse_request(
        {"hotfix": ID}
    )


def test_the_request_is_the_detail_of_an_event_of_eventbridge() -> None:
    request = parse_request(envelope({"hotfix": ID, "action": "apply"}))
    assert request == Request(ID, "apply", None, None, None, "17793124-05d4-b198-2fde-7ededc63b103", "eventbridge")


def test_a_correlation_id_of_the_detail_goes_before_the_id_of_the_envelope() -> None:
    arn = "arn:aws:states:sa-east-1:123456789012:execution:Hotfix:run-1"
    request = parse_request(envelope({"hotfix": ID, "correlation_id": arn}))
    assert (request.correlation_id, request.caller) == (arn, "eventbridge")


@pytest.mark.parametrize(
    ("correlation_id", "caller"),
    [
        (None, "direct"),
        ("INC-4711", "direct"),
        ("arn:aws:states:sa-east-1:123456789012:execution:Hotfix:3f2a", "step_functions"),
        ("arn:aws-us-gov:states:us-gov-west-1:123456789012:express:Hotfix:3f2a:9c1b", "step_functions"),
        ("arn:aws:states:sa-east-1:123456789012:stateMachine:Hotfix", "direct"),
        ("arn:aws:ssm:sa-east-1:123456789012:automation-execution/3f2a", "runbook"),
        ("arn:aws:ssm:sa-east-1:123456789012:parameter/3f2a", "direct"),
        ("https://github.com/kaviar/api/actions/runs/4711", "ci"),
        ("https://git.kaviar.example/kaviar/api/actions/runs/4711/attempts/2", "ci"),
        ("https://github.com/kaviar/api/pull/4711", "direct"),
        ("arn:aws:codebuild:sa-east-1:123456789012:build/hotfix:3f2a", "ci"),
        ("arn:aws:codepipeline:sa-east-1:123456789012:hotfix", "ci"),
        ("see arn:aws:states:sa-east-1:123456789012:execution:Hotfix:3f2a", "direct"),
    ],
)
def test_the_caller_is_told_from_the_name_of_its_run(correlation_id: str | None, caller: str) -> None:
    assert parse_request({"hotfix": ID, "correlation_id": correlation_id}).caller == caller


@pytest.mark.parametrize(
    ("name", "caller"),
    [
        ("operator", "direct"),
        ("eventbridge", "eventbridge"),
        ("step_functions", "step_functions"),
        ("runbook", "runbook"),
        ("ci", "ci"),
    ],
)
def test_the_packaged_event_of_each_caller_is_known_as_its(name: str, caller: str) -> None:
    assert parse_request(json.loads((EVENTS / f"{name}.json").read_text())).caller == caller


@pytest.mark.parametrize(
    "reason", ["INC-4711: coluna não existe", "500 on /drivers 🚕", "INC\u00a04711 👩‍🚒", "x" * 1000]
)
def test_a_reason_may_be_in_any_language(reason: str) -> None:
    assert parse_request({"hotfix": ID, "reason": reason}).reason == reason


def test_an_empty_field_of_a_form_counts_as_left_out() -> None:
    request = parse_request({"hotfix": ID, "action": "", "reason": " ", "requested_by": "", "plan_hash": ""})
    assert (request.action, request.reason, request.requested_by, request.plan_hash) == ("plan", None, None, None)


# What is refused


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (None, f"The event is not an object. {UNTOUCHED} {ALLOWED}"),
        ([{"hotfix": ID}], f"The event is not an object. {UNTOUCHED} {ALLOWED}"),
        (ID, f"The event is not an object. {UNTOUCHED} {ALLOWED}"),
        ({}, f"The request to plan names no hotfix. {UNTOUCHED} {ALLOWED}"),
        ({"action": "apply"}, f"The request to apply names no hotfix. {UNTOUCHED} {ALLOWED}"),
        ({"action": "verify", "hotfix": None}, f"The request to verify names no hotfix. {UNTOUCHED} {ALLOWED}"),
        (
            {"action": "gate", "hotfix": ID},
            f"{WHOLE}. {UNTOUCHED} Leave the hotfix out.",
        ),
        (
            {"hotfix": ID, "action": "drop"},
            f"The action 'drop' does not exist. {UNTOUCHED} The actions are {ACTIONS}.",
        ),
        (
            {"hotfix": ID, "action": "APPLY"},
            f"The action 'APPLY' does not exist. {UNTOUCHED} The actions are {ACTIONS}.",
        ),
        (
            {"hotfix": ID, "action": ["apply"]},
            f"action is not a text of at most 1000 characters in one line. {UNTOUCHED} {ALLOWED}",
        ),
        (
            {"hotfix": 20260212092000},
            f"hotfix is not a text of at most 1000 characters in one line. {UNTOUCHED} {ALLOWED}",
        ),
        ({"hotfix": "", "action": "plan"}, f"The request to plan names no hotfix. {UNTOUCHED} {ALLOWED}"),
        (
            {"hotfix": ID, "reason": "x" * 1001},
            f"reason is not a text of at most 1000 characters in one line. {UNTOUCHED} {ALLOWED}",
        ),
        (
            {"hotfix": ID, "requested_by": 'ana"}\n{"level": "INFO"'},
            f"requested_by is not a text of at most 1000 characters in one line. {UNTOUCHED} {ALLOWED}",
        ),
        (
            {"hotfix": ID, "correlation_id": "a\x1b[2J"},
            f"correlation_id is not a text of at most 1000 characters in one line. {UNTOUCHED} {ALLOWED}",
        ),
        (
            {"hotfix": ID, "reason": "INC-4711\u2028forged"},
            f"reason is not a text of at most 1000 characters in one line. {UNTOUCHED} {ALLOWED}",
        ),
        (
            {"hotfix": ID, "requested_by": "ana\x9b2J"},
            f"requested_by is not a text of at most 1000 characters in one line. {UNTOUCHED} {ALLOWED}",
        ),
        (
            envelope({"hotfix": ID}, id="\ud800"),
            f"id is not a text of at most 1000 characters in one line. {UNTOUCHED} {ALLOWED}",
        ),
        (
            {"hotfix": ID, "host": "db.example"},
            f"The request has the unknown key 'host'. {UNTOUCHED} {ALLOWED}",
        ),
        (
            {"hotfix": ID, "user": "postgres", "secret_arn": "arn:aws:secretsmanager:x"},
            f"The request has the unknown key 'secret_arn'. {UNTOUCHED} {ALLOWED}",
        ),
        (
            {"hotfix": ID, "sql": "DROP TABLE drivers"},
            f"The request has the unknown key 'sql'. {UNTOUCHED} {ALLOWED}",
        ),
        (
            {"hotfix": ID, "action": "apply", "Plan_Hash": HASH},
            f"The request has the unknown key 'Plan_Hash'. {UNTOUCHED} {ALLOWED}",
        ),
        ({"x" * 81: 1}, f"The request has the unknown key '{'x' * 80}...'. {UNTOUCHED} {ALLOWED}"),
        (
            {"hotfix": ID, "action": "plan", "plan_hash": HASH},
            f"plan_hash is not 64 hex digits, or the action is not apply. {UNTOUCHED} {COPY}",
        ),
        (
            {"hotfix": ID, "action": "apply", "plan_hash": HASH[:-1]},
            f"plan_hash is not 64 hex digits, or the action is not apply. {UNTOUCHED} {COPY}",
        ),
        *(
            (request, f'record is not "prisma", or the action is not apply. {UNTOUCHED} {RECORD}')
            for request in (
                {"hotfix": ID, "action": "apply", "record": "Prisma"},
                {"hotfix": ID, "action": "plan", "record": "prisma"},
                {"hotfix": ID, "record": "prisma"},
                {"action": "check", "record": "prisma"},
                {"action": "gate", "record": "prisma"},
            )
        ),
        (
            {"hotfix": ID, "action": "apply", "record": True},
            f"record is not a text {IN_ONE_LINE}. {UNTOUCHED} {ALLOWED}",
        ),
        *(
            (request, f"force is for the action revert only, and needs a reason. {UNTOUCHED} {FORCED}")
            for request in (
                {"hotfix": ID, "action": "revert", "force": True},
                {"hotfix": ID, "action": "revert", "force": "true", "reason": " "},
                {"hotfix": ID, "action": "apply", "force": True, "reason": "INC-4711"},
                {"hotfix": ID, "force": True, "reason": "INC-4711"},
                {"action": "check", "force": "true", "reason": "INC-4711"},
            )
        ),
        *(
            (
                {"hotfix": ID, "action": "revert", "force": True, "reason": reason},
                f"The reason is still {reason!r}. {UNTOUCHED} Write why the data may go.",
            )
            for reason in ("<why the data may go>", " <reason> ")
        ),
        *(
            (
                {"hotfix": ID, "action": "revert", "reason": "INC-4711", "force": value},
                f"force is neither true nor false. {UNTOUCHED} {FORCED}",
            )
            for value in ("yes", 1, 0, "True", [True])
        ),
        ({"action": "revert"}, f"The request to revert names no hotfix. {UNTOUCHED} {ALLOWED}"),
        (
            {"hotfix": ID, "action": "revert", "record": "prisma"},
            f'record is not "prisma", or the action is not apply. {UNTOUCHED} {RECORD}',
        ),
        (
            {"hotfix": ID, "action": "revert", "plan_hash": HASH},
            f"plan_hash is not 64 hex digits, or the action is not apply. {UNTOUCHED} {COPY}",
        ),
        (
            envelope(json.dumps({"hotfix": ID})),
            f"The EventBridge event has no object as its detail. {UNTOUCHED} Put the request there. {ALLOWED}",
        ),
        (
            envelope({"hotfix": ID, "host": "db.example"}),
            f"The request has the unknown key 'host'. {UNTOUCHED} {ALLOWED}",
        ),
        (
            {"hotfix": ID, "detail-type": "Hotfix requested"},
            f"The request has the unknown key 'detail-type'. {UNTOUCHED} {ALLOWED}",
        ),
    ],
)
def test_what_is_no_request_is_refused_with_what_to_send(event: object, text: str) -> None:
    assert refuse(event) == text


@pytest.mark.parametrize(
    ("hotfix", "shown"),
    [
        ("../../etc/passwd", "'../../etc/passwd'"),
        (f"../{ID}", f"'../{ID}'"),
        (f"/opt/{ID}", f"'/opt/{ID}'"),
        (f"{ID}.sql", f"'{ID}.sql'"),
        (f"{ID}/../x", f"'{ID}/../x'"),
        (f"{ID}; DROP TABLE drivers", f"'{ID}; DROP TABLE drivers'"),
        ("ALTER TABLE drivers ADD COLUMN note text", "'ALTER TABLE drivers ADD COLUMN note text'"),
        (f" {ID}", f"' {ID}'"),
        (ID.upper(), f"'{ID.upper()}'"),
        ("٢٠٢٦٠٢١٢٠٩٢٠٠٠_add_drivers_active_since", "'٢٠٢٦٠٢١٢٠٩٢٠٠٠_add_drivers_active_since'"),
        (ID[:14], f"'{ID[:14]}'"),
        (f"{ID[:15]}{'a' * 201}", f"'{ID[:15]}{'a' * 65}...'"),
        ("a'b", '"a\'b"'),
    ],
)
def test_an_id_can_hold_neither_a_path_nor_sql(hotfix: str, shown: str) -> None:
    assert refuse({"hotfix": hotfix, "action": "apply"}) == f"{shown} is not the id of a hotfix. {UNTOUCHED} {FORM}"


def test_an_id_that_ends_in_a_line_break_is_refused() -> None:
    assert "hotfix is not a text" in refuse({"hotfix": f"{ID}\n"})
