"""The state machine on 127.0.0.1: its real definition, interpreted by moto, with the emulated function behind it.

Whatever speaks to Step Functions by boto3 works at the fake AWS's endpoint. Two integrations that moto lacks are done
by stand-ins in this process, which take the definition's own parameters and answer in AWS's form: `http:invoke` is a
real HTTP call (without the connection's credentials), `cloudwatchlogs:filterLogEvents` asks moto's logs.
"""

import contextlib
import functools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import requests
import yaml
from botocore.exceptions import ClientError
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.core.config import default_user_config
from moto.stepfunctions.parser.asl.component.common.error_name import custom_error_name
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.parser.utils import TMP_THREADS

from local.aws import REGION, FakeAws
from local.emulator import EmulatedFunction
from local.places import PROJECT

DEFINITION = PROJECT / "statemachine" / "hotfix.asl.yaml"
NAME = "pg-hotfix-local-hotfix"
FUNCTIONS = f"arn:aws:lambda:{REGION}:123456789012:function"
MIGRATE = f"{FUNCTIONS}:pg-hotfix-local-migrate"
# What stands in for an integration that moto lacks, by the end of its ARN.
STAND_INS = {":::http:invoke": f"{FUNCTIONS}:http", ":::aws-sdk:cloudwatchlogs:filterLogEvents": f"{FUNCTIONS}:logs"}
HTTP_TASK_SECONDS = 60
STOP_SECONDS = 5.0
# moto answers while it changes: it starts two executions of one name, lists one that has no status yet, and says that
# one has succeeded before it knows the output. These take turns instead.
TAKE_TURNS = (
    *((StepFunctionsParserBackend, name) for name in ("start_execution", "list_executions", "describe_execution")),
    (StepFunctionsParserBackend, "get_execution_history"),
    (BaseExecutionWorkerCommunication, "_reflect_execution_status"),
)


@dataclass(frozen=True)
class Machine:
    endpoint_url: str
    arn: str
    topic_arn: str


class StandInError(Exception):
    """The failure of a stand-in: the error's name as Step Functions would give it, and the cause."""


@contextlib.contextmanager
def running_machine(
    aws: FakeAws,
    function: EmulatedFunction,
    *,
    minute_seconds: float = 60.0,
    change: Callable[[dict[str, Any]], None] = lambda definition: None,
    **values: str,
) -> Iterator[Machine]:
    """Within the block executions can be started; after it none of them runs. One at a time in a process.

    A minute of the definition's waits and retries takes `minute_seconds`; its time-outs stay as they are. `values` are
    the definition's substitutions as far as they differ from a stack with both checks off. `change` may change the
    definition, parsed, before it is created.
    """
    with contextlib.ExitStack() as stack:
        topics, states, logs = (
            stack.enter_context(contextlib.closing(aws.client(service))) for service in ("sns", "stepfunctions", "logs")
        )
        stack.enter_context(
            interpreting(
                aws,
                minute_seconds / 60,
                {
                    MIGRATE: functools.partial(invoke_function, function),
                    STAND_INS[":::http:invoke"]: call_endpoint,
                    STAND_INS[":::aws-sdk:cloudwatchlogs:filterLogEvents"]: functools.partial(search_logs, logs),
                },
            )
        )
        topic = topics.create_topic(Name=NAME)["TopicArn"]
        definition = yaml.safe_load(substitute(DEFINITION.read_text(), default_values(topic) | values))
        use_stand_ins(definition)
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


