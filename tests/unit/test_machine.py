"""The definition of the state machine: every name in it exists, every time-out lies within the next."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from samcli.yamlhelper import yaml_parse  # type: ignore[import-untyped]

from laptop.errors import LocalError
from laptop.machine import DEFINITION, ENDPOINT, MIGRATE, REPORT, default_values, substitute
from laptop.places import PROJECT
from pg_hotfix import errors
from pg_hotfix_endpoint import app as endpoint
from tests.conftest import require_or_skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = DEFINITION.read_text()
# What a stack may fill in: values with all that a value may hold.
VALUES = default_values("arn:aws:sns:sa-east-1:123456789012:pg-hotfix-prod") | {
    "StackName": "a-long-name-of-pg-hotfix-prod1",
    "EnvironmentName": "a-long-name-of-prod1",
    "CallEndpoint": "true",
    "EndpointUrl": "https://api.kaviar.example/api/admin/drivers/1?fields=id,name&x=%7B%7D",
    "WatchLog": "true",
    "ApplicationLogGroup": "/ecs/kaviar",
    "ErrorPatternBase64": "eyAkLmVycm9yID0gIlAyMDIyIiB9",
    "WatchMinutes": "30",
}
MACHINE: dict[str, Any] = yaml.safe_load(substitute(TEXT, VALUES))
STATES: dict[str, dict[str, Any]] = MACHINE["States"]
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}
INVOKED = {name: task for name, task in TASKS.items() if task["Resource"].endswith(":::lambda:invoke")}
OF_FUNCTION = {name: task for name, task in INVOKED.items() if task["Parameters"]["FunctionName"] == MIGRATE}

SUBSTITUTIONS = {
    *("Partition", "MigrateFunctionArn", "ReportFunctionArn", "TopicArn", "StackName", "EnvironmentName"),
    *("CallEndpoint", "EndpointUrl", "EndpointMethod", "EndpointFunctionArn"),
    *("WatchLog", "ApplicationLogGroup", "ErrorPatternBase64", "WatchMinutes"),
}
# How often a state may run in one execution, if not once. The template bounds the minutes by the same number.
LONGEST_WATCH_MINUTES = 30
RUNS = {"WaitAMinute": LONGEST_WATCH_MINUTES, "ReadLog": LONGEST_WATCH_MINUTES, "ReadNextPage": 200}
LONGEST_SUBJECT = 100

FUNCTIONS_OWN = {cls.__name__: cls for cls in errors.HotfixError.__subclasses__()}
MACHINES_OWN = {"EndpointCheckError", "ErrorsContinueError", "FunctionCallError", "WatchError"}
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
OF_STEP_FUNCTIONS = {"States.ALL", "States.DataLimitExceeded", "States.TaskFailed", "States.Timeout"}
OF_ENDPOINT = {endpoint.EndpointUnavailableError.__name__: True, endpoint.EndpointRefusedError.__name__: False}
OF_LAMBDA = {
    # https://docs.aws.amazon.com/step-functions/latest/dg/sfn-best-practices.html#bp-lambda-serviceexception
    *("Lambda.AWSLambdaException", "Lambda.ClientExecutionTimeoutException", "Lambda.SdkClientException"),
    *("Lambda.ServiceException", "Lambda.TooManyRequestsException", "Lambda.Unknown", "Sandbox.Timedout"),
    # https://docs.aws.amazon.com/lambda/latest/dg/troubleshooting-invocation.html
    "Runtime.ExitError",
    # https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors
    *("Lambda.CodeArtifactUserPendingException", "Lambda.ResourceConflictException"),
    *("Lambda.EC2ThrottledException", "Lambda.EC2UnexpectedException"),
    *("Lambda.ENINotReadyException", "Lambda.ResourceNotReadyException"),
}
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html#API_FilterLogEvents_Errors
# and the names that any service of the SDK has:
# https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
OF_LOGS = {
    *("CloudWatchLogs.CloudWatchLogsException", "CloudWatchLogs.SdkClientException"),
    *("CloudWatchLogs.ServiceUnavailableException", "CloudWatchLogs.ThrottlingException"),
}


def retried(task: dict[str, Any]) -> list[str]:
    return [name for retrier in task["Retry"] for name in retrier["ErrorEquals"]]


def caught(task: dict[str, Any]) -> list[str]:
    return [name for catcher in task["Catch"] for name in catcher["ErrorEquals"]]


def successors(state: dict[str, Any]) -> set[str]:
    return {
        *(rule["Next"] for rule in [state, *state.get("Choices", []), *state.get("Catch", [])] if "Next" in rule),
        *([state["Default"]] if "Default" in state else []),
    }


def values_of(part: Any) -> Iterator[Any]:
    """Every value in it that is no list and no object."""
    if isinstance(part, dict | list):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from values_of(inner)
    else:
        yield part


# Errors


def test_every_error_that_is_retried_or_caught_exists() -> None:
    known = FUNCTIONS_OWN.keys() | OF_STEP_FUNCTIONS | OF_LAMBDA | OF_ENDPOINT.keys() | OF_LOGS
    named = {name for task in TASKS.values() for name in retried(task) + caught(task)}
    assert named <= known
    assert named >= (OF_LAMBDA | OF_LOGS), "a name in this test that nothing uses"


def test_every_error_that_the_machine_raises_is_its_own() -> None:
    raised = {state["Parameters"]["Error"] for state in STATES.values() if "Error" in state.get("Parameters", {})}
    assert raised == MACHINES_OWN
    assert not raised & FUNCTIONS_OWN.keys()
    # Step Functions keeps this prefix to itself, and a name with a dot would be taken for one of AWS's.
    assert not [name for name in raised | FUNCTIONS_OWN.keys() if "." in name]


@pytest.mark.parametrize("name", OF_FUNCTION)
def test_what_the_function_calls_retryable_is_retried_and_nothing_else_of_it(name: str) -> None:
    retryable = {name for name, cls in FUNCTIONS_OWN.items() if cls.retryable}
    assert {error for error in retried(OF_FUNCTION[name]) if error in FUNCTIONS_OWN} == retryable
    assert set(retried(OF_FUNCTION[name])) - FUNCTIONS_OWN.keys() == OF_LAMBDA | {"States.Timeout"}
    assert len(retried(OF_FUNCTION[name])) == len(set(retried(OF_FUNCTION[name])))


def test_every_subclass_of_the_functions_error_is_a_direct_one() -> None:
    assert not [cls for cls in FUNCTIONS_OWN.values() if cls.__subclasses__()]


def test_the_function_is_invoked_alike_everywhere() -> None:
    assert set(OF_FUNCTION) == {"Plan", "Apply", "Verify"}
    first, *others = ({key: task[key] for key in ("Retry", "Catch", "TimeoutSeconds")} for task in OF_FUNCTION.values())
    assert [first] * 2 == others


def test_a_busy_lock_is_waited_for_with_patience_and_all_else_with_haste() -> None:
    patient, hasty = OF_FUNCTION["Apply"]["Retry"]
    assert patient == {
        "ErrorEquals": ["LockBusyError"],
        "IntervalSeconds": 60,
        "BackoffRate": 1.5,
        "MaxDelaySeconds": 300,
        "MaxAttempts": 10,
        "JitterStrategy": "FULL",
    }
    assert (hasty["IntervalSeconds"], hasty["BackoffRate"], hasty["MaxDelaySeconds"]) == (2, 2, 30)
    assert hasty["JitterStrategy"] == "FULL"


@pytest.mark.parametrize("name", TASKS)
def test_every_task_ends_and_no_failure_of_it_is_lost(name: str) -> None:
    task = TASKS[name]
    assert task["TimeoutSeconds"] > 0
    # States.ALL leaves it out.
    too_large, all_else = task["Catch"]
    assert too_large == all_else | {"ErrorEquals": ["States.DataLimitExceeded"]}
    assert all_else["ErrorEquals"] == ["States.ALL"]
    assert all_else["ResultPath"].startswith("$."), "the data so far would be lost"


def test_no_retry_repeats_what_is_too_large_again() -> None:
    named = {name for task in TASKS.values() for name in retried(task)}
    assert not named & {"States.ALL", "States.DataLimitExceeded", "States.Runtime"}


def test_no_task_raises_what_nothing_catches() -> None:
    """States.Runtime: an HTTP task does, for an endpoint that answers a picture, and a JSONPath that finds nothing."""
    assert not [name for name, task in TASKS.items() if ":::http:invoke" in task["Resource"]]
    selected = {name: sorted(task.get("ResultSelector", {}).items()) for name, task in INVOKED.items()}
    answered = {"Plan": "plan", "Apply": "apply", "Verify": "verify"}
    for name, key in answered.items():
        assert selected.pop(name) == sorted(
            [(f"{key}.$", "$.Payload"), ("result.$", "$.Payload.result"), ("summary.$", "$.Payload.summary")]
        )
    # Both functions answer these or fail: test_endpoint.py, test_report.py.
    assert selected == {
        "CallEndpoint": [("status.$", "$.Payload.status")],
        "KeepReport": [("json.$", "$.Payload.json"), ("markdown.$", "$.Payload.markdown")],
    }


def test_an_answer_is_in_the_data_once_so_that_only_a_task_makes_them_grow() -> None:
    for name, key in {"Plan": "KeepPlan", "Apply": "KeepApply", "Verify": "KeepVerify"}.items():
        assert (TASKS[name]["ResultPath"], TASKS[name]["Next"]) == ("$.run.answer", key)
        keep = STATES[key]
        # What is merged takes the place of all that was in `run`, the answer itself included.
        assert (keep["Type"], keep["ResultPath"], list(keep["Parameters"])) == ("Pass", "$.run", ["output.$"])
        merged = re.fullmatch(r"States\.JsonMerge\((\S+), (\S+), false\)", keep["Parameters"]["output.$"])
        assert merged
        assert sorted(merged.groups()) == ["$.run.answer", "$.run.output"]


def test_every_text_that_is_read_from_a_cause_was_asked_for_before() -> None:
    """What a Pass does not find ends the execution without a report."""
    readers = {name: state for name, state in STATES.items() if "States.StringToJson($.failure.Cause)" in str(state)}
    assert set(readers) == {"ParseCause", "ParseEndpointCause"}
    for name in readers:
        (choice,) = [
            choice for state in STATES.values() for choice in state.get("Choices", []) if choice["Next"] == name
        ]
        assert {"Variable": "$.failure.Cause", "IsPresent": True} in choice["And"]
        assert {"Variable": "$.failure.Cause", "StringMatches": '{*"errorMessage"*}'} in choice["And"]


def test_a_failure_ends_as_a_failure_with_its_own_name_and_text() -> None:
    assert STATES["Failed"] == {"Type": "Fail", "ErrorPath": "$.failure.Error", "CausePath": "$.failure.Cause"}
    caught_by = {name: task["Catch"][0] for name, task in TASKS.items()}
    assert {name for name, catcher in caught_by.items() if catcher["ResultPath"] == "$.failure"} == TASKS.keys() - {
        "KeepReport",
        "Publish",
    }


def test_a_report_is_kept_of_all_but_looks_and_its_failure_changes_nothing() -> None:
    keep = STATES["KeepReport"]
    assert keep["Parameters"]["FunctionName"] == REPORT
    assert keep["Next"] == keep["Catch"][0]["Next"] == "IsReportWanted"
    assert (keep["ResultPath"], keep["Catch"][0]["ResultPath"]) == ("$.run.output.report", "$.unkept")
    assert {name for name, state in STATES.items() if "KeepReport" in successors(state)} == {
        *("IsFailureToReport", "IsWatchWanted", "NoteWatch", "NoteReverted"),
    }
    # Whatever has failed before is told, and ends as a failure.
    assert STATES["IsReportWanted"]["Choices"][0] == {
        "Variable": "$.failure.Error",
        "IsPresent": True,
        "Next": "IsRequestNamed",
    }


def test_a_revert_is_run_as_an_apply_and_followed_by_no_look_for_the_column() -> None:
    revert = {"Variable": "$.run.output.request.action", "StringEquals": "revert"}
    assert revert | {"Next": "Apply"} in STATES["ChooseAction"]["Choices"]
    assert STATES["KeepApply"]["Next"] == "IsReverted"
    assert STATES["IsReverted"]["Choices"] == [revert | {"Next": "NoteReverted"}]
    assert STATES["NoteReverted"]["Parameters"].keys() == {
        *("request.$", "who.$", "why.$", "endpoint", "log"),
    }, "a word of the report would be lost"


def test_the_cause_is_read_as_json_only_if_it_looks_like_the_functions_answer() -> None:
    leading = {name for name, state in STATES.items() if "ParseCause" in successors(state)}
    assert leading == {"ReadFailure"}
    present, form = STATES["ReadFailure"]["Choices"][0]["And"]
    assert present == {"Variable": "$.failure.Cause", "IsPresent": True}
    assert form == {"Variable": "$.failure.Cause", "StringMatches": '{*"errorMessage"*}'}


# Time


def delays(retrier: dict[str, Any]) -> float:
    """The seconds that all its retries wait at most: the jitter is between nothing and this."""
    intervals = [retrier["IntervalSeconds"] * retrier["BackoffRate"] ** n for n in range(retrier["MaxAttempts"])]
    return float(sum(min(interval, retrier["MaxDelaySeconds"]) for interval in intervals))


def worst_seconds(state: dict[str, Any]) -> float:
    if state["Type"] != "Task":
        return float(state.get("Seconds", 0))
    attempts: int = 1 + sum(retrier["MaxAttempts"] for retrier in state["Retry"])
    return attempts * float(state["TimeoutSeconds"]) + sum(map(delays, state["Retry"]))


def test_every_time_out_lies_within_the_next() -> None:
    template = yaml_parse((PROJECT / "template.yaml").read_text())
    function = template["Globals"]["Function"]["Timeout"]
    assert all(function + 10 < task["TimeoutSeconds"] for task in OF_FUNCTION.values())
    of_endpoint = template["Resources"]["EndpointFunction"]["Properties"]["Timeout"]
    assert 2 * endpoint.SECONDS + 5 < of_endpoint < STATES["CallEndpoint"]["TimeoutSeconds"]
    whole = sum(worst_seconds(state) * RUNS.get(name, 1) for name, state in STATES.items())
    assert whole < MACHINE["TimeoutSeconds"] < whole * 1.1


def test_the_log_is_given_up_after_as_many_pages_as_the_time_is_made_for() -> None:
    *token, pages = STATES["JudgeLog"]["Choices"][1]["And"]
    assert token == STATES["JudgeLog"]["Choices"][2]["And"]
    assert pages == {"Variable": "$.watch.pages", "NumericGreaterThanEquals": RUNS["ReadNextPage"]}
    assert f"more than {RUNS['ReadNextPage']} pages" in STATES["NoteTooManyPages"]["Result"]["what"]
    assert STATES["WaitAMinute"]["Seconds"] == 60


def test_whoever_names_200_says_up_to_which_status_it_is_a_success() -> None:
    told = 0
    for name in ("docs/ways-to-run.md", "docs/runbook.md", "docs/deploy.md", "template.yaml"):
        text = " ".join((PROJECT / name).read_text().split())
        named = re.findall(r"(?:answers?|answered|expects|see|status|from) (?:\{\} instead of )?200\b.{0,7}", text)
        assert [one for one in named if not one.endswith(" to 299")] == [], name
        told += len(named)
    assert told >= 6


# What goes in and out


def test_the_substitutions_are_those_that_the_template_gives() -> None:
    assert set(re.findall(r"\$\{(\w*)\}", TEXT)) == SUBSTITUTIONS == VALUES.keys()


def test_a_value_that_the_definition_has_no_place_for_is_refused() -> None:
    with pytest.raises(LocalError, match=r"hotfix\.asl\.yaml has no substitution WatchMinute\."):
        substitute(TEXT, {"WatchMinute": "5"})


def test_only_values_without_a_quote_are_written_into_an_intrinsic_function() -> None:
    written = {
        name
        for value in values_of(yaml.safe_load(TEXT))
        if isinstance(value, str) and value.startswith("States.")
        for name in re.findall(r"\$\{(\w+)\}", value)
    }
    assert written == {"EnvironmentName", "WatchMinutes"}


def test_every_resource_is_one_of_any_partition() -> None:
    resources = {state["Resource"] for state in yaml.safe_load(TEXT)["States"].values() if "Resource" in state}
    assert resources == {
        "arn:${Partition}:states:::lambda:invoke",
        "arn:${Partition}:states:::aws-sdk:cloudwatchlogs:filterLogEvents",
        "arn:${Partition}:states:::sns:publish",
    }


def test_of_the_endpoint_the_status_is_kept_and_whether_to_call_again_is_in_the_errors_name() -> None:
    call = STATES["CallEndpoint"]
    assert call["Parameters"] == {"FunctionName": ENDPOINT, "Payload": {}}
    assert call["ResultSelector"] == {"status.$": "$.Payload.status"}
    assert {name: name in retried(call) for name in OF_ENDPOINT} == OF_ENDPOINT
    assert set(retried(call)) - OF_ENDPOINT.keys() == OF_LAMBDA | {"States.Timeout"}


def test_no_line_of_the_log_is_kept() -> None:
    for name in ("ReadLog", "ReadNextPage"):
        found, page = STATES[name]["ResultSelector"].values()
        assert found == "States.ArrayLength($.Events)"
        assert page == (
            "States.JsonMerge($, States.StringToJson(States.Base64Decode('eyJFdmVudHMiOiBudWxsfQ==')), false)"
        )


def test_the_next_page_is_asked_for_as_the_first_one_is() -> None:
    first, following = ({**STATES[name]} for name in ("ReadLog", "ReadNextPage"))
    following["Parameters"] = dict(following["Parameters"])
    assert following["Parameters"].pop("NextToken.$") == "$.read.page.NextToken"
    assert following == first


def test_the_subject_of_a_report_is_short_and_plain() -> None:
    names = FUNCTIONS_OWN.keys() | MACHINES_OWN | OF_LAMBDA | {"already_reverted"}
    for state in ("ReportSuccess", "ReportRevert", "ReportFailure"):
        form = re.match(r"States\.Format\('([^']*)', \$", STATES[state]["Parameters"]["subject.$"])
        assert form
        for name in names:
            subject = form[1].replace("{}", name)
            assert subject.isascii()
            assert len(subject) <= LONGEST_SUBJECT


# The whole


def test_every_state_can_be_reached_and_every_next_one_exists() -> None:
    reached: set[str] = set()
    ahead = {MACHINE["StartAt"]}
    while ahead:
        name = ahead.pop()
        reached.add(name)
        ahead |= successors(STATES[name]) - reached
    assert reached == STATES.keys()


def test_only_two_states_end_the_execution() -> None:
    assert {name for name, state in STATES.items() if not successors(state)} == {"Done", "Failed"}


def test_no_anchor_is_used_because_cloudformation_knows_none() -> None:
    assert not re.search(r":\s+[&*]\w", TEXT)


def test_a_validator_of_the_language_accepts_it(tmp_path: Path) -> None:
    validator = PROJECT / ".local" / "node" / "node_modules" / ".bin" / "asl-validator"
    if not validator.exists():
        require_or_skip("asl-validator is not installed: make .local/node/ready")
    definition = tmp_path / "hotfix.asl.json"
    definition.write_text(json.dumps(MACHINE))
    result = subprocess.run([validator, "--json-path", definition], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
