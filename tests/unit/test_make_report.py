"""What `make report` reads, and what it says of what it can't."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from local.report import USAGE, main, read_description
from pg_hotfix_report.facts import collect_facts
from tests.unit.test_report import ARN, INCIDENT

if TYPE_CHECKING:
    from pathlib import Path

DESCRIBED: dict[str, Any] = {
    "executionArn": ARN,
    "startDate": "2026-02-12T09:30:06.900000-03:00",
    "stopDate": 1770899711.25,
    "input": json.dumps(INCIDENT["request"]),
}


def test_what_the_aws_cli_prints_of_an_execution_gives_its_report() -> None:
    told = collect_facts(read_description(DESCRIBED | {"status": "SUCCEEDED", "output": json.dumps(INCIDENT)}))
    assert told["execution"]["seconds"] == 304.35
    assert (told["execution"]["result"], told["execution"]["changed"]) == ("applied", True)


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED", "RUNNING"])
def test_of_a_failure_without_its_history_nothing_is_claimed(status: str) -> None:
    told = collect_facts(read_description(DESCRIBED | {"status": status}))
    assert (told["execution"]["error"], told["execution"]["changed"]) == (status, None)


@pytest.mark.parametrize("typed", [{}, {"FILE": "a", "EXECUTION": "b"}, {"FILE": "a", "FORMAT": "pdf"}])
def test_without_what_says_what_is_meant_it_says_what_there_is(
    typed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed) == 2
    assert capsys.readouterr().err == f"{USAGE}\n"


@pytest.mark.parametrize(
    ("text", "said"), [("{", " is not JSON."), ("[]", " holds neither"), ('{"a": 1}', " holds neither")]
)
def test_what_is_no_answer_is_refused(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "answer.json"
    path.write_text(text)
    assert main({"FILE": str(path)}) == 1
    assert capsys.readouterr().err.startswith(f"{path}{said}")


def test_what_is_no_execution_is_refused_before_aws_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main({"EXECUTION": "apply-1"}) == 1
    assert capsys.readouterr().err.startswith("'apply-1' is not the ARN of an execution")
