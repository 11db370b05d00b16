"""What is to be changed, as data: hotfix.py builds it, and the modules of this folder run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.look import Seen


@dataclass(frozen=True)
class Bookkeeping:
    """What the same transaction writes to, or checks in, a table of another tool.

    `take_lock` is an SQL expression that takes that tool's lock, and never waits. `find_lock` is a condition that finds
    this lock in pg_locks, with the alias `l`. `lock_table` is SQL that locks `table` (schema and name) before any other
    table, so that no session waits for another table while this one is not free. `sql` is one statement before COMMIT;
    it selects how many rows it has written. All of them fail with HistoryBusy if the history has changed since the
    look. `record_only`: nothing else is to be done.
    """

    table: tuple[str, str]
    take_lock: str
    find_lock: str
    sql: str
    lock_table: str = ""
    record_only: bool = False


@dataclass(frozen=True)
class Job:
    """The statements of the hotfix, or its revert lines, are to run if the columns are still what was seen `before`.
    `guard` is SQL that fails with InUse if the rows or the dependents have changed since."""

    hotfix: Hotfix
    before: Seen
    bookkeeping: Bookkeeping | None = None
    guard: str = ""
