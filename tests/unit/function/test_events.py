"""Every packaged event is a request that the function's contract allows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

EVENTS = Path(__file__).parents[3] / "events"
SQL = Path(__file__).parents[3] / "sql"

KEYS = {"hotfix", "action", "reason", "requested_by", "plan_hash", "correlation_id", "record", "force"}
ACTIONS = {"check", "plan", "apply", "verify", "revert", "gate"}
CALLERS = {"operator", "eventbridge", "step_functions", "ci", "runbook"}
# What each caller can name as its own run; the function tells the caller from it.
RUN_FORMS = {
    "step_functions": r"arn:aws:states:[a-z0-9-]+:\d{12}:execution:[^:]+:[^:]+",
    "runbook": r"arn:aws:ssm:[a-z0-9-]+:\d{12}:automation-execution/[0-9a-f-]{36}",
    "ci": r"https://github\.com/[^/]+/[^/]+/actions/runs/\d+",
}

events = pytest.mark.parametrize("path", sorted(EVENTS.glob("*.json")), ids=lambda path: path.stem)


def read_event(path: Path) -> dict[str, Any]:
    event = json.loads(path.read_text())
    assert isinstance(event, dict)
    return event


def read_request(path: Path) -> dict[str, Any]:
    event = read_event(path)
    return event["detail"] if "detail-type" in event else event


def test_there_is_one_event_for_each_action_and_each_caller() -> None:
    assert {path.stem for path in EVENTS.iterdir()} == ACTIONS | CALLERS


@events
def test_event_holds_only_keys_of_the_contract(path: Path) -> None:
    assert set(read_request(path)) <= KEYS


@events
def test_event_says_who_asks_and_why(path: Path) -> None:
    request = read_request(path)
    assert request["action"] in ACTIONS
    assert request["requested_by"]
    assert request["reason"]


@events
def test_event_names_a_packaged_hotfix(path: Path) -> None:
    request = read_request(path)
    if request["action"] not in ("check", "gate"):
        assert (SQL / f"{request['hotfix']}.sql").is_file()


@events
def test_event_carries_no_plan_hash_that_would_go_stale(path: Path) -> None:
    assert "plan_hash" not in read_request(path)


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_event_named_after_an_action_asks_for_it(action: str) -> None:
    assert read_request(EVENTS / f"{action}.json")["action"] == action


@pytest.mark.parametrize("caller", sorted(RUN_FORMS))
def test_event_of_a_machine_names_its_run(caller: str) -> None:
    assert re.fullmatch(RUN_FORMS[caller], read_request(EVENTS / f"{caller}.json")["correlation_id"])


def test_event_of_a_person_names_no_run() -> None:
    assert "correlation_id" not in read_request(EVENTS / "operator.json")


def test_event_of_eventbridge_has_its_whole_envelope() -> None:
    event = read_event(EVENTS / "eventbridge.json")
    envelope = {"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"}
    assert set(event) == envelope
    assert event["source"] == "pg-hotfix.request"
