"""A Step Functions on 127.0.0.1 that runs state machines."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ReadTimeoutError
from botocore.httpsession import URLLib3Session

from laptop.aws import fake_aws
from laptop.interpreter import FunctionError, interpreting, wait_for_threads
from laptop.machine import FUNCTIONS
from pg_hotfix_button.executions import list_newest, wait_until_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from botocore.awsrequest import AWSPreparedRequest
    from mypy_boto3_stepfunctions import SFNClient

    from laptop.aws import FakeAws

ROLE = "arn:aws:iam::123456789012:role/machine"
BUSY_FUNCTION = f"{FUNCTIONS}:busy"


class Body:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.content


def respond(status: int, body: dict[str, Any]) -> Callable[..., AWSResponse]:
    headers: Any = {"content-type": "application/x-amz-json-1.0"}
    return lambda **_: AWSResponse("https://states", status, headers, Body(json.dumps(body).encode()))


def refuse(code: str, status: int = 400) -> Callable[..., AWSResponse]:
    return respond(status, {"__type": f"com.amazonaws.states#{code}", "message": "User: x is not authorized"})


def lose(request: AWSPreparedRequest, **_: Any) -> NoReturn:
    """The call arrives, and its answer does not."""
    with contextlib.closing(URLLib3Session()) as session:
        session.send(request)
    raise ReadTimeoutError(endpoint_url=request.url)


def in_turn(*answers: Callable[..., Any]) -> Callable[..., Any]:
    """The last of them from then on."""
    rest = list(answers)
    return lambda **sent: (rest.pop(0) if len(rest) > 1 else rest[0])(**sent)


def answer(client: SFNClient, call: str, what: Callable[..., Any]) -> None:
    """Step Functions answers that call so, over the wire of the real client."""
    client.meta.events.register_first(f"before-send.stepfunctions.{call}", what)


def fail_as_busy(_: object) -> None:
    raise FunctionError("LockBusyError", "public.drivers stayed locked.")


@dataclass
class FakeTime:
    """Stands for the module `time`: it passes only while somebody sleeps."""

    now: float = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def stop_time(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeTime]:
    """For these modules no time passes but that in which they sleep."""

    def stop_time(*modules: ModuleType) -> FakeTime:
        clock = FakeTime()
        for module in modules:
            monkeypatch.setattr(module, "time", clock)
        return clock

    return stop_time


@pytest.fixture(scope="module")
def aws() -> Iterator[FakeAws]:
    with fake_aws() as aws, interpreting(aws, 1.0, {BUSY_FUNCTION: fail_as_busy}):
        yield aws


@pytest.fixture
def client(aws: FakeAws) -> Iterator[SFNClient]:
    with contextlib.closing(aws.client("stepfunctions")) as client:
        yield client


@pytest.fixture
def create(client: SFNClient) -> Iterator[Callable[[dict[str, Any]], str]]:
    """Creates the machine of a definition. At the end none of its executions runs."""
    arns = []

    def create(definition: dict[str, Any]) -> str:
        text = json.dumps(definition)
        arns.append(client.create_state_machine(name="hotfix", definition=text, roleArn=ROLE)["stateMachineArn"])
        return arns[-1]

    yield create
    for arn in arns:
        with contextlib.suppress(client.exceptions.StateMachineDoesNotExist):
            for one in list_newest(client, arn):
                if one["status"] == "RUNNING":
                    client.stop_execution(executionArn=one["executionArn"])
                    wait_until_ended(client, one["executionArn"], 5)
            client.delete_state_machine(stateMachineArn=arn)
    wait_for_threads()
