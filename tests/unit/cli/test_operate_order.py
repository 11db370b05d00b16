"""What the command line makes of what is typed, of where it runs, and of what AWS answers."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore import exceptions

from cli.operate import stack
from cli.operate.execution import refuse_other_list, state_of
from cli.operate.order import Order, make_request, name_in_pipeline, run_of_pipeline
from cli.operate.stack import environments, explain, find_stack
from cli.operate.verdict import Ending, next_after_failure, next_after_success, show_ending, show_output, show_step
from laptop.errors import LocalError
from pg_hotfix.request import parse_request
from pg_hotfix_button.executions import Step, read_steps
from tests.conftest import HOTFIX

if TYPE_CHECKING:
    from pathlib import Path

ORDER = Order("apply", HOTFIX, environment="prod", reason="INC-4711")
GITHUB = {
    "GITHUB_ACTOR": "bruno",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "example-org/drivers-backend",
    "GITHUB_RUN_ID": "13284711502",
}
CODEBUILD = {
    "CODEBUILD_INITIATOR": "codepipeline/drivers-backend",
    "CODEBUILD_BUILD_ARN": "arn:aws:codebuild:sa-east-1:123456789012:build/pg-hotfix:01234567",
}


def test_a_check_needs_no_id_and_asks_the_function() -> None:
    check = Order("check", stack="pg-hotfix-prod")
    assert (make_request(check, {}), check.is_direct) == ({"action": "check"}, True)


def test_a_gate_needs_no_id_and_goes_through_the_state_machine_like_whatever_a_pipeline_may_start() -> None:
    gate = Order("gate", stack="pg-hotfix-prod")
    assert (make_request(gate, {}), gate.is_direct) == ({"action": "gate"}, False)
    with pytest.raises(LocalError, match="the gate checks the whole schema"):
        make_request(replace(ORDER, action="gate"), {})


def test_a_gate_that_was_passed_with_another_list_is_not_passed(tmp_path: Path) -> None:
    deployed = b"-- expect: column public.drivers.id uuid not null\n"
    summary = "As the application expects: 1 column of 1 table."
    ending = Ending({"summary": summary, "plan": {"sql_sha256": hashlib.sha256(deployed).hexdigest()}})
    path = tmp_path / "schema.expect"
    refuse_other_list(ending, path, "./pg-hotfix gate --env prod")  # There is none here to compare with.
    path.write_bytes(deployed)
    refuse_other_list(ending, path, "./pg-hotfix gate --env prod")
    path.write_bytes(deployed + b"-- expect: column public.drivers.active_since timestamptz\n")
    with pytest.raises(LocalError) as refused:
        refuse_other_list(ending, path, "./pg-hotfix gate --env prod")
    assert str(refused.value) == (
        f"The deployed list differs from {path}: one of them is older. {summary} Nothing was changed. Deploy this list,"
        " and run again:  ./pg-hotfix gate --env prod"
    )


def test_an_empty_option_is_not_sent() -> None:
    assert make_request(replace(ORDER, reason=" "), {}) == {"hotfix": HOTFIX, "action": "apply"}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"hotfix": "drivers"}, "'drivers' is not the id of a hotfix."),
        ({"plan_hash": "57b1"}, "plan_hash is not 64 hex digits"),
        ({"reason": "a\nb"}, "reason is not a text of at most 1000 characters in one line."),
    ],
)
def test_a_request_that_the_function_would_refuse_is_refused_here(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(LocalError) as refused:
        make_request(replace(ORDER, **changes), {})
    assert str(refused.value).startswith(f"RequestError: {what}")
    assert "Nothing was contacted" in str(refused.value)


@pytest.mark.parametrize(
    ("around", "name", "caller"),
    [({}, None, "direct"), (GITHUB, "bruno", "ci"), (CODEBUILD, "codepipeline/drivers-backend", "ci")],
)
def test_a_pipeline_says_who_started_it_and_which_run_it_is(
    around: dict[str, str], name: str | None, caller: str
) -> None:
    request = make_request(ORDER, around)
    assert request.get("requested_by") == name
    assert parse_request(request).caller == caller


def test_who_runs_a_pipeline_again_is_the_one_who_asks() -> None:
    assert name_in_pipeline(GITHUB | {"GITHUB_TRIGGERING_ACTOR": "carla"}) == "carla"


def test_the_name_that_is_typed_comes_first() -> None:
    assert make_request(replace(ORDER, by="ana"), GITHUB)["requested_by"] == "ana"


def test_outside_of_a_pipeline_there_is_no_run() -> None:
    assert run_of_pipeline({}) == ""


# The line to type next


def test_a_plan_leads_to_the_apply_that_it_binds() -> None:
    output = {"result": "would_apply", "plan": {"plan_hash": "57b1"}}
    line = f"./pg-hotfix apply {HOTFIX} --env prod --reason INC-4711 --plan-hash 57b1"
    assert next_after_success(output, replace(ORDER, action="plan")) == [line]


def test_only_the_apply_is_told_what_to_record() -> None:
    recording = replace(ORDER, record="prisma")
    assert make_request(recording, {})["record"] == "prisma"
    (line,) = next_after_success({"result": "already_applied", "apply": {}}, recording)
    assert line == f"./pg-hotfix verify {HOTFIX} --env prod --reason INC-4711"


def test_a_line_to_type_goes_through_a_shell_as_it_is() -> None:
    order = replace(ORDER, reason="it's $5 & more", force=True, direct=True)
    assert shlex.split(order.command(action="revert")) == [
        *("./pg-hotfix", "revert", HOTFIX),
        *("--env", "prod", "--reason", "it's $5 & more", "--force", "--direct"),
    ]


def test_a_forced_revert_needs_a_reason() -> None:
    forced = replace(ORDER, action="revert", force=True)
    assert make_request(forced, {})["force"] == "true"
    with pytest.raises(LocalError, match="force"):
        make_request(replace(forced, reason=""), {})


def test_what_prisma_will_do_next_is_said_where_there_is_a_history(capsys: pytest.CaptureFixture[str]) -> None:
    seen = {"objects": [], "blockers": [], "prisma": {"state": "recorded", "next_deploy": "It skips it."}}
    show_output({"result": "applied", "summary": "Done.", "apply": seen})
    assert "The next prisma migrate deploy: It skips it." in capsys.readouterr().out
    seen["prisma"] = {"state": "no_history", "next_deploy": "It refuses."}
    show_output({"result": "applied", "summary": "Done.", "apply": seen})
    assert "prisma" not in capsys.readouterr().out


def test_what_may_surprise_somebody_later_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    notes = [
        {
            "code": "revert_dependents",
            "text": "revert drops these with the column, so revert needs --force: index public.a.",
        }
    ]
    seen = {"objects": [], "blockers": [], "notes": notes}
    show_output({"result": "already_applied", "summary": "Done.", "plan": seen, "verify": seen})
    assert capsys.readouterr().out.count(notes[0]["text"]) == 1


def test_what_is_there_already_leads_to_the_proof() -> None:
    order = Order("plan", HOTFIX, stack="pg-hotfix-x", reason="INC-4711")
    output = {"result": "already_applied", "plan": {}}
    line = f"./pg-hotfix verify {HOTFIX} --stack pg-hotfix-x --reason INC-4711"
    assert next_after_success(output, order) == [line]


@pytest.mark.parametrize(
    "output",
    [
        {"result": "applied", "verify": {}},
        {"result": "already_applied", "verify": {}},
        {"result": "verified"},
        {"result": "passed", "plan": {}},
        {"result": "ready"},
        {"result": "reverted", "apply": {}},
        {"result": "already_reverted", "apply": {}},
    ],
)
def test_what_is_proved_leads_nowhere(output: dict[str, Any]) -> None:
    assert next_after_success(output, ORDER) == []


@pytest.mark.parametrize(
    ("error", "cause", "is_proposed"),
    [
        ("TIMED_OUT", "Its last step may have been carried out or not: plan tells what is there.", True),
        ("ConfigurationError", "Put the endpoint into the secret:  aws rds describe-db-clusters", True),
        ("LockBusyError", "", True),
        ("LockBusyError", None, True),
        ("EndpointCheckError", f"It failed.\nCall it again:  ./pg-hotfix verify {HOTFIX} --stack x", False),
        ("WatchError", f"It failed.\nWatch it again:  ./pg-hotfix verify {HOTFIX} --stack x\n", False),
        ("FunctionCallError", f"Run it again:  /opt/pg-hotfix apply {HOTFIX} --stack x", False),
        ("MismatchError", f"./pg-hotfix plan {HOTFIX}\nCorrect the file.", True),
    ],
)
def test_the_same_is_proposed_again_unless_the_text_ends_in_a_command(
    error: str, cause: str | None, is_proposed: bool
) -> None:
    lines = next_after_failure(Ending({}, error, cause), ORDER)
    assert lines == ([f"./pg-hotfix apply {HOTFIX} --env prod --reason INC-4711"] if is_proposed else [])


EXECUTION = "arn:aws:states:sa-east-1:123456789012:execution:pg-hotfix-prod-hotfix:apply-1"
SEEN: dict[str, Any] = {"objects": [], "blockers": [], "plan_hash": "57b1", "sql": "SELECT 1;"}


@pytest.mark.parametrize(
    ("ending", "lines"),
    [
        (
            Ending({"result": "applied", "summary": "Done.", "apply": SEEN, "verify": SEEN}),
            ["applied", "   Done."],
        ),
        (
            Ending({}, "MismatchError", "It differs.\n./pg-hotfix prove x"),
            ["MismatchError", "   It differs.", "   ./pg-hotfix prove x"],
        ),
    ],
)
def test_an_execution_is_told_with_the_line_for_its_report_and_an_invocation_has_none(
    ending: Ending, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    show_ending(ending, ORDER)
    assert capsys.readouterr().out.splitlines() == ["", *lines]
    executed = replace(ending, arn=EXECUTION)
    show_ending(executed, ORDER)
    assert capsys.readouterr().out.splitlines() == ["", *lines, "Report:", f"   ./pg-hotfix report {EXECUTION}"]
    assert (EXECUTION in executed.as_json()) is bool(ending.error)
    show_ending(executed, Order("gate", stack="pg-hotfix-prod"))
    assert capsys.readouterr().out.splitlines() == ["", *lines]


def test_the_line_to_type_next_is_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    output = {"result": "would_apply", "summary": "It is missing.", "plan": SEEN}
    show_ending(Ending(output, arn=EXECUTION), replace(ORDER, action="plan"))
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "Report:",
        f"   ./pg-hotfix report {EXECUTION}",
        "Next:",
        f"   ./pg-hotfix apply {HOTFIX} --env prod --reason INC-4711 --plan-hash 57b1",
    ]


# The stack


def test_an_environment_is_a_section_of_samconfig() -> None:
    assert {name: parameters["stack_name"] for name, parameters in environments().items()} == {
        "dev": "pg-hotfix-dev",
        "staging": "pg-hotfix-staging",
        "prod": "pg-hotfix-prod",
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[qa.global.parameters]\nstack_name = "x"\n', {"qa": "x"}),
        ('[qa.global.parameters]\nstack_name = "x"\n[qa.deploy.parameters]\nstack_name = "y"\n', {"qa": "y"}),
        ("version = 0.1\n[extra.build.parameters]\ncached = true\n", {}),
    ],
)
def test_sections_of_other_shapes_are_read_as_sam_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: dict[str, str]
) -> None:
    monkeypatch.setattr(stack, "SAMCONFIG", tmp_path / "samconfig.toml")
    stack.SAMCONFIG.write_text(text)
    assert {name: one["stack_name"] for name, one in environments().items()} == found


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "SAMCONFIG", tmp_path / "samconfig.toml")
    with pytest.raises(LocalError, match=r"samconfig\.toml can't be read: .* Nothing was started\."):
        environments()
    stack.SAMCONFIG.write_text("[")
    with pytest.raises(LocalError, match=r"samconfig\.toml can't be read: "):
        environments()


def test_a_command_to_type_stands_on_the_last_line() -> None:
    error = explain(refusal("ThrottlingException", "Rate exceeded"), "It failed", "It goes on.", "To follow it:  ./x")
    assert str(error) == "It failed (ThrottlingException: Rate exceeded). It goes on.\nTo follow it:  ./x"


def test_a_runner_without_an_address_names_no_run() -> None:
    assert run_of_pipeline({"GITHUB_RUN_ID": "5"}) == ""


def test_another_environment_is_refused_with_those_that_exist() -> None:
    with pytest.raises(LocalError) as refused:
        find_stack("production", "")
    assert str(refused.value) == (
        "samconfig.toml has no environment 'production'. Nothing was started. Its environments are dev, staging, prod."
        " Or name the stack:  --stack pg-hotfix-prod"
    )


def test_without_a_region_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(LocalError) as refused:
        find_stack("prod", "")
    assert str(refused.value) == (
        "No AWS region is set. Nothing was started. Set the stack's region:  export AWS_REGION=sa-east-1"
    )


def refusal(
    code: str, message: str, call: str = "StartExecution", status: int = 400, tries: int = 1
) -> exceptions.ClientError:
    metadata: Any = {"HTTPStatusCode": status, "RetryAttempts": tries - 1}
    return exceptions.ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, call)


NOT_KNOWN = "Whether it was started is not known; the same command again is safe."
REFUSALS: list[tuple[Exception, str]] = [
    (
        refusal("AccessDeniedException", "User: arn:aws:iam::1:user/ana is not authorized to perform: states:X"),
        """It failed: it is not allowed (User: arn:aws:iam::1:user/ana is not authorized to perform: states:X).
        Nothing was started. Ask whoever administers the account for it.""",
    ),
    (
        refusal("ExpiredTokenException", "The security token included in the request is expired"),
        """AWS does not accept these credentials (ExpiredTokenException: The security token included in the request is
        expired). Nothing was started. Log in again: aws sso login, or renew the variables AWS_ACCESS_KEY_ID, ... of
        this shell.""",
    ),
    (
        refusal("ResourceNotFoundException", "Function not found", "Invoke", 404),
        """It failed: it does not exist (Function not found). Nothing was started. Check AWS_PROFILE, AWS_REGION and
        --stack, or deploy it first.""",
    ),
    (
        refusal("TooManyRequestsException", "Rate exceeded."),
        "It failed (TooManyRequestsException: Rate exceeded). Nothing was started.",
    ),
    (
        refusal("ThrottlingException", "Rate exceeded", tries=4),
        f"It failed (ThrottlingException: Rate exceeded). {NOT_KNOWN}",
    ),
    (
        refusal("ServiceException", "Internal", "Invoke", 500),
        f"It failed (ServiceException: Internal). {NOT_KNOWN}",
    ),
    (
        refusal("AccessDeniedException", "No", "DescribeExecution"),
        f"It failed: it is not allowed (No). {NOT_KNOWN} Ask whoever administers the account for it.",
    ),
    (
        exceptions.UnauthorizedSSOTokenError(),
        f"""There are no AWS credentials (The SSO session associated with this profile has expired or is otherwise
        invalid. To refresh this SSO session run aws sso login with the corresponding profile). {NOT_KNOWN} Log
        in: aws sso login, or set AWS_PROFILE.""",
    ),
    (
        exceptions.EndpointConnectionError(endpoint_url="https://x"),
        f"""It failed (Could not connect to the endpoint URL: "https://x"). {NOT_KNOWN} Check the network and
        the region.""",
    ),
    (
        exceptions.ReadTimeoutError(endpoint_url="https://x"),
        f"""It failed (Read timeout on endpoint URL: "https://x"). {NOT_KNOWN} Check the network and the region.""",
    ),
]


@pytest.mark.parametrize(("error", "text"), REFUSALS, ids=[type(error).__name__ for error, _ in REFUSALS])
def test_each_refusal_says_what_to_do(error: Exception, text: str) -> None:
    assert str(explain(error, "It failed", state_of(error))).split() == text.split()


# The steps of an execution

AT = datetime(2026, 2, 12, 12, 31, 7, tzinfo=UTC)
LOCK_BUSY = "public.drivers stayed locked for 30 s.\nIn the way: pid 4711 (billing)."
EVENTS: list[dict[str, Any]] = [
    {"type": "ExecutionStarted"},
    {"type": "PassStateEntered", "stateEnteredEventDetails": {"name": "ReadRequest"}},
    {"type": "TaskStateEntered", "stateEnteredEventDetails": {"name": "Apply"}},
    {"type": "TaskScheduled"},
    {
        "type": "TaskFailed",
        "taskFailedEventDetails": {
            "error": "LockBusyError",
            "cause": '{"errorMessage": "' + LOCK_BUSY.replace("\n", "\\n") + '", "errorType": "LockBusyError"}',
        },
    },
    {"type": "TaskScheduled"},
    {"type": "TaskTimedOut", "taskTimedOutEventDetails": {"error": "States.Timeout"}},
    {"type": "TaskScheduled"},
    {"type": "TaskSucceeded"},
    {"type": "TaskStateEntered", "stateEnteredEventDetails": {"name": "Verify"}},
    {"type": "TaskScheduled"},
]


def recorded() -> Any:
    """A client whose only execution has this history, in two pages."""
    pages = [{"events": [{"timestamp": AT} | event for event in events]} for events in (EVENTS[:4], EVENTS[4:])]
    paginator = SimpleNamespace(paginate=lambda executionArn: pages)  # noqa: N803
    return SimpleNamespace(get_paginator=lambda name: paginator)


def test_a_history_is_read_as_steps_with_their_attempts() -> None:
    assert read_steps(recorded(), "arn") == [
        Step(AT, "ReadRequest", "Pass"),
        Step(AT, "Apply", "Task"),
        Step(AT, "Apply", "Task", 1, "LockBusyError", LOCK_BUSY),
        Step(AT, "Apply", "Task", 2),
        Step(AT, "Apply", "Task", 2, "States.Timeout"),
        Step(AT, "Apply", "Task", 3),
        Step(AT, "Verify", "Task"),
    ]


def test_steps_that_take_time_are_shown_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    for step in read_steps(recorded(), "arn"):
        show_step(step)
    assert capsys.readouterr().out.splitlines() == [
        "   12:31:07  Apply",
        "   12:31:07  Apply: LockBusyError. public.drivers stayed locked for 30 s. In the way: pid 4711 (billing).",
        "   12:31:07  Apply, attempt 2",
        "   12:31:07  Apply: States.Timeout",
        "   12:31:07  Apply, attempt 3",
        "   12:31:07  Verify",
    ]
