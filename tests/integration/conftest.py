"""The lanes in which sweeps try one point after another, several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.aftermath import give_secret, new_lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.postgres import Server
    from tests.integration.aftermath import Lane

LANES = 14


@pytest.fixture(scope="session")
def lanes_without_secrets(server: Server) -> Iterator[list[Lane]]:
    with new_lanes(server, LANES) as lanes:
        yield lanes


@pytest.fixture
def lanes(lanes_without_secrets: list[Lane], secrets_manager: Callable[..., str]) -> list[Lane]:
    return [give_secret(lane, secrets_manager) for lane in lanes_without_secrets]


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether every point is wanted."""
    return bool(request.config.getoption("--long"))
