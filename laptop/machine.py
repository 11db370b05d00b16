"""The state machine on 127.0.0.1: its real definition, interpreted by moto, with the emulated function behind it.

Whatever speaks to Step Functions by boto3 works at the fake AWS's endpoint. The smaller functions run in this process.
One integration that moto lacks, `cloudwatchlogs:filterLogEvents`, is done by a stand-in, which takes the definition's
own parameters, asks moto's logs, and answers in AWS's form.
"""

import contextlib
import functools
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from botocore.exceptions import ClientError

from laptop.aws import REGION, FakeAws
from laptop.emulator import EmulatedFunction
from laptop.errors import LocalError
from laptop.functions import endpoint, report
from laptop.interpreter import FunctionError, interpreting, wait_for_threads
from laptop.places import PROJECT

DEFINITION = PROJECT / "statemachine" / "hotfix.asl.yaml"
NAME = "pg-hotfix-local-hotfix"
FUNCTIONS = f"arn:aws:lambda:{REGION}:123456789012:function"
MIGRATE = f"{FUNCTIONS}:pg-hotfix-local-migrate"
REPORT = f"{FUNCTIONS}:pg-hotfix-local-report"
ENDPOINT = f"{FUNCTIONS}:pg-hotfix-local-endpoint"
# What stands in for an integration that moto lacks.
LOGS = f"{FUNCTIONS}:logs"
STAND_INS = {":::aws-sdk:cloudwatchlogs:filterLogEvents": LOGS}


@dataclass(frozen=True)
class Machine:
    endpoint_url: str
    arn: str
    topic_arn: str


@contextlib.contextmanager
def running_machine(
    aws: FakeAws,
    function: EmulatedFunction,
    *,
    minute_seconds: float = 60.0,
    change: Callable[[dict[str, Any]], None] | None = None,
    **values: str,
) -> Iterator[Machine]:
    """Within the block executions can be started; after it none of them runs. One at a time in a process.

    A minute of the definition's waits and retries takes `minute_seconds`; its time-outs stay as they are. `values` are
    the definition's substitutions as far as they differ from a stack with both checks off. `change` may change the
    definition, parsed, before it is created.
    """
    with (
        contextlib.closing(aws.client("sns")) as topics,
        contextlib.closing(aws.client("stepfunctions")) as states,
        contextlib.closing(aws.client("logs")) as logs,
        interpreting(
            aws,
            minute_seconds / 60,
            {
                MIGRATE: functools.partial(invoke_function, function),
                REPORT: write_report,
                ENDPOINT: functools.partial(call_endpoint, default_values("") | values),
                LOGS: functools.partial(search_logs, logs),
            },
        ),
    ):
        topic = topics.create_topic(Name=f"Automation-{NAME}")["TopicArn"]
        definition = yaml.load(substitute(DEFINITION.read_text(), default_values(topic) | values), yaml.CSafeLoader)
        use_stand_ins(definition)
        if change:
            change(definition)
        role = "arn:aws:iam::123456789012:role/pg-hotfix-local"
        text = json.dumps(definition)
        arn = states.create_state_machine(name=NAME, definition=text, roleArn=role)["stateMachineArn"]
        try:
            yield Machine(aws.endpoint_url, arn, topic)
        finally:
            for execution in states.list_executions(stateMachineArn=arn, statusFilter="RUNNING")["executions"]:
                states.stop_execution(executionArn=execution["executionArn"])
            wait_for_threads()
            states.delete_state_machine(stateMachineArn=arn)
            topics.delete_topic(TopicArn=topic)


def default_values(topic_arn: str) -> dict[str, str]:
    """Returns a value for each of the definition's substitutions."""
    return {
        "Partition": "aws",
        "MigrateFunctionArn": MIGRATE,
        "ReportFunctionArn": REPORT,
        "TopicArn": topic_arn,
        "StackName": "pg-hotfix-dev",
        "EnvironmentName": "local",
        "CallEndpoint": "false",
        "EndpointUrl": "",
        "EndpointMethod": "HEAD",
        "EndpointFunctionArn": ENDPOINT,
        "WatchLog": "false",
        "ApplicationLogGroup": "",
        "ErrorPatternBase64": "",
        "WatchMinutes": "5",
    }


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Returns the text as CloudFormation would fill it in.

    Raises: LocalError when the text has no place for one of the values.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-stepfunctions-statemachine.html
    """
    for name, value in values.items():
        if f"${{{name}}}" not in text:
            raise LocalError(f"{DEFINITION.name} has no substitution {name}.")
        text = text.replace(f"${{{name}}}", value)
    return text


def use_stand_ins(definition: dict[str, Any]) -> None:
    for state in definition["States"].values():
        for ending, arn in STAND_INS.items():
            if state.get("Resource", "").endswith(ending):
                state["Resource"] = arn


# What the machine calls


def invoke_function(function: EmulatedFunction, event: Any) -> Any:
    invocation = function.invoke(event)
    if invocation.error_type:
        raise FunctionError(invocation.error_type, invocation.error_message)
    return invocation.payload


def write_report(event: Any) -> Any:
    """In this process: the function is nothing but its own source and Python."""
    try:
        return report.lambda_handler(event, None)
    except Exception as error:
        raise FunctionError(type(error).__name__, str(error)) from error


def call_endpoint(values: Mapping[str, str], _event: Any) -> dict[str, Any]:
    """In this process, with the function's own code: by plain HTTP, since a test's server has no certificate."""
    try:
        return endpoint.call(values["EndpointUrl"], "Bearer local", http.client.HTTPConnection)
    except Exception as error:
        raise FunctionError(type(error).__name__, str(error)) from error


def search_logs(logs: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """One log stream is one page, so that pages are empty or not, as in AWS; moto itself would give all in one.

    https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
    """
    group, page = parameters["LogGroupName"], int(parameters.get("NextToken", 0))
    try:
        streams = [stream["logStreamName"] for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]]
        found = logs.filter_log_events(
            logGroupName=group,
            logStreamNames=streams[page : page + 1],
            filterPattern=parameters["FilterPattern"],
            startTime=parameters["StartTime"],
            limit=parameters["Limit"],
        )
    except ClientError as error:
        raise FunctionError(f"CloudWatchLogs.{error.response['Error']['Code']}", str(error)) from error
    events = [{name[0].upper() + name[1:]: value for name, value in event.items()} for event in found["events"]]
    more = {"NextToken": str(page + 1)} if page + 1 < len(streams) else {}
    return {"Events": events, "SearchedLogStreams": [], **more}
