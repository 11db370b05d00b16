"""Prisma's history: what the next deploy will do in each of its states, and `"record": "prisma"`, also when it fails."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import database as database_module
import hotfix
from local.proxy import Fault
from request import parse_request
from settings import read_settings
from tests.conftest import HOTFIX, call_later
from tests.integration.aftermath import Reader, examine, run_to_its_end, try_all
from tests.integration.test_faults import queries
from local.proxy import running_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.proxy import Message, Proxy
    from tests.conftest import Database, Outcome
    from tests.integration.aftermath import Ending, Lane

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

SQL = Path(f"sql/{HOTFIX}.sql").read_text()
CHECKSUM = hashlib.sha256(SQL.encode()).hexdigest()
OTHER = "20260101000000_add_orders"
# Word for word what Prisma creates.
CREATE = """
CREATE TABLE {schema}._prisma_migrations (
    id                      VARCHAR(36) PRIMARY KEY NOT NULL,
    checksum                VARCHAR(64) NOT NULL,
    finished_at             TIMESTAMPTZ,
    migration_name          VARCHAR(255) NOT NULL,
    logs                    TEXT,
    rolled_back_at          TIMESTAMPTZ,
    started_at              TIMESTAMPTZ NOT NULL DEFAULT now(),
    applied_steps_count     INTEGER NOT NULL DEFAULT 0
)"""
PRISMAS_LOCK = "SELECT pg_advisory_lock(72707369)"
ADD_COLUMN = "ALTER TABLE public.drivers ADD COLUMN active_since timestamptz"


@dataclass(frozen=True)
class PrismaHistory:
    database: Database

    def add(
        self, name: str = HOTFIX, *, checksum: str = CHECKSUM, finished: bool = True, rolled_back: bool = False
    ) -> None:
        """A row as `migrate deploy` leaves it."""
        self.database.run_as_owner(
            "INSERT INTO public._prisma_migrations"
            " (id, checksum, migration_name, finished_at, rolled_back_at, applied_steps_count) VALUES"
            f" (gen_random_uuid()::text, '{checksum}', '{name}', {'now()' if finished else 'NULL'},"
            f" {'now()' if rolled_back else 'NULL'}, {int(finished)})"
        )

    def rows(self) -> list[list[Any]]:
        return self.database.run(
            "SELECT migration_name, checksum, finished_at IS NOT NULL, rolled_back_at IS NOT NULL"
            " FROM public._prisma_migrations ORDER BY started_at, rolled_back_at"
        )


RECORDED_ROW = [HOTFIX, CHECKSUM, True, False]


@pytest.fixture
def history(database: Database) -> PrismaHistory:
    database.run_as_owner(CREATE.format(schema="public"))
    return PrismaHistory(database)


def has_column(database: Database) -> bool:
    return bool(
        database.run("SELECT FROM pg_attribute WHERE attrelid = 'drivers'::regclass AND attname = 'active_since'")
    )


@contextmanager
def holding(database: Database, sql: str, *, ends_after: float | None = None) -> Iterator[int]:
    """Within the block another session has run `sql`, and holds what it took; or until that time. Its pid."""
    with database.connect() as other:
        ((pid,),) = other.run("SELECT pg_backend_pid()")
        other.run(sql)
        if ends_after is None:
            yield pid
        else:
            with call_later(ends_after, lambda: other.run("ROLLBACK; SELECT pg_advisory_unlock_all()")):
                yield pid


def prisma_of(outcome: Outcome) -> dict[str, Any]:
    assert outcome.error is None, outcome.text
    told: dict[str, Any] = outcome.response["prisma"]
    return told


# What the next deploy will do


def test_smoke(invoke: Invoke, database: Database, history: PrismaHistory) -> None:
    print(prisma_of(invoke("plan")))
    outcome = invoke("apply", record="prisma")
    print(outcome.response or outcome.text)
    assert history.rows() == [RECORDED_ROW]
