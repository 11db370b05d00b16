"""The search in the application's log, with a stub of CloudWatch Logs that answers page by page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from pg_hotfix_report import app, search
from pg_hotfix_report.search import ErrorsContinueError, LogUnavailableError, WatchError
from pg_hotfix_report.settings import Settings, read_settings

PROJECT = Path(__file__).parents[3]
VARIABLES = {
    "ENVIRONMENT": "prod",
    "ENDPOINT_URL": "",
    "APPLICATION_LOG_GROUP": "/ecs/kaviar",
    "ERROR_PATTERN": '{ $.code = "P2022" }',
}
SETTINGS = read_settings(VARIABLES)
VERIFIED_AT_MS = 1_770_899_409_186
LINE = {"message": "PrismaClientKnownRequestError P2022: driver 42 of Marina Lopes"}


class Logs:
    """Answers with these pages in turn, and with the last of them from then on; an exception is raised."""

    def __init__(self, *pages: Any) -> None:
        self.pages = list(pages)
        self.asked: list[dict[str, Any]] = []

    def filter_log_events(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        page = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        if isinstance(page, Exception):
            raise page
        found: dict[str, Any] = page
        return found


def page(*events: dict[str, str], token: str | None = None) -> dict[str, Any]:
    return {"events": list(events), "searchedLogStreams": []} | ({"nextToken": token} if token else {})


def refused(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "..."}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "FilterLogEvents")


def look(logs: Logs, watched: int | None = None, settings: Settings = SETTINGS) -> Any:
    """One search, as the state machine asks for it after so many minutes."""
    output: dict[str, Any] = {"request": {}, "verify": {"finished_at_ms": VERIFIED_AT_MS}}
    if watched is not None:
        output["watch"] = {"minutes": watched}
    event = {"task": "search_log", "state": {"run": {"output": output}}}
    return app.answer(event, settings, lambda: logs)


def test_a_minute_without_the_error_is_counted_and_nothing_else_is_told() -> None:
    logs = Logs(page())
    assert look(logs) == {"minutes": 1}
    assert look(logs, 4) == {"minutes": 5}
    assert logs.asked[0] == {
        "logGroupName": "/ecs/kaviar",
        "filterPattern": '{ $.code = "P2022" }',
        "startTime": VERIFIED_AT_MS,
        "limit": 1,
    }


def test_the_first_two_searches_begin_at_the_verify_and_each_later_one_a_minute_later() -> None:
    logs = Logs(page())
    for watched in (None, 1, 2, 3, 4):
        look(logs, watched)
    since = [asked["startTime"] - VERIFIED_AT_MS for asked in logs.asked]
    assert since == [0, 0, 60_000, 120_000, 180_000]


@pytest.mark.parametrize("before", [0, 1, 7])
def test_an_error_is_found_on_whichever_page(before: int) -> None:
    logs = Logs(*[page(token=f"t{number}") for number in range(before)], page(LINE))
    with pytest.raises(ErrorsContinueError) as raised:
        look(logs)
    assert str(raised.value) == ""
    assert [asked.get("nextToken") for asked in logs.asked] == [None, *[f"t{number}" for number in range(before)]]
    assert len({(asked["startTime"], asked["filterPattern"], asked["limit"]) for asked in logs.asked}) == 1


@pytest.mark.parametrize("last", [page(), page() | {"nextToken": None}, page() | {"nextToken": ""}])
def test_a_page_without_a_token_is_the_last(last: dict[str, Any]) -> None:
    logs = Logs(page(token="t"), last, page(LINE))
    assert look(logs) == {"minutes": 1}
    assert len(logs.asked) == 2


def test_a_log_without_end_is_given_up_after_as_many_pages() -> None:
    logs = Logs(page(token="t"))
    with pytest.raises(WatchError, match=r"^more than 100 pages to search$"):
        look(logs)
    assert len(logs.asked) == search.MOST_PAGES


def test_a_log_that_is_slow_is_given_up_after_as_many_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10_000, 10))
    monkeypatch.setattr("pg_hotfix_report.search.time", SimpleNamespace(monotonic=lambda: float(next(now))))
    logs = Logs(page(token="t"))
    with pytest.raises(WatchError, match=r"^more than 25 s to search$"):
        look(logs)
    # At 0, 10 and 20 s.
    assert len(logs.asked) == 3


@pytest.mark.parametrize(
    ("error", "raises", "reason"),
    [
        (refused("ThrottlingException"), LogUnavailableError, "ThrottlingException"),
        (refused("ServiceUnavailableException", 503), LogUnavailableError, "ServiceUnavailableException"),
        (refused("Whatever", 500), LogUnavailableError, "Whatever"),
        (EndpointConnectionError(endpoint_url="https://logs"), LogUnavailableError, "EndpointConnectionError"),
        (ReadTimeoutError(endpoint_url="https://logs"), LogUnavailableError, "ReadTimeoutError"),
        (refused("AccessDeniedException"), WatchError, "AccessDeniedException"),
        (refused("ResourceNotFoundException"), WatchError, "ResourceNotFoundException"),
        (refused("InvalidParameterException"), WatchError, "InvalidParameterException"),
    ],
)
def test_a_search_that_fails_says_by_its_name_whether_to_try_again(
    error: Exception, raises: type[Exception], reason: str
) -> None:
    with pytest.raises(raises) as raised:
        look(Logs(page(token="t"), error))
    assert (type(raised.value), str(raised.value)) == (raises, reason)


def test_boto3_is_imported_by_a_search_alone() -> None:
    program = "import sys; from pg_hotfix_report import app; app.make_report; print('boto' in str(sys.modules.keys()))"
    path = os.pathsep.join([str(PROJECT / "functions" / "report")])
    result = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_the_client_waits_and_tries_no_longer_than_the_function_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "sa-east-1")
    client = search.connect()
    config = client.meta.config
    client.close()
    assert (config.connect_timeout, config.read_timeout) == (search.CONNECT_SECONDS, search.READ_SECONDS)
    assert config.retries == {"total_max_attempts": 2, "mode": "standard"}


def test_the_handler_reads_how_the_stack_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    logs = Logs(page())
    monkeypatch.setattr(app, "connect", lambda: logs)
    event = {"task": "search_log", "state": {"run": {"output": {"verify": {"finished_at_ms": VERIFIED_AT_MS}}}}}
    assert app.lambda_handler(json.loads(json.dumps(event)), None) == {"minutes": 1}
    assert logs.asked[0]["logGroupName"] == "/ecs/kaviar"
