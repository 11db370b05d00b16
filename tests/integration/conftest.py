"""The lanes in which sweeps try one point after another, several at once; and a judge of every statement."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pg_hotfix.change import unused
from pg_hotfix.server.login import LibpqConnection
from tests.integration.aftermath import new_lanes, running_clock, with_secret
from tests.integration.own_sql import judge_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from laptop.postgres import Server
    from tests.integration.aftermath import Lane

# Each takes up to five of the server's hundred connections.
LANES = 16
CONNECTION: Any = LibpqConnection


@pytest.fixture(scope="session")
def lanes_without_secrets(server: Server) -> Iterator[list[Lane]]:
    with new_lanes(server, LANES) as lanes:
        yield lanes


@pytest.fixture
def lanes(
    server: Server, lanes_without_secrets: list[Lane], secrets_manager: Callable[..., str]
) -> Iterator[list[Lane]]:
    """They have one clock."""
    with running_clock(server) as clock:
        for lane in lanes_without_secrets:
            lane.reader.clock = clock
        yield [
            replace(lane, settings=with_secret(lane.settings, lane.database, secrets_manager))
            for lane in lanes_without_secrets
        ]
        for lane in lanes_without_secrets:
            lane.reader.wanted.clear()


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether every point is wanted."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True)
def every_statement_is_safe(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Whatever the function has sent in this test meant PostgreSQL's own functions, operators, types and tables. Gives
    the messages of each session."""
    sessions: list[list[str]] = []

    class Recorded(CONNECTION):  # type: ignore[misc] # pg8000 ships no types.
        def run(self, sql: str, *args: Any, **kwargs: Any) -> Any:
            if not hasattr(self, "messages"):
                self.messages: list[str] = []
                sessions.append(self.messages)
            self.messages.append(sql)
            return super().run(sql, *args, **kwargs)

    monkeypatch.setattr("pg_hotfix.server.session.LibpqConnection", Recorded)
    yield sessions
    for messages in sessions:
        judge_session(messages)


@pytest.fixture(autouse=True)
def time_to_see_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revert has time to look at rows, however busy this machine is. A test of these limits sets its own."""
    monkeypatch.setattr(unused, "LONGEST_READ_MS", 20_000)
    monkeypatch.setattr(unused, "READ_UNDER_LOCK_MS", 20_000)
