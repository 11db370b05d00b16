"""What `report` reads, and what it says of what it can't."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from cli.operate.report import print_report, read_description
from laptop.errors import LocalError
from pg_hotfix_report.facts import collect_facts
from tests.unit.report.test_report import ARN, INCIDENT

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


@pytest.mark.parametrize(
    ("text", "said"), [("{", " is not JSON."), ("[]", " holds neither"), ('{"a": 1}', " holds neither")]
)
def test_a_file_that_is_no_answer_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "answer.json"
    path.write_text(text)
    with pytest.raises(LocalError, match=re.escape(f"{path}{said}")):
        print_report(str(path), None)


def test_a_text_that_is_no_execution_is_refused_before_aws_is_asked() -> None:
    with pytest.raises(LocalError, match="'arn:apply-1' is not the ARN of an execution"):
        print_report("arn:apply-1", None)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(LocalError, match=r"none\.json can't be read: No such file"):
        print_report("none.json", None)


def test_the_facts_are_written_as_json_beside_the_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer, facts = tmp_path / "answer.json", tmp_path / "facts.json"
    answer.write_text(json.dumps(INCIDENT))
    assert print_report(str(answer), facts) == 0
    assert json.loads(facts.read_text())["hotfix"] == INCIDENT["request"]["hotfix"]
    assert capsys.readouterr().out.startswith("# ")


def test_a_failure_that_the_command_line_has_written_names_its_execution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = tmp_path / "answer.json"
    failure = {"error": "LockBusyError", "cause": "Busy.", "execution": ARN, "request": INCIDENT["request"]}
    answer.write_text(json.dumps(failure))
    assert print_report(str(answer), None) == 0
    told = capsys.readouterr().out
    assert ARN in told
    assert INCIDENT["request"]["hotfix"] in told
