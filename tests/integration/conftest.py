"""The lanes in which sweeps try one point after another, several at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.integration.aftermath import new_lanes, running_clock, with_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.postgres import Server
    from tests.integration.aftermath import Lane

# Each takes up to five of the server's hundred connections.
LANES = 16


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
