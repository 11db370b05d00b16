"""The state machine on 127.0.0.1: its real definition, interpreted by moto, with the emulated function behind it.

Whatever speaks to Step Functions by boto3 works at the fake AWS's endpoint. The smaller functions run in this process.
"""

import contextlib
import functools
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from laptop.aws import REGION, FakeAws
from laptop.emulator import EmulatedFunction
from laptop.errors import LocalError
from laptop.functions import endpoint, report, settings
from laptop.interpreter import FunctionError, interpreting, wait_for_threads
from laptop.places import PROJECT

DEFINITION = PROJECT / "statemachine" / "hotfix.asl.yaml"
NAME = "pg-hotfix-local-hotfix"
FUNCTIONS = f"arn:aws:lambda:{REGION}:123456789012:function"
MIGRATE = f"{FUNCTIONS}:pg-hotfix-local-migrate"
REPORT = f"{FUNCTIONS}:pg-hotfix-local-report"
ENDPOINT = f"{FUNCTIONS}:pg-hotfix-local-endpoint"
# Of the template's parameters, as far as these functions know them: both checks are off.
PARAMETERS = {"EnvironmentName": "local", "EndpointUrl": "", "ApplicationLogGroup": "", "ErrorPattern": "P2022"}


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
    **parameters: str,
) -> Iterator[Machine]:
    """Within the block executions can be started; after it none of them runs. One at a time in a process.

    A minute of the definition's waits and retries takes `minute_seconds`; its time-outs stay as they are. `parameters`
    are the template's as far as they differ from PARAMETERS. `change` may change the definition, parsed, before it is
    created.
    """
    given = PARAMETERS | parameters
    with (
        contextlib.closing(aws.client("sns")) as topics,
        contextlib.closing(aws.client("stepfunctions")) as states,
        interpreting(
            aws,
            minute_seconds / 60,
            {
                MIGRATE: functools.partial(invoke_function, function),
                REPORT: functools.partial(answer_report, aws, given),
                ENDPOINT: functools.partial(call_endpoint, given),
            },
        ),
    ):
        topic = topics.create_topic(Name=f"Automation-{NAME}")["TopicArn"]
        definition = yaml.load(substitute(DEFINITION.read_text(), fill_in(given, topic)), yaml.CSafeLoader)
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


def fill_in(given: Mapping[str, str], topic_arn: str) -> dict[str, str]:
    """Returns a value for each of the definition's substitutions, as the template makes it of its parameters."""
    return {
        "Partition": "aws",
        "MigrateFunctionArn": MIGRATE,
        "ReportFunctionArn": REPORT,
        "EndpointFunctionArn": ENDPOINT,
        "TopicArn": topic_arn,
        "CallEndpoint": "true" if given["EndpointUrl"] else "false",
        "WatchLog": "true" if given["ApplicationLogGroup"] else "false",
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


# What the machine calls


def invoke_function(function: EmulatedFunction, event: Any) -> Any:
    invocation = function.invoke(event)
    if invocation.error_type:
        raise FunctionError(invocation.error_type, invocation.error_message)
    return invocation.payload


def answer_report(aws: FakeAws, given: Mapping[str, str], event: Any) -> Any:
    """In this process: the function is nothing but its own source, Python and boto3."""
    set_so = settings.Settings(
        environment=given["EnvironmentName"],
        endpoint_url=given["EndpointUrl"],
        log_group=given["ApplicationLogGroup"],
        error_pattern=given["ErrorPattern"],
    )
    with contextlib.ExitStack() as clients:
        try:
            return report.answer(event, set_so, lambda: clients.enter_context(contextlib.closing(aws.client("logs"))))
        except Exception as error:
            raise FunctionError(type(error).__name__, str(error)) from error


def call_endpoint(given: Mapping[str, str], _event: Any) -> dict[str, Any]:
    """In this process, with the function's own code: by plain HTTP, since a test's server has no certificate."""
    try:
        return endpoint.call(given["EndpointUrl"], "Bearer local", http.client.HTTPConnection)
    except Exception as error:
        raise FunctionError(type(error).__name__, str(error)) from error
