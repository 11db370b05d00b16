"""What is to be changed, as data: `hotfix.py` builds it, and this room runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.look import Look


@dataclass(frozen=True)
class Bookkeeping:
    """What the same transaction writes or makes sure of in a table of another tool.

    `take_lock` is an SQL expression that takes that tool's lock, and never waits; `find_lock` tells that lock in
    pg_locks, which the SQL calls `l`. `lock_table` is SQL that locks `table` (schema and name) before any other table
    is asked for, so that nobody waits for that one while this one is not free. `sql` is one statement before COMMIT,
    which selects how many rows it has written. Each of them fails with HistoryBusy unless all is as it was looked at.
    `record_only` if nothing else is to be done.
    """

    table: tuple[str, str]
    take_lock: str
    find_lock: str
    sql: str
    lock_table: str = ""
    record_only: bool = False


@dataclass(frozen=True)
class Job:
    """The statements of the hotfix, or of its way back, are to bring about what it promises, beginning with what was
    seen `before`. `guard` is SQL that fails with InUse unless what was looked at is still so."""

    hotfix: Hotfix
    before: Look
    bookkeeping: Bookkeeping | None = None
    guard: str = ""
