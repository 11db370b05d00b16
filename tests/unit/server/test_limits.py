"""The limits nest strictly whatever time is left: the innermost fires first, and nothing outlives the function."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pg_hotfix.errors import ConfigurationError
from pg_hotfix.server.limits import LONGEST_ATTEMPT_MS, REPORT_MS, Limits, derive_limits
from pg_hotfix.settings import LOCK_WAIT_BOUNDS_SECONDS, STATEMENT_TIMEOUT_BOUNDS_MS, Settings

LONGEST_FUNCTION_MS = 900_000


def make_settings(statement_timeout_ms: int = 5000, lock_wait_seconds: int = 30) -> Settings:
    here = Path(__file__)
    return Settings("arn", None, None, None, here, here.parent, lock_wait_seconds, statement_timeout_ms)


def test_with_time_enough_the_settings_are_the_limits() -> None:
    limits = derive_limits(make_settings(), 60_000)
    assert limits == Limits(
        lock_timeout_ms=20,
        longest_attempt_ms=500,
        statement_timeout_ms=5000,
        transaction_timeout_ms=5500,
        idle_in_transaction_ms=1000,
        socket_timeout_ms=6000,
        connect_timeout_ms=5000,
        lock_wait_ms=30_000,
        last_attempt_at=limits.last_attempt_at,
    )


@hypothesis_settings(max_examples=100, deadline=None)
@example(remaining_ms=3_999, statement_timeout_ms=5000, lock_wait_seconds=30)
@example(remaining_ms=4_000, statement_timeout_ms=5000, lock_wait_seconds=30)
@example(remaining_ms=900_000, statement_timeout_ms=100, lock_wait_seconds=1)
@given(
    remaining_ms=st.integers(-1_000, 20_000) | st.integers(-1_000, LONGEST_FUNCTION_MS),
    statement_timeout_ms=st.integers(*STATEMENT_TIMEOUT_BOUNDS_MS),
    lock_wait_seconds=st.integers(*LOCK_WAIT_BOUNDS_SECONDS),
)
def test_the_limits_nest_strictly_or_the_run_is_refused(
    remaining_ms: int, statement_timeout_ms: int, lock_wait_seconds: int
) -> None:
    before = time.monotonic()
    try:
        limits = derive_limits(make_settings(statement_timeout_ms, lock_wait_seconds), remaining_ms)
    except ConfigurationError:
        assert remaining_ms < 4_000
        return
    assert (
        0
        < limits.lock_timeout_ms
        < limits.longest_attempt_ms
        < limits.statement_timeout_ms
        < limits.transaction_timeout_ms
        < limits.socket_timeout_ms
        < remaining_ms
    )
    assert limits.longest_attempt_ms <= LONGEST_ATTEMPT_MS
    assert limits.statement_timeout_ms <= statement_timeout_ms
    assert 0 < limits.idle_in_transaction_ms <= min(1000, limits.statement_timeout_ms)
    assert 0 < limits.connect_timeout_ms < remaining_ms
    # An attempt that begins as late as it may has run into its socket's limit before the time kept for the report.
    latest_end = limits.last_attempt_at + (limits.socket_timeout_ms + REPORT_MS - remaining_ms) / 1000
    assert before - 0.001 <= latest_end <= time.monotonic() + 0.001


def test_too_little_time_is_refused_before_the_database_is_contacted() -> None:
    with pytest.raises(ConfigurationError) as caught:
        derive_limits(make_settings(), 3_000)
    assert str(caught.value) == (
        "The function has 3000 ms left, and needs at least 4000 ms to work and to report. Nothing was changed. Raise"
        " the Timeout of MigrateFunction in template.yaml, and deploy."
    )


def test_the_server_gets_every_limit_with_its_unit_at_the_start_of_the_session() -> None:
    assert derive_limits(make_settings(), 60_000).startup_parameters() == {
        "lock_timeout": "20ms",
        "statement_timeout": "5000ms",
        "idle_in_transaction_session_timeout": "1000ms",
        "client_connection_check_interval": "500ms",
        "tcp_keepalives_idle": "5s",
        "tcp_keepalives_interval": "2s",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "1000ms",
    }


@pytest.mark.parametrize("remaining_ms", [4_000, 10_000, LONGEST_FUNCTION_MS])
@pytest.mark.parametrize("statement_timeout_ms", STATEMENT_TIMEOUT_BOUNDS_MS)
def test_no_limit_is_zero_since_that_would_turn_it_off(remaining_ms: int, statement_timeout_ms: int) -> None:
    parameters = derive_limits(make_settings(statement_timeout_ms), remaining_ms).startup_parameters()
    assert [name for name, value in parameters.items() if re.fullmatch(r"0*(ms|s)?", value)] == []
