"""The handler of the dashboard's button, against moto's Step Functions."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from laptop.aws import CREDENTIALS
from pg_hotfix_button import app as button
from pg_hotfix_button import executions
from pg_hotfix_button.executions import describe, list_newest, start_once, wait_until_ended
from pg_hotfix_button.markup import Html
from tests.conftest import PATIENCE_SECONDS, FakeContext, until
from tests.unit.button.test_page import HASH, ID, OLDER, PLAN, Page, parse
from tests.unit.conftest import answer, in_turn, lose, refuse, respond

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from botocore.awsrequest import AWSResponse
    from mypy_boto3_stepfunctions import SFNClient

    from laptop.aws import FakeAws

ENDPOINT = "arn:aws:lambda:sa-east-1:123456789012:function:pg-hotfix-prod-button"
CLICK = {"action": "apply", "hotfix": ID, "plan_hash": HASH}
TYPED = {"reason": "INC-4711", "requested_by": "ana"}
LOOKED = {"result": "would_apply", "summary": "public.drivers.active_since missing.", "plan": PLAN}
APPLIED = {"result": "applied", "summary": "public.drivers.active_since applied, committed and proved."}


def machine_of(plan: dict[str, Any], apply: dict[str, Any]) -> dict[str, Any]:
    """A machine whose plan and apply each are one state."""
    choice = {"Variable": "$.action", "StringEquals": "apply", "Next": "Apply"}
    return {
        "StartAt": "Choose",
        "States": {
            "Choose": {"Type": "Choice", "Choices": [choice], "Default": "Plan"},
            "Plan": plan,
            "Apply": apply,
        },
    }


def returning(output: dict[str, Any]) -> dict[str, Any]:
    return {"Type": "Pass", "Result": output, "End": True}


LOOKING, APPLYING = returning(LOOKED), returning(APPLIED)
LASTING = {"Type": "Wait", "Seconds": 60, "End": True}
FAILING = {"Type": "Fail", "Error": "LockBusyError", "Cause": "public.drivers stayed locked.\nIn the way: pid 4711."}


@dataclass
class Dashboard:
    """One dashboard's widget, and the state machine behind it."""

    client: SFNClient
    machine_arn: str

    def call(self, event: dict[str, Any] | None = None, **widget: Any) -> Page:
        context = {"params": {}, "forms": {"all": TYPED}, "theme": "light"} | widget
        answered = button.lambda_handler((event or {}) | {"widgetContext": context}, context_of())
        return read(answered)

    @property
    def started(self) -> list[str]:
        return [one["name"].partition("-")[0] for one in list_newest(self.client, self.machine_arn)]


def read(answered: str) -> Page:
    return parse(Html(answered))


def context_of(seconds: float = 30.0) -> Any:
    return FakeContext(seconds, invoked_function_arn=ENDPOINT)


