"""What a run did and saw, for the response, the log and the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pg_hotfix.look import hash_plan
from pg_hotfix.server.limits import elapsed_ms

if TYPE_CHECKING:
    from pg_hotfix.change.blocker import Blocker
    from pg_hotfix.change.in_transaction import Altered
    from pg_hotfix.change.job import Job
    from pg_hotfix.change.lock_wait import LockWait
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.history.prisma import History
    from pg_hotfix.look import Seen
    from pg_hotfix.promises.column.catalog import Column
    from pg_hotfix.server.session import Session

type Notes = tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Report:
    """What a run did and saw. Times are in milliseconds: the lock was held for at most `lock_held_ms`, and no session
    waited for this run longer than `longest_stall_ms`. `limits` are those in force. `revert` is the SQL of the file's
    revert lines, `history` what Prisma's history said at the end. Each of the `notes` has a code and a text."""

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


def report(result: str, session: Session, hotfix: Hotfix, seen: Seen, history: History, notes: Notes = ()) -> Report:
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


def report_nothing_to_do(lock_wait: LockWait, seen: Report) -> Report:
    """The report of a run that found nothing to do, perhaps only after it had waited."""
    if not lock_wait.has_begun:
        return seen
    waited_ms, stall_ms = round(elapsed_ms(lock_wait.started)), round(lock_wait.longest_stall_ms, 1)
    return replace(seen, attempts=lock_wait.attempts, lock_wait_ms=waited_ms, longest_stall_ms=stall_ms)


def report_change(lock_wait: LockWait, job: Job, altered: Altered, seen_again: tuple[Seen, History, Notes]) -> Report:
    """The report of what was committed. Another run may have made the change: then this one says `already_...`."""
    after, history, notes = seen_again
    columns = tuple(
        replace(column, changed_here=proved.changed_here)
        for column, proved in zip(after.columns, altered.proof, strict=True)
    )
    done = "reverted" if job.before.reverting else "applied"
    result = done if any(column.changed_here for column in columns) else f"already_{done}"
    history = replace(history, recorded_here=altered.recorded)
    return replace(
        report(result, lock_wait.session, job.hotfix, replace(after, columns=columns), history, notes),
        attempts=lock_wait.attempts,
        lock_wait_ms=max(0, round((altered.ended - lock_wait.started) * 1000 - altered.lock_held_ms)),
        lock_held_ms=altered.lock_held_ms,
        longest_stall_ms=round(max(lock_wait.longest_stall_ms, altered.stalled_ms), 1),
        sql=None if job.before.is_done else job.hotfix.sql_to_run,
    )
