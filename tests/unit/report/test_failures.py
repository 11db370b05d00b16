"""What a failure is called in the end, and what it says, for every way in which a task of the machine can fail."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pg_hotfix import errors
from pg_hotfix_report import explain
from pg_hotfix_report.facts import collect_facts
from pg_hotfix_report.run import read_state
from tests.unit.report.test_report import ARN, COLUMN, INCIDENT, SETTINGS, end, event, output

HOTFIX = INCIDENT["request"]["hotfix"]
AGAIN = f"./pg-hotfix apply {HOTFIX} --stack pg-hotfix-prod --reason 'INC-4711: GET /api/admin/drivers/:id answers 500'"
ALL_CHECKS = replace(
    SETTINGS, endpoint_url="https://api.kaviar.example/x", log_group="/ecs/kaviar", error_pattern='{ $.code = "P2022" }'
)
VERIFIED = f"The change is committed and verified: {INCIDENT['verify']['summary']}"
VERIFY = f"./pg-hotfix verify {HOTFIX} --stack pg-hotfix-prod"


def caused_by(text: str, error: str = "SomeError") -> str:
    """What Step Functions gives as the cause of a Python function's exception."""
    return json.dumps({"errorMessage": text, "errorType": error, "requestId": "1f0c7a52", "stackTrace": ["  File"]})


def asked(**fields: Any) -> dict[str, Any]:
    """The output of an execution of which nothing has answered."""
    return {"request": INCIDENT["request"] | {"record": None} | fields}


def applying(*names: str) -> dict[str, Any]:
    return output(*names) | asked()


def failure(output: dict[str, Any], error: str, cause: str = "", settings: Any = ALL_CHECKS) -> tuple[str, str]:
    made = end(event(output, error, cause), settings)["failure"]
    return made["Error"], made["Cause"]


# The function's own errors


def test_an_error_of_the_function_keeps_its_name_and_its_text() -> None:
    text = 'It differs {"a": 1}. Nothing was changed.\nCorrect the file.'
    assert failure(applying("plan"), "MismatchError", caused_by(text)) == ("MismatchError", text)


def test_what_the_apply_has_committed_stands_before_a_later_failure() -> None:
    assert failure(applying("plan", "apply"), "MismatchError", caused_by("It differs. Nothing was changed.")) == (
        "MismatchError",
        f"Before this failure the apply answered: {INCIDENT['apply']['summary']}\nIt differs. Nothing was changed.",
    )


@pytest.mark.parametrize("cause", ["", caused_by("")])
def test_an_error_without_a_text_still_has_a_line_to_paste(cause: str) -> None:
    assert failure(applying("plan"), "MismatchError", cause) == (
        "MismatchError",
        f"The function gave no text with this error.\nRun the same request again; it is safe:  {AGAIN}",
    )


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"reason": None}, ""),
        ({"reason": "INC-4711"}, " --reason INC-4711"),
        (
            {"reason": "INC-4711", "plan_hash": "a" * 64, "record": "prisma"},
            f" --reason INC-4711 --plan-hash {'a' * 64} --record prisma",
        ),
    ],
)
def test_an_apply_whose_plan_fails_is_led_back_to_the_apply(fields: dict[str, Any], options: str) -> None:
    text = f"Cannot connect. Nothing was changed.\nRun it again:  ./pg-hotfix plan {HOTFIX} --stack pg-hotfix-prod"
    assert failure(asked(**fields), "DatabaseUnavailableError", caused_by(text)) == (
        "DatabaseUnavailableError",
        (f"{text}\nWhen the plan succeeds, apply:  ./pg-hotfix apply {HOTFIX} --stack pg-hotfix-prod{options}"),
    )


@pytest.mark.parametrize(
    ("names", "fields"),
    [((), {"action": "plan"}), ((), {"action": "revert"}), (("plan",), {}), ((), {"hotfix": "drivers"})],
)
def test_nothing_else_is_led_to_an_apply(names: tuple[str, ...], fields: dict[str, Any]) -> None:
    text = "It differs. Nothing was changed.\nCorrect the file."
    assert failure(output(*names) | asked(**fields), "MismatchError", caused_by(text)) == ("MismatchError", text)


@pytest.mark.parametrize(
    "cause", ["no JSON", '{"errorMessage": "cut', "[1]", "null", '{"other": 1}', "[" * 20_000, '{"errorMessage": {}}']
)
def test_a_cause_of_whatever_form_is_told(cause: str) -> None:
    name, text = failure(applying("plan"), "SomeError", cause)
    assert (name, text) == ("SomeError", "{}" if cause.endswith("{}}") else cause)


