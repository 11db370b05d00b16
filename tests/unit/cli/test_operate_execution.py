"""How an execution is followed when AWS fails, and what whoever interrupts is told."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore import exceptions

from cli.operate import execution
from cli.operate.execution import Starting, follow, patiently
from pg_hotfix_button import executions

if TYPE_CHECKING:
    from collections.abc import Iterator


def refusal(code: str, status: int = 400) -> exceptions.ClientError:
    return exceptions.ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetExecutionHistory",
    )


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nothing is waited for; returns what would have been."""
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


def test_an_interrupted_start_says_how_far_it_has_come() -> None:
    sent: list[Any] = []
    client = SimpleNamespace(
        meta=SimpleNamespace(events=SimpleNamespace(register=lambda event, note: sent.append((event, note))))
    )
    starting = Starting(client)  # type: ignore[arg-type]
    assert starting.state == "Nothing was started."
    ((event, note),) = sent
    assert event == "before-send.stepfunctions.StartExecution"
    note(request=None)
    assert starting.state == "Whether it was started is not known."
    starting.is_done = True
    assert starting.state == "What was started goes on."


@pytest.mark.parametrize(
    "failure",
    [
        exceptions.EndpointConnectionError(endpoint_url="https://x"),
        exceptions.ReadTimeoutError(endpoint_url="https://x"),
        refusal("ThrottlingException"),
        refusal("InternalServerError", 500),
    ],
)
def test_a_call_that_may_succeed_later_is_tried_again(
    failure: Exception, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    answers: Iterator[object] = iter([failure, failure, "answer"])

    def ask() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(ask) == "answer"
    assert len(pauses) == 2
    assert capsys.readouterr().out.count("AWS does not answer; trying again for some minutes.") == 1


def test_an_outage_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 100.0, execution.OUTAGE_SECONDS + 1])
    monkeypatch.setattr("time.monotonic", lambda: next(moments))

    def fail() -> None:
        raise exceptions.EndpointConnectionError(endpoint_url="https://x")

    with pytest.raises(exceptions.EndpointConnectionError):
        patiently(fail)


def test_a_refusal_is_final_at_once(pauses: list[float]) -> None:
    def refuse() -> None:
        raise refusal("AccessDeniedException")

    with pytest.raises(exceptions.ClientError):
        patiently(refuse)
    assert pauses == []


def test_whoever_may_not_read_the_history_gets_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise refusal("AccessDeniedException")

    ended = SimpleNamespace(
        arn="arn:e", name="e", status="SUCCEEDED", started=datetime.now(UTC),
        request={}, output={"result": "applied"}, is_running=False, error=None, cause=None,
    )  # fmt: skip
    monkeypatch.setattr(executions, "describe", lambda *_: ended)
    monkeypatch.setattr(executions, "read_steps", refuse)
    assert follow(SimpleNamespace(), "arn:e").output == {"result": "applied"}  # type: ignore[arg-type]
    assert "Its steps can't be seen (AccessDeniedException)." in capsys.readouterr().out
