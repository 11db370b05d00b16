"""The message that the topic's subscribers get, whole, and who gets none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pg_hotfix import errors
from pg_hotfix.results import RESULTS
from pg_hotfix_report import explain
from pg_hotfix_report.message import LONGEST_SUBJECT
from tests.unit.report.test_report import (
    ARN,
    INCIDENT,
    SETTINGS,
    already_applied,
    end,
    event,
    output,
    planned,
    reverted,
)

HOTFIX = INCIDENT["request"]["hotfix"]
CHECKED = replace(SETTINGS, endpoint_url="https://api.kaviar.example/x", log_group="/ecs/kaviar")
FOOT = f"Execution: {ARN}\nThe whole report:  ./pg-hotfix report {ARN}"
REASON = "INC-4711: GET /api/admin/drivers/:id answers 500"
NOT_CHECKED = (
    "Endpoint: not called (the parameter EndpointUrl is empty)\n"
    "Application log: not watched (the parameter ApplicationLogGroup is empty)\n"
)


def test_a_success_is_told_with_its_proof_and_its_checks() -> None:
    assert end(event(INCIDENT), CHECKED)["message"] == {
        "subject": "pg-hotfix prod: applied",
        "text": (
            f"{HOTFIX} in prod: applied\n\n"
            f"{INCIDENT['apply']['summary']}\n"
            f"Verified over a new connection: {INCIDENT['verify']['summary']}\n\n"
            "Asked for by (self-declared): ana.souza\n"
            f"Reason: {REASON}\n"
            "Endpoint: https://api.kaviar.example/x answered 200\n"
            "Application log: no line matched the error pattern for 5 min after the verify\n"
            f"{FOOT}"
        ),
    }


@pytest.mark.parametrize("nothing", [None, "", 7, {}])
def test_a_message_reads_well_without_a_name_and_a_reason(nothing: object) -> None:
    whole = already_applied()
    whole["request"] |= {"requested_by": nothing, "reason": nothing}
    assert end(event(whole))["message"] == {
        "subject": "pg-hotfix prod: already_applied",
        "text": (
            f"{HOTFIX} in prod: already_applied\n\n"
            "public.drivers.active_since already as expected; nothing was run.\n"
            f"Verified over a new connection: {INCIDENT['verify']['summary']}\n\n"
            "Asked for by (self-declared): not told\n"
            "Reason: not told\n"
            f"{NOT_CHECKED}{FOOT}"
        ),
    }


def test_a_revert_is_told_without_the_checks_that_it_would_fail() -> None:
    assert end(event(reverted()), CHECKED)["message"] == {
        "subject": "pg-hotfix prod: reverted",
        "text": (
            f"{HOTFIX} in prod: reverted\n\n"
            f"{reverted()['summary']}\n\n"
            "Asked for by (self-declared): ana.souza\n"
            "Reason: INC-4712: back to the old release\n"
            "Endpoint: not called (this was a revert)\n"
            "Application log: not watched (this was a revert)\n"
            f"{FOOT}"
        ),
    }


def test_a_failure_is_told_with_its_whole_text() -> None:
    assert end(event(planned(), "LockBusyError", "It stayed locked.\nEnd it."), CHECKED)["message"] == {
        "subject": "pg-hotfix prod: LockBusyError",
        "text": (
            f"apply of {HOTFIX} in prod failed: LockBusyError\n\n"
            "It stayed locked.\nEnd it.\n\n"
            "Asked for by (self-declared): ana.souza\n"
            f"Reason: {REASON}\n"
            "Endpoint: not called (the run failed before that)\n"
            "Application log: not watched (the run failed before that)\n"
            f"{FOOT}"
        ),
    }


@pytest.mark.parametrize(
    ("names", "error", "endpoint", "log"),
    [
        ((), "EndpointRefusedError", "see the error", "not watched (the run failed before that)"),
        (("endpoint",), "WatchError", "https://api.kaviar.example/x answered 200", "see the error"),
        (("endpoint", "watch"), "ErrorsContinueError", "https://api.kaviar.example/x answered 200", "see the error"),
    ],
)
def test_of_a_check_that_failed_the_line_refers_to_the_error(
    names: tuple[str, ...], error: str, endpoint: str, log: str
) -> None:
    text = end(event(output("plan", "apply", "verify", *names), error), CHECKED)["message"]["text"]
    assert f"\nEndpoint: {endpoint}\nApplication log: {log}\n" in text


@pytest.mark.parametrize("request_", [{}, {"action": {"plan": 1}, "hotfix": 3}, {"action": "apply"}])
def test_a_request_that_was_refused_is_not_quoted(request_: dict[str, Any]) -> None:
    message = end(event({"request": request_}, "RequestError", "No such key."))["message"]
    assert message["text"].startswith("A request in prod failed: RequestError\n\nNo such key.\n\n")


@pytest.mark.parametrize("action", ["plan", "gate"])
def test_of_a_look_that_fails_nobody_is_told_and_no_report_is_kept(action: str) -> None:
    whole = {"request": {"action": action, "hotfix": HOTFIX}}
    assert end(event(whole, "MismatchError", "It differs.")) == {
        "run": {"output": whole},
        "failure": {"Error": "MismatchError", "Cause": "It differs."},
    }


def test_of_a_verify_that_succeeds_a_report_is_kept_and_nobody_is_told() -> None:
    whole = output("verify", result="verified", summary="As expected.")
    whole["request"] |= {"action": "verify"}
    made = end(event(whole))
    assert made.keys() == {"run"}
    assert made["run"]["output"]["report"]["json"]["execution"]["result"] == "verified"


def test_the_subject_is_one_short_line_of_ascii() -> None:
    longest = replace(SETTINGS, environment="a-long-name-of-prod1")
    names = (
        {cls.__name__ for cls in errors.HotfixError.__subclasses__()} | explain.NAMES | {"Lambda.AWSLambdaException"}
    )
    for name in names:
        subject = end(event(output("plan"), name, "..."), longest)["message"]["subject"]
        assert subject.startswith("pg-hotfix a-long-name-of-prod1: ")
        assert subject.endswith(name) or name in explain.NAMES
    for result in RESULTS:
        made = end(event(INCIDENT | {"result": result}), longest)["message"]
        assert made["subject"] == f"pg-hotfix a-long-name-of-prod1: {result}"
    # Whatever a function's exception is called.
    subject = end(event(output("plan"), "Ação\n" + "x" * 200, "..."))["message"]["subject"]
    assert subject.isascii()
    assert subject.isprintable()
    assert len(subject) <= LONGEST_SUBJECT