@pytest.fixture
def open_dashboard(
    aws: FakeAws,
    client: SFNClient,
    create: Callable[[dict[str, Any]], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Callable[..., Dashboard]]:
    """Makes the function's environment, with a machine of those two states."""
    for name in (ID, OLDER):
        (tmp_path / f"{name}.sql").write_text("-- a file\n")
    environment = {"AWS_ENDPOINT_URL": aws.endpoint_url, "ENVIRONMENT": "prod", "SQL_DIR": str(tmp_path)}
    for name, value in (CREDENTIALS | environment).items():
        monkeypatch.setenv(name, value)
    button.connect.cache_clear()

    def open_dashboard(plan: dict[str, Any] = LOOKING, apply: dict[str, Any] = APPLYING) -> Dashboard:
        # What lasts is not waited for, and what ends has all the time that a busy machine takes.
        monkeypatch.setattr(button, "LOOK_SECONDS", 1.0 if plan is LASTING else PATIENCE_SECONDS)
        monkeypatch.setattr(button, "APPLY_SECONDS", 1.0 if apply is LASTING else PATIENCE_SECONDS)
        arn = create(machine_of(plan, apply))
        monkeypatch.setenv("STATE_MACHINE_ARN", arn)
        return Dashboard(client, arn)

    yield open_dashboard
    button.connect().close()
    button.connect.cache_clear()


# Looking


def test_a_refresh_looks_at_the_newest_hotfix_and_starts_nothing_else(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard()
    page = dashboard.call()
    assert "Not applied yet" in page.text
    assert page.action("Apply to prod").event == CLICK
    assert page.action(OLDER).event == {"hotfix": OLDER}
    assert {action.attributes["endpoint"] for action in page.actions} == {ENDPOINT}
    assert dashboard.started == ["plan"]


def test_the_parameter_chooses_the_hotfix(open_dashboard: Callable[..., Dashboard]) -> None:
    page = open_dashboard().call({"hotfix": OLDER}, params={"hotfix": OLDER})
    assert page.action("Apply to prod").event["hotfix"] == OLDER
    assert ID in page.labels


def test_two_viewers_share_one_look(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard(plan=LASTING)
    for _ in range(2):
        assert "Planning" in dashboard.call().text
    assert dashboard.started == ["plan"]


def test_where_looks_fill_the_list_there_may_have_been_an_apply_before(
    open_dashboard: Callable[..., Dashboard], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (button, executions):
        monkeypatch.setattr(module, "LOOKED_AT", 2)
    dashboard = open_dashboard()
    dashboard.call(CLICK)
    this_second = int(time.time())
    until(lambda: time.time() >= this_second + 1)  # so that moto lists them in their order
    assert "None yet." not in dashboard.call().text
    dashboard.call()
    assert "None among the last 2." in dashboard.call().text


def test_a_look_ends_before_lambda_does(open_dashboard: Callable[..., Dashboard]) -> None:
    open_dashboard(plan=LASTING)
    context = context_of(seconds=button.RESERVED_SECONDS + 0.5)
    assert "Planning" in read(button.lambda_handler({}, context)).text
    assert context.get_remaining_time_in_millis() > 4000


def test_a_look_that_fails_says_so_and_shows_the_rest(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard(plan=FAILING)
    dashboard.call(CLICK)
    page = dashboard.call()
    assert "LockBusyError: public.drivers stayed locked.\nIn the way: pid 4711." in page.text
    assert "✓ AppliedWhat: apply" in page.text
    assert OLDER in page.labels
    assert "Apply to prod" not in page.labels


def test_executions_are_listed_whoever_named_them_and_looks_are_not(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard(apply=FAILING)
    by_rule = {"action": "apply", "hotfix": ID, "requested_by": "the rule"}
    dashboard.client.start_execution(
        stateMachineArn=dashboard.machine_arn, name="3d0f9a54-6c1e_0b8f", input=json.dumps(by_rule)
    )
    for name, anything in (("a", {"action": "plan", "hotfix": ID}), ("b", {"action": "check"}), ("c", [])):
        text = json.dumps(anything)
        dashboard.client.start_execution(stateMachineArn=dashboard.machine_arn, name=name, input=text)
    page = dashboard.call()
    assert [label for label in page.labels if " " in label] == ["Apply to prod", f"apply {ID}"]
    assert "the rule" in page.text


def test_the_last_apply_is_listed_after_many_looks(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard()
    for name in ("apply-1", *(f"plan-{number}" for number in range(2 * button.SHOWN_EXECUTIONS))):
        text = json.dumps({"action": name.partition("-")[0], "hotfix": ID})
        dashboard.client.start_execution(stateMachineArn=dashboard.machine_arn, name=name, input=text)
    assert f"apply {ID}" in dashboard.call().labels


def test_the_theme_the_zone_and_what_is_typed_are_the_dashboards(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard()
    dashboard.call(CLICK)
    zone = {"label": "Local", "offsetISO": "-03:00", "offsetInMinutes": -180}
    page = dashboard.call(theme="dark", timezone=zone)
    assert "UTC-03:00" in page.text
    assert {"INC-4711", "ana"} <= set(page.values)
    dark, light = (
        button.lambda_handler({"widgetContext": {"theme": theme}}, context_of()) for theme in ("dark", "light")
    )
    assert "#161d26" in dark
    assert "#161d26" not in light


@pytest.mark.parametrize("zone", [None, "x", {"offsetISO": "x"}, {"offsetISO": None}, {}, {"offsetISO": 3}])
def test_a_zone_that_is_none_is_utc(zone: object) -> None:
    assert button.read_zone(zone) is UTC


@pytest.mark.parametrize(("width", "narrow"), [(300, True), (600, False), (0, False), (None, False), ("x", False)])
def test_a_narrow_widget_is_told_by_its_width(
    open_dashboard: Callable[..., Dashboard], width: Any, narrow: bool
) -> None:
    page = open_dashboard().call(width=width)
    assert ("pgh-light pgh-narrow cwdb-no-default-styles" in page.values) is narrow


def test_a_file_that_is_not_packaged_is_refused_with_those_that_are(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard()
    page = dashboard.call({"hotfix": "20200101000000_gone"})
    assert "The function has no hotfix 20200101000000_gone." in page.text
    assert page.labels == [ID, OLDER]
    assert dashboard.started == []


def test_without_any_file_it_says_so(
    open_dashboard: Callable[..., Dashboard], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dashboard = open_dashboard()
    monkeypatch.setenv("SQL_DIR", str(tmp_path / "nowhere"))
    assert "The function has no hotfix" in dashboard.call().text


def test_the_widget_describes_itself_with_its_parameters_in_yaml() -> None:
    described = button.lambda_handler({"describe": True}, context_of())
    (example,) = [part.partition("```")[0] for part in described.split("``` yaml\n")[1:]]
    assert set(yaml.safe_load(example)) == {"hotfix"}
    assert "Whoever may invoke this function may click." in described


# Applying


def test_a_click_applies_once_with_reason_and_name(
    open_dashboard: Callable[..., Dashboard], caplog: pytest.LogCaptureFixture
) -> None:
    dashboard = open_dashboard()
    page = dashboard.call(CLICK)
    assert "✓ Applied" in page.text
    assert APPLIED["summary"] in page.text
    assert dashboard.started == ["apply"]
    (one,) = list_newest(dashboard.client, dashboard.machine_arn)
    execution = wait_until_ended(dashboard.client, one["executionArn"], 0)
    assert execution.request == CLICK | TYPED
    (line,) = [record for record in caplog.records if record.message == "apply started"]
    assert (line.execution, line.requested_by) == (one["executionArn"], "ana")  # type: ignore[attr-defined]


def test_without_reason_and_name_it_applies_too(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard()
    dashboard.call(CLICK, forms={"all": {"reason": "  ", "other": "x"}})
    (one,) = list_newest(dashboard.client, dashboard.machine_arn)
    request = wait_until_ended(dashboard.client, one["executionArn"], 0).request
    assert request == CLICK | {"reason": None, "requested_by": None}


def test_a_second_click_shows_the_apply_that_runs(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard(apply=LASTING)
    first, second = dashboard.call(CLICK), dashboard.call(CLICK)
    assert dashboard.started == ["apply"]
    assert first.action("Look again").event == second.action("Look again").event
    assert "Running" in dashboard.call(first.action("Look again").event).text


def test_a_click_on_another_plan_than_the_one_that_runs_is_refused(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard(apply=LASTING)
    dashboard.call(CLICK)
    page = dashboard.call(CLICK | {"plan_hash": HASH[::-1]})
    assert f"An apply of {ID}, asked for by ana, has been running since 2" in page.text
    assert "Nothing was started. See its steps under Last executions." in page.text
    assert dashboard.started == ["apply"]


def test_an_apply_that_fails_is_shown_as_a_failure(open_dashboard: Callable[..., Dashboard]) -> None:
    page = open_dashboard(apply=FAILING).call(CLICK)
    assert "✗ Failed" in page.text
    assert "public.drivers stayed locked.\nIn the way: pid 4711." in page.text
    assert "✓" not in page.text


@pytest.mark.parametrize("key", ["action", "plan_hash"])
def test_an_apply_that_the_dashboard_itself_carries_is_refused(
    open_dashboard: Callable[..., Dashboard], key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Else every refresh would apply."""
    dashboard = open_dashboard()
    page = dashboard.call(CLICK, params={key: CLICK[key]})
    assert "This apply does not come from a click in the widget." in page.text
    assert "Nothing was started" in page.text
    assert dashboard.started == []
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == ["widget refused"]


@pytest.mark.parametrize("widget", [None, {}, "x", []])
def test_an_apply_from_outside_of_a_dashboard_is_refused(open_dashboard: Callable[..., Dashboard], widget: Any) -> None:
    dashboard = open_dashboard()
    page = read(button.lambda_handler(CLICK | {"widgetContext": widget}, context_of()))
    assert "This apply does not come from a click" in page.text
    assert dashboard.started == []


@pytest.mark.parametrize("plan_hash", [None, "", "x", HASH.upper(), HASH + "\n", [HASH]])
def test_an_apply_without_a_plan_is_refused(open_dashboard: Callable[..., Dashboard], plan_hash: Any) -> None:
    dashboard = open_dashboard()
    assert "The apply names no plan" in dashboard.call(CLICK | {"plan_hash": plan_hash}).text
    assert dashboard.started == []


@pytest.mark.parametrize("hotfix", [None, "", "../secret", "20200101000000_gone", [ID]])
def test_an_apply_of_what_is_not_packaged_is_refused(open_dashboard: Callable[..., Dashboard], hotfix: Any) -> None:
    dashboard = open_dashboard()
    assert "The function has no hotfix" in dashboard.call(CLICK | {"hotfix": hotfix}).text
    assert dashboard.started == []


# Looking again


@pytest.mark.parametrize("change", [lambda arn: arn.replace(":hotfix:", ":hotfix2:"), lambda _: "x", lambda _: ["x"]])
def test_an_execution_of_another_machine_is_refused(
    open_dashboard: Callable[..., Dashboard], change: Callable[[str], Any]
) -> None:
    dashboard = open_dashboard()
    arn = start_once(dashboard.client, dashboard.machine_arn, CLICK)
    assert "is not an execution of this stack's state machine" in dashboard.call({"execution": change(arn)}).text


def test_an_execution_that_never_was_is_told_in_a_sentence(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard()
    arn = f"{dashboard.machine_arn.replace(':stateMachine:', ':execution:')}:never"
    page = dashboard.call({"execution": arn})
    assert "Step Functions refused DescribeExecution (ExecutionDoesNotExist" in page.text
    assert "Nothing was changed: the widget only looked." in page.text


@pytest.mark.parametrize("how", ["ABORTED", "TIMED_OUT"])
def test_an_execution_that_was_ended_from_outside_is_a_failure(
    open_dashboard: Callable[..., Dashboard], how: str
) -> None:
    dashboard = open_dashboard(apply=LASTING)
    again = dashboard.call(CLICK).action("Look again").event
    if how == "ABORTED":
        dashboard.client.stop_execution(executionArn=again["execution"])
        until(lambda: not describe(dashboard.client, again["execution"]).is_running)  # moto takes its time.
    else:  # moto ends none by its time-out
        answer(button.connect(), "DescribeExecution", described_as_timed_out(again["execution"]))
    page = dashboard.call(again)
    assert "✗" in page.text
    assert "Whether it has changed the database is not known here" in page.text


# What goes wrong


def described_as_timed_out(arn: str) -> Callable[..., AWSResponse]:
    name = arn.rpartition(":")[2]
    machine = arn.rpartition(":")[0].replace(":execution:", ":stateMachine:")
    described = {"executionArn": arn, "stateMachineArn": machine, "name": name, "status": "TIMED_OUT"}
    return respond(200, described | {"startDate": 1.77e9, "stopDate": 1.77e9 + 60, "input": json.dumps(CLICK)})


@pytest.mark.parametrize("call", ["ListExecutions", "StartExecution", "DescribeExecution"])
def test_a_permission_that_is_missing_is_named(
    open_dashboard: Callable[..., Dashboard], call: str, caplog: pytest.LogCaptureFixture
) -> None:
    dashboard = open_dashboard()
    answer(button.connect(), call, refuse("AccessDeniedException"))
    page = dashboard.call()
    assert (
        f"The widget's function lacks the permission states:{call} (AccessDeniedException). Nothing was changed: the"
        " widget only looked. Compare ButtonRole with template.yaml, and deploy the stack again."
    ) in page.text
    assert "Traceback" not in page.text
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == ["widget failed"]


def test_a_permission_that_is_missing_for_the_click_says_that_nothing_was_started(
    open_dashboard: Callable[..., Dashboard],
) -> None:
    dashboard = open_dashboard()
    answer(button.connect(), "StartExecution", refuse("AccessDeniedException"))
    assert "Nothing was started and nothing was changed." in dashboard.call(CLICK).text
    assert dashboard.started == []


@pytest.mark.parametrize("call", ["DescribeExecution", "GetExecutionHistory"])
def test_an_apply_that_can_not_be_seen_is_said_to_be_started(
    open_dashboard: Callable[..., Dashboard], call: str, caplog: pytest.LogCaptureFixture
) -> None:
    dashboard = open_dashboard()
    answer(button.connect(), call, refuse("AccessDeniedException"))
    page = dashboard.call(CLICK)
    assert f"The apply was started as apply-{ID}-" in page.text
    assert f"lacks the permission states:{call}" in page.text
    assert dashboard.started == ["apply"]
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == ["widget failed"]


@pytest.mark.parametrize(
    "what",
    [refuse("InternalServerError", 500), refuse("ServiceUnavailable", 503), in_turn(lose, refuse("ExpiredToken", 403))],
)
def test_a_start_that_may_have_happened_is_not_said_to_have_failed(
    open_dashboard: Callable[..., Dashboard], what: Callable[..., AWSResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard = open_dashboard()
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the tries of boto3
    answer(button.connect(), "StartExecution", what)
    page = dashboard.call(CLICK)
    assert "The apply may have been started" in page.text
    assert "A second click starts no second apply" in page.text


def test_an_answer_that_never_comes_is_told_in_a_sentence(
    open_dashboard: Callable[..., Dashboard], monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard = open_dashboard()
    monkeypatch.setattr("time.sleep", lambda _: None)
    answer(button.connect(), "ListExecutions", lose)
    assert "Step Functions did not answer (ReadTimeoutError)." in dashboard.call().text
    assert "The apply may have been started" in dashboard.call(CLICK).text


def test_throttling_is_told_in_a_sentence(
    open_dashboard: Callable[..., Dashboard], monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard = open_dashboard()
    monkeypatch.setattr("time.sleep", lambda _: None)
    answer(button.connect(), "StartExecution", refuse("ThrottlingException"))
    page = dashboard.call()
    assert "Step Functions refused StartExecution (ThrottlingException" in page.text
    assert "Wait a moment, and refresh" in page.text


@pytest.mark.parametrize("name", ["STATE_MACHINE_ARN", "ENVIRONMENT"])
def test_a_setting_that_is_missing_is_named(
    open_dashboard: Callable[..., Dashboard], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard = open_dashboard()
    monkeypatch.delenv(name)
    page = dashboard.call(CLICK)
    assert f"The widget's function lacks the environment variable {name}. Nothing was started" in page.text


def test_a_machine_that_is_gone_is_told_in_a_sentence(open_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = open_dashboard()
    dashboard.client.delete_state_machine(stateMachineArn=dashboard.machine_arn)
    assert "(StateMachineDoesNotExist" in dashboard.call().text


def test_a_defect_is_a_sentence_and_its_trace_is_in_the_log_once(
    open_dashboard: Callable[..., Dashboard], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("<planted>")

    dashboard = open_dashboard()
    monkeypatch.setattr(button, "show_overview", fail)
    page = dashboard.call()
    assert "The widget's function has a defect (ZeroDivisionError at test_button.py:" in page.text
    assert "planted" not in page.text
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.exc_info is not None


@pytest.mark.parametrize("event", [None, [], "x", 3, {"widgetContext": None}, {"execution": {"a": 1}}, {"hotfix": [1]}])
def test_no_event_leaves_the_widget_blank(open_dashboard: Callable[..., Dashboard], event: Any) -> None:
    open_dashboard()
    assert len(read(button.lambda_handler(event, context_of())).text) > 50
