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
from laptop.machine import DEFINITION, ENDPOINT, MIGRATE, PARAMETERS, REPORT, fill_in, substitute
from laptop.places import PROJECT
from pg_hotfix import errors
from pg_hotfix_endpoint import app as endpoint
from pg_hotfix_report import explain, search
from tests.conftest import require_or_skip

if TYPE_CHECKING:
    from pathlib import Path

TEXT = DEFINITION.read_text()
# As a stack with both checks fills it in.
VALUES = fill_in(
    PARAMETERS | {"EndpointUrl": "https://api.kaviar.example/", "ApplicationLogGroup": "/ecs/kaviar"},
    "arn:aws:sns:sa-east-1:123456789012:Automation-pg-hotfix-prod",
)
MACHINE: dict[str, Any] = yaml.safe_load(substitute(TEXT, VALUES))
STATES: dict[str, dict[str, Any]] = MACHINE["States"]
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}
INVOKED = {name: task for name, task in TASKS.items() if task["Resource"].endswith(":::lambda:invoke")}
OF_FUNCTION = {name: task for name, task in INVOKED.items() if task["Parameters"]["FunctionName"] == MIGRATE}

SUBSTITUTIONS = {
    *("Partition", "MigrateFunctionArn", "ReportFunctionArn", "EndpointFunctionArn", "TopicArn"),
    *("CallEndpoint", "WatchLog"),
}
WATCH_MINUTES = 5
# How often a state may run in one execution, if not once.
RUNS = {"WaitAMinute": WATCH_MINUTES, "SearchLog": WATCH_MINUTES}
MOST_STATES = 25
MOST_LINES = 400

