"""How a text names a transaction in the way, and when it offers to end it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pg_hotfix.change.blocker import WRAPAROUND, name_blockers
from tests.samples import FOUND_BLOCKER

NO_PROCESS: dict[str, Any] = {"pid": None, "application_name": None, "state": None}


@pytest.mark.parametrize(
    ("fields", "text", "sql"),
    [
        (
            {},
            (
                "pid 4711 (billing, nightly-report), in a transaction for 340 s (idle in transaction), ACCESS SHARE on"
                " public.drivers."
            ),
            "SELECT pg_terminate_backend(4711);",
        ),
        (
            {"application_name": None, "state": None, "transaction_seconds": None},
            "pid 4711 (billing), ACCESS SHARE on public.drivers.",
            "SELECT pg_terminate_backend(4711);",
        ),
        (
            {"granted": False, "waiting": True, "waits_for": (9, 0), "state": "active", "transaction_seconds": 2.04},
            (
                "pid 4711 (billing, nightly-report), in a transaction for 2 s (active), itself waiting for pid 9 and a"
                " prepared transaction, ACCESS SHARE on public.drivers (awaited)."
            ),
            None,
        ),
        (
            NO_PROCESS | {"prepared_transaction": "it's 7", "transaction_seconds": 60.0},
            (
                "the prepared transaction it's 7 (billing), prepared 60 s ago, ACCESS SHARE on public.drivers."
                " No session will end it: whoever prepared it must commit it or roll it back."
            ),
            "ROLLBACK PREPARED 'it''s 7';",
        ),
        (
            NO_PROCESS | {"user": None, "transaction_seconds": None},
            "the prepared transaction with an unknown name, ACCESS SHARE on public.drivers.",
            None,
        ),
        (
            {"user": None, "application_name": None, "state": None, "autovacuum": WRAPAROUND},
            (
                "autovacuum to prevent wraparound pid 4711, in a transaction for 340 s, ACCESS SHARE on public.drivers."
                " PostgreSQL starts it again if it is ended: let it finish."
            ),
            None,
        ),
        (
            {"table": None, "lock_mode": "EXCLUSIVE", "application_name": None, "transaction_seconds": None},
            (
                "pid 4711 (billing), EXCLUSIVE on Prisma's advisory lock 72707369."
                " A prisma migrate that is ended in the middle leaves a failed migration (P3009)."
            ),
            "SELECT pg_terminate_backend(4711);",
        ),
    ],
    ids=["session", "hidden session", "waiting session", "prepared", "unknown prepared", "wraparound", "Prisma"],
)
def test_each_kind_of_blocker_has_its_text_and_the_sql_that_ends_it(
    fields: dict[str, Any], text: str, sql: str | None
) -> None:
    blocker = replace(FOUND_BLOCKER, **fields)
    assert (blocker.text, blocker.sql_to_end_it) == (text, sql)
    assert blocker.describe()["text"] == text
    ending = (
        f"Wait until it ends, or end it now (its transaction is rolled back):  {sql}" if sql else "Wait until it ends."
    )
    assert name_blockers([blocker], 1) == [f"In the way: {text}", ending]


def test_nobody_in_the_way_needs_no_line() -> None:
    assert name_blockers([], 0) == []