def default_values(topic_arn: str) -> dict[str, str]:
    """Returns a value for each of the definition's substitutions."""
    return {
        "Partition": "aws",
        "MigrateFunctionArn": MIGRATE,
        "TopicArn": topic_arn,
        "EnvironmentName": "local",
        "CallEndpoint": "false",
        "EndpointUrl": "",
        "EndpointMethod": "HEAD",
        "EndpointConnectionArn": "",
        "WatchLog": "false",
        "ApplicationLogGroup": "",
        "ErrorPatternBase64": "",
        "WatchMinutes": "5",
    }


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Returns the text as CloudFormation would fill it in.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-stepfunctions-statemachine.html
    """
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return text


def use_stand_ins(definition: dict[str, Any]) -> None:
    for state in definition["States"].values():
        for ending, arn in STAND_INS.items():
            if state.get("Resource", "").endswith(ending):
                state["Resource"] = arn


@contextlib.contextmanager
def interpreting(aws: FakeAws, pace: float, functions: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Within the block moto runs state machines, which find the functions by their ARNs. It waits `pace` seconds for
    each second of a retry's interval or of a Wait."""

    def invoke(_: object, arn: str, qualifier: object, body: str, headers: object, answer: dict[str, str]) -> bytes:
        try:
            return json.dumps(functions[arn](json.loads(body))).encode()
        except StandInError as error:
            answer["x-amz-function-error"] = "Unhandled"
            name, cause = error.args
            return json.dumps({"errorType": name, "errorMessage": cause}).encode()

    def wait(_: object, env: Any, wait_seconds: float) -> None:
        env.program_state_event.wait(wait_seconds * pace)

    waiting = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds * pace))
    turn = threading.RLock()
    # It calls every path that a Choice finds nothing at an error.
    logging.getLogger("moto.stepfunctions").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        for patch in (
            mock.patch.dict(os.environ, {"MOTO_PORT": str(urlsplit(aws.endpoint_url).port)}),
            mock.patch.dict(
                default_user_config,
                {"stepfunctions": {"execute_state_machine": True}, "lambda": {"use_docker": False}},
            ),
            mock.patch.object(LambdaSimpleBackend, "invoke", invoke),
            mock.patch.object(retrier_decl, "time", waiting),
            mock.patch.object(WaitFunction, "_wait_interval", wait),
            # It takes States.Http.StatusCode.500 and the like for names that a definition may not use.
            mock.patch.object(custom_error_name, "ILLEGAL_CUSTOM_ERROR_PREFIX", "\0"),
            *(mock.patch.object(owner, name, in_turn(turn, getattr(owner, name))) for owner, name in TAKE_TURNS),
        ):
            stack.enter_context(patch)
        yield


def in_turn(turn: threading.RLock, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def take_turn(*arguments: Any, **options: Any) -> Any:
        with turn:
            return method(*arguments, **options)

    return take_turn


def wait_for_threads() -> None:
    """No thread of moto's interpreter runs any more, unless it waits for something else for too long."""
    deadline = time.monotonic() + STOP_SECONDS
    for thread in TMP_THREADS:
        thread.join(max(0.0, deadline - time.monotonic()))
    TMP_THREADS.clear()


# What the machine calls


def invoke_function(function: EmulatedFunction, event: Any) -> Any:
    invocation = function.invoke(event)
    if invocation.error_type:
        raise StandInError(invocation.error_type, invocation.error_message)
    return invocation.payload


def call_endpoint(parameters: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/step-functions/latest/dg/call-https-apis.html"""
    try:
        answer = requests.request(parameters["Method"], parameters["ApiEndpoint"], timeout=HTTP_TASK_SECONDS)
    except requests.RequestException as error:
        raise StandInError("States.Http.Socket", type(error).__name__) from error
    output = {
        "StatusCode": answer.status_code,
        "StatusText": answer.reason,
        "Headers": {name: [value] for name, value in answer.headers.items()},
        "ResponseBody": answer.text,
    }
    if not answer.ok:
        raise StandInError(f"States.Http.StatusCode.{answer.status_code}", json.dumps(output))
    return output


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
        raise StandInError(f"CloudWatchLogs.{error.response['Error']['Code']}", str(error)) from error
    events = [{name[0].upper() + name[1:]: value for name, value in event.items()} for event in found["events"]]
    more = {"NextToken": str(page + 1)} if page + 1 < len(streams) else {}
    return {"Events": events, "SearchedLogStreams": [], **more}