FUNCTIONS_OWN = {cls.__name__: cls for cls in errors.HotfixError.__subclasses__()}
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
OF_SEARCH = {
    search.LogUnavailableError.__name__: True,
    search.ErrorsContinueError.__name__: False,
    search.WatchError.__name__: False,
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


# Errors


def test_every_error_that_is_retried_or_caught_exists() -> None:
    known = FUNCTIONS_OWN.keys() | OF_STEP_FUNCTIONS | OF_LAMBDA | OF_ENDPOINT.keys() | OF_SEARCH.keys()
    named = {name for task in TASKS.values() for name in retried(task) + caught(task)}
    assert named <= known
    assert named >= OF_LAMBDA, "a name in this test that nothing uses"


def test_every_error_that_is_given_another_name_has_one_that_nobody_else_uses() -> None:
    assert {state["Error"] for state in STATES.values() if "Error" in state} <= explain.NAMES
    assert not explain.NAMES & FUNCTIONS_OWN.keys()
    # Step Functions keeps the prefix States. to itself, and a name with a dot would be taken for one of AWS's.
    assert not [name for name in explain.NAMES | FUNCTIONS_OWN.keys() | OF_SEARCH.keys() if "." in name]


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
    selected = {name: task.get("ResultSelector") for name, task in INVOKED.items()}
    for name, key in {"Plan": "plan", "Apply": "apply", "Verify": "verify"}.items():
        assert selected.pop(name) == {
            f"{key}.$": "$.Payload",
            "result.$": "$.Payload.result",
            "summary.$": "$.Payload.summary",
        }
    # These functions answer so or fail: test_endpoint.py, test_log_search.py.
    assert selected == {
        "CallEndpoint": {"status.$": "$.Payload.status"},
        "SearchLog": {"minutes.$": "$.Payload.minutes"},
        "Report": None,
    }
    assert {name: task["OutputPath"] for name, task in TASKS.items() if "OutputPath" in task} == {"Report": "$.Payload"}


def test_an_answer_is_in_the_data_once_so_that_only_a_task_makes_them_grow() -> None:
    for name, key in {"Plan": "KeepAnswer", "Apply": "KeepAnswer", "Verify": "KeepVerify"}.items():
        assert (TASKS[name]["ResultPath"], TASKS[name]["Next"]) == ("$.run.answer", key)
        keep = STATES[key]
        # What is merged takes the place of all that was in `run`, the answer itself included.
        assert (keep["Type"], keep["ResultPath"], list(keep["Parameters"])) == ("Pass", "$.run", ["output.$"])
        merged = re.fullmatch(r"States\.JsonMerge\((\S+), (\S+), false\)", keep["Parameters"]["output.$"])
        assert merged
        assert sorted(merged.groups()) == ["$.run.answer", "$.run.output"]


def test_a_failure_ends_as_a_failure_with_its_own_name_and_text() -> None:
    assert STATES["Failed"] == {"Type": "Fail", "ErrorPath": "$.failure.Error", "CausePath": "$.failure.Cause"}
    caught_by = {name: task["Catch"][0] for name, task in TASKS.items()}
    assert {
        name: catcher["Next"] for name, catcher in caught_by.items() if catcher["ResultPath"] == "$.failure"
    } == dict.fromkeys(TASKS.keys() - {"Report", "Publish"}, "Report")


def test_a_report_or_a_message_that_fails_changes_no_verdict() -> None:
    for name, path in {"Report": "$.unreported", "Publish": "$.unsent"}.items():
        assert (TASKS[name]["Catch"][0]["ResultPath"], TASKS[name]["Catch"][0]["Next"]) == (path, "HasFailed")
    reserved, any_other = STATES["HasFailed"]["Choices"]
    present = {"Variable": "$.failure.Error", "IsPresent": True}
    matches = {"Variable": "$.failure.Error", "StringMatches": "States.*"}
    assert reserved == {"And": [present, matches], "Next": "FailedUnexplained"}
    assert any_other == present | {"Next": "Failed"}
    assert STATES["HasFailed"]["Default"] == "Done"


def test_a_revert_is_run_as_an_apply_and_followed_by_no_look_for_the_column() -> None:
    revert = {"Variable": "$.run.output.request.action", "StringEquals": "revert"}
    assert revert | {"Next": "Apply"} in STATES["ChooseAction"]["Choices"]
    assert STATES["ChooseNext"]["Choices"][0] == revert | {"Next": "Report"}


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
    of_report = template["Resources"]["ReportFunction"]["Properties"]["Timeout"]
    # A search begins no page after its limit, and tries the last one twice, with a pause of at most a second between.
    assert of_report > search.MOST_SECONDS + 2 * (search.CONNECT_SECONDS + search.READ_SECONDS) + 1
    assert all(of_report + 10 < STATES[name]["TimeoutSeconds"] for name in ("SearchLog", "Report"))
    whole = sum(worst_seconds(state) * RUNS.get(name, 1) for name, state in STATES.items())
    assert whole < MACHINE["TimeoutSeconds"] < whole * 1.1


def test_the_log_is_searched_each_minute_for_five_minutes() -> None:
    assert STATES["WaitAMinute"] == {"Type": "Wait", "Seconds": 60, "Next": "SearchLog"}
    assert STATES["SearchLog"]["Next"] == "ChooseCheck"
    minutes = {"Variable": "$.run.output.watch.minutes", "NumericLessThan": WATCH_MINUTES}
    assert [choice for choice in STATES["ChooseCheck"]["Choices"] if minutes in choice["And"]]
    assert TEXT.count("NumericLessThan") == 1


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
    with pytest.raises(LocalError, match=r"hotfix\.asl\.yaml has no substitution WatchMinutes\."):
        substitute(TEXT, {"WatchMinutes": "5"})


def test_every_resource_is_one_of_any_partition() -> None:
    resources = {state["Resource"] for state in yaml.safe_load(TEXT)["States"].values() if "Resource" in state}
    assert resources == {"arn:${Partition}:states:::lambda:invoke", "arn:${Partition}:states:::sns:publish"}


def test_of_the_endpoint_the_status_is_kept_and_whether_to_call_again_is_in_the_errors_name() -> None:
    call = STATES["CallEndpoint"]
    assert call["Parameters"] == {"FunctionName": ENDPOINT, "Payload": {}}
    assert {name: name in retried(call) for name in OF_ENDPOINT} == OF_ENDPOINT
    assert set(retried(call)) - OF_ENDPOINT.keys() == OF_LAMBDA | {"States.Timeout"}


def test_of_the_log_minutes_are_kept_and_whether_to_search_again_is_in_the_errors_name() -> None:
    search_log = STATES["SearchLog"]
    payload = {"task": "search_log", "state": {"run.$": "$.run"}}
    assert search_log["Parameters"] == {"FunctionName": REPORT, "Payload": payload}
    assert {name: name in retried(search_log) for name in OF_SEARCH} == OF_SEARCH
    assert set(retried(search_log)) - OF_SEARCH.keys() == OF_LAMBDA | {"States.Timeout"}


def test_the_report_function_gets_all_data_and_whoever_is_told_is_told_by_its_message() -> None:
    assert STATES["Report"]["Parameters"] == {
        "FunctionName": REPORT,
        "Payload": {
            "task": "report",
            "execution": {
                "arn.$": "$.arn",
                "started.$": "$$.Execution.StartTime",
                "ended.$": "$$.State.EnteredTime",
            },
            "state.$": "$",
        },
    }
    assert STATES["IsMessageWritten"]["Choices"] == [{"Variable": "$.message", "IsPresent": True, "Next": "Publish"}]


# The whole


def test_every_state_can_be_reached_and_every_next_one_exists() -> None:
    reached: set[str] = set()
    ahead = {MACHINE["StartAt"]}
    while ahead:
        name = ahead.pop()
        reached.add(name)
        ahead |= successors(STATES[name]) - reached
    assert reached == STATES.keys()


def test_the_execution_ends_as_a_success_or_as_a_failure() -> None:
    assert {name: state["Type"] for name, state in STATES.items() if not successors(state)} == {
        "Done": "Succeed",
        "Failed": "Fail",
        "FailedUnexplained": "Fail",
    }


def test_it_stays_short_enough_to_be_read() -> None:
    assert len(STATES) <= MOST_STATES
    assert len(TEXT.splitlines()) <= MOST_LINES


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
