"""`apply`: the incident's column, for real."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conftest import HOTFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome

ACTIVE_SINCE = (
    "SELECT format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
    " WHERE attrelid = 'public.drivers'::regclass AND attname = 'active_since' AND NOT attisdropped"
)


def test_the_incident_is_fixed(invoke: Callable[..., Outcome], database: Database) -> None:
    outcome = invoke("apply", reason="INC-4711", requested_by="ana")
    assert outcome.error is None, outcome.text
    assert outcome.result == "applied"
    assert database.run(ACTIVE_SINCE) == [["timestamp with time zone", False]]
    assert outcome.response["columns"] == [
        {
            "schema": "public",
            "table": "drivers",
            "column": "active_since",
            "name": "public.drivers.active_since",
            "expected": "timestamp with time zone null",
            "actual": "timestamp with time zone null",
            "matches": True,
            "changed": True,
        }
    ]
    assert outcome.response["attempts"] == 1
    assert outcome.response["hotfix"] == HOTFIX
