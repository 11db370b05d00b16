"""moto as an interpreter of state machines: what it has to be told, and what it gets wrong, in one place."""

import contextlib
import functools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock
from urllib.parse import urlsplit

from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.core.config import default_user_config
from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name import custom_error_name
from moto.stepfunctions.parser.asl.component.common.error_name.error_equals_decl import ErrorEqualsDecl
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.path import result_path
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.execute_state import ExecutionState
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.utils import json_path
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.parser.quotas import is_within_size_quota
from moto.stepfunctions.parser.utils import TMP_THREADS

from laptop.aws import FakeAws

if TYPE_CHECKING:
    from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails

STOP_SECONDS = 5.0
# What States.ALL and States.TaskFailed leave out, and what no name catches; moto takes both for any other error.
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
NOT_IN_ALL = {"States.DataLimitExceeded", "States.Runtime"}
NEVER_CAUGHT = {"States.Runtime"}
# moto answers while it changes: it starts two executions of one name, lists one that has no status yet, and says that
# one has succeeded before it knows the output. These take turns instead.
TAKE_TURNS = (
    (StepFunctionsParserBackend, "start_execution"),
    (StepFunctionsParserBackend, "list_executions"),
    (StepFunctionsParserBackend, "describe_execution"),
    (StepFunctionsParserBackend, "get_execution_history"),
    (BaseExecutionWorkerCommunication, "_reflect_execution_status"),
)
# It reads the whole definition for each execution, and each path at each use: that takes longer than all the rest.
PARSE_ONCE = [(owner, functools.cache(owner.parse)) for owner in (AmazonStateLanguageParser, json_path, result_path)]


class FunctionError(Exception):
    """A function failed: the error's name and its text, as Lambda tells them to Step Functions."""


@contextlib.contextmanager
def interpreting(aws: FakeAws, pace: float, functions: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Within the block moto runs state machines, which find the functions by their ARNs. It waits `pace` seconds for
    each second of a retry's interval or of a Wait."""

    # A state machine calls a function by its ARN, a person by its name.
    by_name = {arn.rpartition(":")[2]: function for arn, function in functions.items()}

    def invoke(_: object, name: str, _qualifier: object, body: str, _headers: object, answer: dict[str, str]) -> bytes:
        try:
            return json.dumps(by_name[name.rpartition(":")[2]](json.loads(body))).encode()
        except FunctionError as error:
            answer["x-amz-function-error"] = "Unhandled"
            name, text = error.args
            return json.dumps({"errorType": name, "errorMessage": text}).encode()

    def wait(_: object, env: Any, wait_seconds: float) -> None:
        env.program_state_event.wait(wait_seconds * pace)

    waiting = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds * pace))
    settings = {"stepfunctions": {"execute_state_machine": True}, "lambda": {"use_docker": False}}
    turn = threading.RLock()
    # It calls every path that a Choice finds nothing at an error.
    logging.getLogger("moto.stepfunctions").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {"MOTO_PORT": str(urlsplit(aws.endpoint_url).port)}))
        stack.enter_context(mock.patch.dict(default_user_config, settings))
        # It lets no function fail with one of Step Functions' own names, which a test does in place of AWS.
        stack.enter_context(mock.patch.object(custom_error_name, "ILLEGAL_CUSTOM_ERROR_PREFIX", "\0"))
        stack.enter_context(mock.patch.object(ErrorEqualsDecl, "_eval_body", leave_out(ErrorEqualsDecl)))
        stack.enter_context(mock.patch.object(ExecutionState, "_evaluate_with_timeout", within_quota()))
        stack.enter_context(mock.patch.object(LambdaSimpleBackend, "invoke", invoke))
        stack.enter_context(mock.patch.object(retrier_decl, "time", waiting))
        stack.enter_context(mock.patch.object(WaitFunction, "_wait_interval", wait))
        for owner, name in TAKE_TURNS:
            stack.enter_context(mock.patch.object(owner, name, in_turn(turn, getattr(owner, name))))
        for parser, parse in PARSE_ONCE:
            stack.enter_context(mock.patch.object(parser, "parse", parse))
        yield


def in_turn(turn: threading.RLock, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def take_turn(*arguments: Any, **options: Any) -> Any:
        with turn:
            return method(*arguments, **options)

    return take_turn


def leave_out(declaration: type[ErrorEqualsDecl]) -> Any:
    evaluate = declaration._eval_body

    def evaluate_names(self: ErrorEqualsDecl, env: Any) -> None:
        name = env.stack[-1].error_name
        if name not in NOT_IN_ALL:
            evaluate(self, env)
        else:
            env.stack.pop()
            env.stack.append(name not in NEVER_CAUGHT and name in [one.error_name for one in self.error_names])

    return evaluate_names


def within_quota() -> Any:
    """moto looks at the size of a task's whole output too, but only when no Catch is left that could see it."""
    evaluate = ExecutionState._evaluate_with_timeout

    def evaluate_task(self: ExecutionState, env: Any) -> None:
        evaluate(self, env)
        if env.stack and not is_within_size_quota(env.stack[-1]):
            env.stack.pop()
            too_large = StatesErrorNameType.StatesStatesDataLimitExceeded
            told = TaskFailedEventDetails(error=too_large.to_name(), cause=f"the output of {self.name} is too large")
            name, details = StatesErrorName(typ=too_large), cast("EventDetails", {"taskFailedEventDetails": told})
            raise FailureEventException(FailureEvent(env, name, HistoryEventType.TaskFailed, details))

    return evaluate_task


def wait_for_threads() -> None:
    """No thread of the interpreter runs any more, unless one waits for something else for too long."""
    deadline = time.monotonic() + STOP_SECONDS
    for thread in TMP_THREADS:
        thread.join(max(0.0, deadline - time.monotonic()))
    TMP_THREADS.clear()