def test_a_cause_is_not_longer_than_a_fail_state_takes() -> None:
    _, text = failure(applying("plan", "apply"), "SomeError", "-" * 32_768)
    assert len(text) == 32_768


# No answer


def test_a_plan_that_did_not_answer_changed_nothing() -> None:
    assert failure(applying(), "Lambda.Unknown", "It was throttled") == (
        "Lambda.Unknown",
        (
            "The function did not answer (Lambda.Unknown: It was throttled).\nNothing was changed: plan only reads.\n"
            f"Run the same request again; it is safe:  {AGAIN}"
        ),
    )


def test_an_apply_that_did_not_answer_was_made_completely_or_not_at_all() -> None:
    text = "RequestId: 1f0c Error: Runtime exited with error: signal: killed"
    assert failure(applying("plan"), "Runtime.ExitError", caused_by(text, "Runtime.ExitError")) == (
        "Runtime.ExitError",
        (
            f"The function did not answer (Runtime.ExitError: {text}).\n"
            "The file was applied completely or not at all: PostgreSQL rolls back what was not committed.\n"
            f"Run the same request again; it is safe:  {AGAIN}"
        ),
    )


def test_a_revert_that_did_not_answer_is_not_called_an_apply() -> None:
    _, text = failure(asked(action="revert", reason=None), "States.Timeout")
    assert text == (
        "The function did not answer (States.Timeout).\n"
        "The revert was run completely or not at all: PostgreSQL rolls back what was not committed.\n"
        f"Run the same request again; it is safe:  ./pg-hotfix revert {HOTFIX} --stack pg-hotfix-prod"
    )


@pytest.mark.parametrize(
    ("reason", "said"),
    [("INC-4712", "INC-4712"), ("two\nlines", "'<why the data may go>'"), (None, "'<why the data may go>'")],
)
def test_a_forced_revert_is_not_called_safe_to_run_again(reason: str | None, said: str) -> None:
    _, text = failure(asked(action="revert", reason=reason, force="true"), "States.Timeout")
    assert text == (
        "The function did not answer (States.Timeout).\n"
        "The revert was run completely or not at all: PostgreSQL rolls back what was not committed.\n"
        "The same request again drops the column with all that was written to it since. See what is there now:"
        f"  ./pg-hotfix plan {HOTFIX} --stack pg-hotfix-prod\n"
        f"To drop it all the same:  ./pg-hotfix revert {HOTFIX} --stack pg-hotfix-prod --reason {said} --force"
    )


RECORDED = "The file was applied and recorded completely or not at all: PostgreSQL rolls back what was not committed."


def recording() -> dict[str, Any]:
    """What the plan found done, and the apply was to record."""
    whole = output("plan") | asked(record="prisma", reason=None) | {"result": "already_applied"}
    whole["plan"] |= {"result": "already_applied", "sql": None}
    return whole


def test_an_apply_that_only_records_may_have_recorded() -> None:
    assert failure(recording(), "Sandbox.Timedout", caused_by("Task timed out after 55.00 seconds")) == (
        "Sandbox.Timedout",
        (
            f"The function did not answer (Sandbox.Timedout: Task timed out after 55.00 seconds).\n{RECORDED}\n"
            "Run the same request again; it is safe:"
            f"  ./pg-hotfix apply {HOTFIX} --stack pg-hotfix-prod --record prisma"
        ),
    )
    assert failure(recording(), "States.DataLimitExceeded") == (
        "FunctionCallError",
        f"{LOST} {RECORDED}\n{ASK} plan {HOTFIX} --stack pg-hotfix-prod --direct",
    )
    run = read_state(event(recording(), "Sandbox.Timedout"))
    assert run.failed_action == "apply"
    assert collect_facts(explain.explain(run, SETTINGS))["execution"]["changed"] is None


def test_what_was_found_done_and_is_not_recorded_goes_on_to_the_verify() -> None:
    whole = recording()
    whole["request"] |= {"record": None}
    assert read_state(event(whole, "States.Timeout")).failed_action == "verify"


