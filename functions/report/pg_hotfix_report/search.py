"""Looks for the application's error in its log, after a fix. No text of the log leaves this module."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pg_hotfix_report.run import Run
    from pg_hotfix_report.settings import Settings

MINUTE_MS = 60_000
# Without a limit the search of a huge log would outlive the function, which has 55 s: 25 s for pages, and for the last
# of them 2 tries of at most 2 + 10 s, with a pause between.
MOST_PAGES = 100
MOST_SECONDS = 25.0
CONNECT_SECONDS = 2
READ_SECONDS = 10
# What may be otherwise in a moment; so is any answer from 500 on. The whole account has a few searches a second.
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
PASSING = {"ServiceUnavailableException", "Throttling", "ThrottlingException", "TooManyRequestsException"}
SERVER_ERRORS = 500


class ErrorsContinueError(Exception):
    """The application has logged the error since the verify."""


class WatchError(Exception):
    """The log could not be searched, and a further try would fail as well. The text is the reason."""


class LogUnavailableError(Exception):
    """The log could not be searched now. The text is the reason."""


def search_log(run: Run, settings: Settings, connect: Callable[[], Any]) -> dict[str, int]:
    """The next minute of the application's log has no line with the error. Returns {"minutes": how many there are now}.

    The first two searches begin at the verify, each later one a minute after the one before: so each reads about the
    last two minutes, since an event may arrive after the time that it bears, and not all of a busy log again.

    Raises:
        ErrorsContinueError, WatchError, LogUnavailableError: as they say. Nothing is changed in any case.
    """
    minutes = run.watched_minutes + 1
    start_ms = run.output["verify"]["finished_at_ms"] + max(0, minutes - 2) * MINUTE_MS
    if finds_event(connect(), settings, start_ms):
        raise ErrorsContinueError
    return {"minutes": minutes}


def finds_event(logs: Any, settings: Settings, start_ms: int) -> bool:
    asked = {"logGroupName": settings.log_group, "filterPattern": settings.error_pattern, "startTime": start_ms}
    end = time.monotonic() + MOST_SECONDS
    page: dict[str, Any] = {}
    for number in range(MOST_PAGES):
        if number and time.monotonic() > end:
            raise WatchError(f"more than {MOST_SECONDS:.0f} s to search")
        page = read_page(logs, asked | ({"nextToken": page["nextToken"]} if number else {}))
        if page["events"]:
            return True
        # A page may be empty although a later one is not.
        if not page.get("nextToken"):
            return False
    raise WatchError(f"more than {MOST_PAGES} pages to search")


def read_page(logs: Any, asked: dict[str, Any]) -> dict[str, Any]:
    # Here, since a report, whose cold start these imports would prolong, searches nothing.
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found: dict[str, Any] = logs.filter_log_events(**asked, limit=1)
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        passing = code in PASSING or status >= SERVER_ERRORS
        raise (LogUnavailableError if passing else WatchError)(code) from error
    except BotoCoreError as error:
        raise LogUnavailableError(type(error).__name__) from error
    return found


def connect() -> Any:
    """A client of CloudWatch Logs."""
    import boto3
    from botocore.config import Config

    limits = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 2, "mode": "standard"},
    )
    return boto3.client("logs", config=limits)
