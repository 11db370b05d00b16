"""What a run did and saw, for the response, the log and the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pg_hotfix.look import hash_plan
from pg_hotfix.server.limits import elapsed_ms

if TYPE_CHECKING:
    from pg_hotfix.change.blockers import Blocker
    from pg_hotfix.change.lock_wait import LockWait
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.history.prisma import History
    from pg_hotfix.look import Look
    from pg_hotfix.promises.column.catalog import Column
    from pg_hotfix.server.session import Session

type Notes = tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Report:
    """What a run did and saw. Times in milliseconds; the lock was held for at most `lock_held_ms`, and nobody waited
    for this run longer than `longest_stall_ms`. `limits` are those in force. `revert` is the file's way back, and
    `history` Prisma's, as it was seen at the end. `notes`: what may surprise somebody later, as code and text."""

    result: str
    columns: tuple[Column, ...]
    database: dict[str, Any]
    attempts: int = 0
    lock_wait_ms: int = 0
    lock_held_ms: float = 0.0
    longest_stall_ms: float = 0.0
    limits: dict[str, int] = field(default_factory=dict)
    blockers: tuple[Blocker, ...] = ()
    sql: str | None = None
    revert: str | None = None
    sql_sha256: str | None = None
    plan_hash: str | None = None
    hotfixes: tuple[str, ...] = ()
    history: History | None = None
    forced: bool = False
    notes: Notes = ()


def report(result: str, session: Session, hotfix: Hotfix, seen: Look, history: History, notes: Notes = ()) -> Report:
    return Report(
        result,
        seen.columns,
        session.facts.describe(),
        revert=hotfix.revert.sql if hotfix.revert else None,
        sql_sha256=hotfix.sha256,
        plan_hash=hash_plan(session, hotfix, seen),
        limits=session.facts.limits,
        hotfixes=(hotfix.id,),
        history=history,
        notes=notes,
    )


def count_waiting(lock_wait: LockWait, seen: Report) -> Report:
    """The report of a run that found nothing to do, perhaps only after it had waited."""
    if not lock_wait.has_begun:
        return seen
    waited_ms, stall_ms = round(elapsed_ms(lock_wait.started)), round(lock_wait.longest_stall_ms, 1)
    return replace(seen, attempts=lock_wait.attempts, lock_wait_ms=waited_ms, longest_stall_ms=stall_ms)