def test_a_time_out_gets_a_name_that_a_fail_state_may_use() -> None:
    name, text = failure(applying("plan", "apply"), "States.Timeout")
    assert name == "FunctionCallError"
    assert text == (
        f"Before this failure the apply answered: {INCIDENT['apply']['summary']}\n"
        "The function did not answer (States.Timeout).\n"
        "The verify changed nothing. What the apply has committed stays.\n"
        f"Run the same request again; it is safe:  {AGAIN}"
    )


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"reason": None}, f"apply {HOTFIX} --stack pg-hotfix-prod"),
        (
            {"reason": "it's 3 a.m.; rm -rf"},
            f"apply {HOTFIX} --stack pg-hotfix-prod --reason 'it'\"'\"'s 3 a.m.; rm -rf'",
        ),
        ({"reason": "two\nlines"}, f"apply {HOTFIX} --stack pg-hotfix-prod"),
        ({"reason": "\x1b[2J"}, f"apply {HOTFIX} --stack pg-hotfix-prod"),
        ({"reason": "x" * 201}, f"apply {HOTFIX} --stack pg-hotfix-prod"),
        (
            {"reason": "", "plan_hash": "a" * 64, "record": "prisma"},
            f"apply {HOTFIX} --stack pg-hotfix-prod --plan-hash {'a' * 64} --record prisma",
        ),
        ({"reason": 7, "plan_hash": "no hash", "record": "other"}, f"apply {HOTFIX} --stack pg-hotfix-prod"),
        (
            {"action": "revert", "reason": "INC-4712", "plan_hash": "a" * 64, "record": "prisma"},
            f"revert {HOTFIX} --stack pg-hotfix-prod --reason INC-4712",
        ),
        (
            {"reason": None, "force": "true"},
            f"apply {HOTFIX} --stack pg-hotfix-prod",
        ),
        ({"action": "gate", "hotfix": None, "reason": None}, "gate --stack pg-hotfix-prod"),
        ({"action": None, "reason": None}, f"plan {HOTFIX} --stack pg-hotfix-prod"),
        ({"action": "apply", "hotfix": "x; rm -rf /", "reason": None}, "check --stack pg-hotfix-prod"),
        ({"action": {"drop": 1}, "reason": None}, "check --stack pg-hotfix-prod"),
    ],
)
def test_the_same_request_again_is_a_line_in_which_nothing_of_a_caller_is_run(
    fields: dict[str, Any], line: str
) -> None:
    _, text = failure(asked(**fields), "States.Timeout")
    assert text.splitlines()[-1] == f"Run the same request again; it is safe:  ./pg-hotfix {line}"


# Too large

LOST = "The function's answer exceeds the 256 KiB that Step Functions carries."
ASK = "Ask the function itself what is there:  ./pg-hotfix"


def test_of_an_apply_whose_answer_is_too_large_only_the_answer_is_lost() -> None:
    assert failure(applying("plan"), "States.DataLimitExceeded", "The state/task ... returned a result") == (
        "FunctionCallError",
        (
            f"{LOST} The file was applied completely or not at all: PostgreSQL rolls back what was not committed.\n"
            f"{ASK} plan {HOTFIX} --stack pg-hotfix-prod --direct"
        ),
    )


def test_of_a_verify_after_an_apply_whose_answer_is_too_large_the_apply_is_told() -> None:
    assert failure(applying("plan", "apply"), "States.DataLimitExceeded") == (
        "FunctionCallError",
        (
            f"Before this failure the apply answered: {INCIDENT['apply']['summary']}\n"
            f"{LOST} The verify changed nothing. What the apply has committed stays.\n"
            f"{ASK} plan {HOTFIX} --stack pg-hotfix-prod --direct"
        ),
    )


@pytest.mark.parametrize(
    ("action", "line"),
    [
        ("plan", f"plan {HOTFIX} --stack pg-hotfix-prod --direct"),
        # It asks the function itself anyway.
        ("check", "check --stack pg-hotfix-prod"),
        ("gate", "gate --stack pg-hotfix-prod --direct"),
    ],
)
def test_a_look_whose_answer_is_too_large_changed_nothing(action: str, line: str) -> None:
    hotfix = HOTFIX if action == "plan" else None
    assert failure(asked(action=action, hotfix=hotfix), "States.DataLimitExceeded") == (
        "FunctionCallError",
        f"{LOST} Nothing was changed: {action} only reads.\n{ASK} {line}",
    )


# The endpoint

PROVED = ("plan", "apply", "verify", "result", "summary")


