"""How the stack is set, as far as a report tells it or a search needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Settings:
    """Without an `endpoint_url` the state machine calls no endpoint, without a `log_group` it watches no log."""

    environment: str
    endpoint_url: str = ""
    log_group: str = ""
    error_pattern: str = ""


def read_settings(variables: Mapping[str, str]) -> Settings:
    return Settings(
        environment=variables["ENVIRONMENT"],
        endpoint_url=variables["ENDPOINT_URL"],
        log_group=variables["APPLICATION_LOG_GROUP"],
        error_pattern=variables["ERROR_PATTERN"],
    )