@pytest.mark.parametrize(
    ("error", "cause", "what"),
    [
        ("EndpointRefusedError", caused_by("answered 401 instead of 200 to 299"), "answered 401 instead of 200 to 299"),
        ("EndpointUnavailableError", caused_by("could not be called (OSError)"), "could not be called (OSError)"),
        ("States.Timeout", "", "could not be called (States.Timeout)"),
        ("Lambda.Unknown", "why", "could not be called (Lambda.Unknown)"),
        ("States.DataLimitExceeded", "", "could not be called (States.DataLimitExceeded)"),
    ],
)
def test_an_endpoint_that_fails_is_told_with_what_was_proved(error: str, cause: str, what: str) -> None:
    assert failure(applying(*PROVED), error, cause) == (
        "EndpointCheckError",
        (
            f"The endpoint https://api.kaviar.example/x {what}.\n{VERIFIED}\n"
            "Read in the application's log what it misses now. After 401 or 403, correct the secret that the parameter"
            " EndpointTokenSecretArn names.\n"
            'After "cached plan must not change result type", restart the application: its sessions prepared SELECT *'
            " before the change.\n"
            f"When that is repaired, call the endpoint again:  {VERIFY}"
        ),
    )


# The log

READ = (
    "Read its lines:  aws logs filter-log-events --log-group-name /ecs/kaviar --start-time"
    f" {INCIDENT['verify']['finished_at_ms']} --filter-pattern '{{ $.code = \"P2022\" }}'"
)
WATCH = f"When that is repaired, watch the log again:  {VERIFY}"


@pytest.mark.parametrize(("watched", "minutes"), [({}, 1), ({"watch": {"minutes": 3}}, 4)])
def test_an_error_in_the_log_is_told_with_the_minute_and_the_line_to_read_it(
    watched: dict[str, Any], minutes: int
) -> None:
    whole = applying(*PROVED, "endpoint") | watched
    assert failure(whole, "ErrorsContinueError", caused_by("", "ErrorsContinueError")) == (
        "ErrorsContinueError",
        (
            f"A line in the application's log matches the error pattern, at most {minutes} min after the verify.\n"
            f"{VERIFIED}\n"
            f"Something else may be missing, or an old version of the application still runs. {READ}\n{WATCH}"
        ),
    )


@pytest.mark.parametrize(
    ("error", "cause", "reason"),
    [
        ("WatchError", caused_by("ResourceNotFoundException"), "ResourceNotFoundException"),
        ("LogUnavailableError", caused_by("ThrottlingException"), "ThrottlingException"),
        ("Lambda.Unknown", "some text", "Lambda.Unknown"),
        ("States.Timeout", "", "States.Timeout"),
    ],
)
@pytest.mark.parametrize("endpoint_url", ["", "https://api.kaviar.example/x"])
def test_a_log_that_cannot_be_searched_is_told_with_the_reason(
    error: str, cause: str, reason: str, endpoint_url: str
) -> None:
    whole = applying(*PROVED, *(["endpoint"] if endpoint_url else []))
    assert failure(whole, error, cause, replace(ALL_CHECKS, endpoint_url=endpoint_url)) == (
        "WatchError",
        (
            f"The log /ecs/kaviar could not be searched ({reason}), so nobody knows whether the errors of the"
            f" application have ended.\n{VERIFIED}\n{READ}\n{WATCH}"
        ),
    )


# Names and the report


def test_every_name_that_is_given_here_is_none_of_the_functions() -> None:
    assert not explain.NAMES & {cls.__name__ for cls in errors.HotfixError.__subclasses__()}
    assert not [name for name in explain.NAMES if "." in name]


def test_the_report_of_a_failure_tells_it_as_explained() -> None:
    made = end(event(applying(*PROVED), "States.Timeout"), ALL_CHECKS)
    execution = made["run"]["output"]["report"]["json"]["execution"]
    assert (execution["error"], execution["cause"]) == ("EndpointCheckError", made["failure"]["Cause"])
    assert f"`{COLUMN}` is as expected: yes." in made["run"]["output"]["report"]["markdown"]


def test_whether_an_apply_that_did_not_answer_changed_anything_is_unknown() -> None:
    for names, changed in (((), False), (("plan",), None)):
        run = read_state(event(applying(*names), "States.Timeout"))
        assert collect_facts(explain.explain(run, SETTINGS))["execution"]["changed"] is changed


def test_no_execution_but_one_of_a_stack_of_ours_names_the_stack() -> None:
    run = read_state(event(applying("plan"), "States.Timeout"))
    for arn in (None, "", ARN.replace("-hotfix:apply", ":apply"), f"{ARN}:x; rm", "`rm`"):
        text = explain.explain(replace(run, arn=arn), SETTINGS).cause
        assert text
        assert f"./pg-hotfix apply {HOTFIX} --stack NAME --reason" in text
