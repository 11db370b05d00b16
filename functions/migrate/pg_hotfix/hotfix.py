"""The product, told from top to bottom: look, wait, alter and prove, commit, look again, report.

Nothing here knows of Lambda, events or JSON.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.change.blockers import try_to_describe_blockers
from pg_hotfix.change.dependents import find_dependents, refuse_dependents
from pg_hotfix.change.in_transaction import Altered, alter_and_prove
from pg_hotfix.change.job import Bookkeeping, Job
from pg_hotfix.change.lock_wait import LockWait
from pg_hotfix.change.triggers import name_trigger
from pg_hotfix.change.unused import explain, guard_sql, refuse_used
from pg_hotfix.file.characters import fit_hotfix, fit_schema
from pg_hotfix.file.hotfix_file import (
    Hotfix,
    tables_of,
)
from pg_hotfix.file.packaged import load_hotfixes, load_list
from pg_hotfix.history.prisma import RECORDED, find_history, read_history
from pg_hotfix.history.recording import plan_absence, plan_recording, refuse_recorded, refuse_unrecordable
from pg_hotfix.look import Look, differing, look
from pg_hotfix.notes import find_notes
from pg_hotfix.preconditions import (
    refuse_read_only,
    refuse_stale_plan,
    refuse_what_cannot_work,
)
from pg_hotfix.read_only import check, gate, plan, verify
from pg_hotfix.report import Notes, Report, count_waiting, report
from pg_hotfix.server.connect import log_in
from pg_hotfix.server.limits import derive_limits, elapsed_ms
from pg_hotfix.server.signals import InUse, LockNotAvailable
from pg_hotfix.server.transport import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pg_hotfix.history.prisma import History
    from pg_hotfix.request import Request
    from pg_hotfix.server.session import Session
    from pg_hotfix.settings import Settings


def run(request: Request, settings: Settings, remaining_ms: Callable[[], int]) -> Report:
    """The request is fulfilled as its action says. Safe to repeat, and to run twice at once; but a forced revert drops
    once more what was added since. `remaining_ms` tells what time is left.

    Raises:
        HotfixError: see errors.py; each text says what state the database is in.
    """
    reverting = request.action == "revert"
    schema = load_list(settings.sql_dir) if request.action == "gate" else None
    hotfixes = [] if schema else load_hotfixes(settings.sql_dir, request.hotfix, reverting=reverting)
    # What can fail without contacting anybody fails here.
    derive_limits(settings, remaining_ms())
    tls_context(settings.ca_bundle)
    reconnect = partial(log_in, settings, remaining_ms)
    with reconnect() as session:
        try:
            if schema:
                fit_schema(session, schema)
                return gate(session, schema)
            hotfixes = [fit_hotfix(session, hotfix) for hotfix in hotfixes]
            return dispatch(request, session, hotfixes, reconnect)
        except errors.HotfixError as error:
            error.facts["limits"] = session.facts.limits
            raise


def dispatch(
    request: Request, session: Session, hotfixes: Sequence[Hotfix], reconnect: Callable[[], Session]
) -> Report:
    try:
        match request.action:
            case "apply":
                return apply(session, hotfixes[0], reconnect, request.plan_hash, request.record)
            case "revert":
                return revert(session, hotfixes[0], reconnect, force=request.force)
            case "plan":
                return plan(session, hotfixes[0])
            case "verify":
                return verify(session, hotfixes[0])
            case _:
                return check(session, hotfixes)
    except LockNotAvailable as error:
        tables = tables_of(expectation for hotfix in hotfixes for expectation in hotfix.expectations)
        blockers = [one.describe() for hotfix in hotfixes for one in try_to_describe_blockers(session, hotfix)]
        raise errors.look_was_blocked(tables, blockers) from error


def apply(
    session: Session,
    hotfix: Hotfix,
    reconnect: Callable[[], Session],
    plan_hash: str | None = None,
    record: str | None = None,
) -> Report:
    """Every expected column is there as expected, committed and seen again after COMMIT. When all was so already, no
    lock was taken and no DDL was run. `applied` means that this run made the change: of several at once, one says so.
    With `record` Prisma's history has a row of it, written by the same transaction, or by one of its own.

    https://www.postgresql.org/docs/current/sql-altertable.html
    """
    lock_wait = LockWait(session, hotfix)
    while True:
        try:
            table = find_history(session, hotfix)
            before = look(session, hotfix)
            books = plan_recording(hotfix, table, record_only=before.matches) if record else None
            lock_wait.bookkeeping = books
            # Otherwise read it last, so that the attempt follows the look at once.
            read_now = record or before.matches
            history = (
                read_history(session, hotfix, table, is_there=before.matches, bookkeeping=books) if read_now else None
            )
        except LockNotAvailable:  # To print a default PostgreSQL needs the table, and to record it needs the history.
            lock_wait.wait()
            continue
        is_to_record = record is not None and history is not None and history.state != RECORDED
        if before.matches and history and not is_to_record:
            notes = find_notes(session, before)
            return count_waiting(lock_wait, report("already_applied", session, hotfix, before, history, notes))
        refuse_stale_plan(session, hotfix, before, plan_hash)
        refuse_what_cannot_work(session, hotfix, before)
        if is_to_record and history:
            refuse_unrecordable(session, hotfix, table, history)
        else:
            lock_wait.bookkeeping = books = None
        job = Job(hotfix, before, books)
        if outcome := attempt(lock_wait, job):
            return finish(lock_wait, job, outcome, reconnect)


def revert(session: Session, hotfix: Hotfix, reconnect: Callable[[], Session], *, force: bool = False) -> Report:
    """No expected column is there, committed and seen again after COMMIT, by the way back of a hotfix that was turned
    back. When all were gone already, no lock was taken and no DDL was run. Unless `force` is given, no row held
    anything of its own in them, and Prisma's history does not have the hotfix as applied.
    """
    lock_wait, guard, rows_seen = LockWait(session, hotfix), "" if force else guard_sql(hotfix), force
    books: Bookkeeping | None = None
    while True:
        try:
            table = find_history(session, hotfix)
            before = look(session, hotfix)
            if before.is_done:
                history = read_history(session, hotfix, table, is_there=before.matches)
                return count_waiting(lock_wait, report("already_reverted", session, hotfix, before, history))
            refuse_what_cannot_work(session, hotfix, before)
            dependents = find_dependents(session, hotfix)
            refuse_dependents(hotfix, dependents, force=force)
            lock_wait.touches_others = hotfix.touches_others or bool(before.referenced)
            if not force:  # Each time: it may be a deploy that was waited for.
                books = lock_wait.bookkeeping = plan_absence(hotfix, table)
                history = read_history(session, hotfix, table, is_there=before.matches, bookkeeping=books)
                refuse_recorded(hotfix, table, history)
            if not rows_seen:
                refuse_used(session, hotfix, guard)
                rows_seen = True
        except LockNotAvailable:
            lock_wait.wait()
            continue
        job = Job(hotfix, before, books, f"{dependents.guard}{guard}")
        try:
            outcome = attempt(lock_wait, job)
        except InUse as found:  # Somebody has written since, or made what needs the column.
            raise explain(hotfix, found) from found
        if outcome:
            done = finish(lock_wait, job, outcome, reconnect)
            return replace(done, forced=force, notes=done.notes + dependents.notes(done=True))


# The steps


def attempt(lock_wait: LockWait, job: Job) -> Altered | None:
    """The job is committed and was proved; or nothing was changed, this run has waited, and is to look again."""
    if lock_wait.must_look_first:
        lock_wait.wait()
        return None
    refuse_too_late(lock_wait.session, lock_wait)
    lock_wait.begin_attempt()
    try:
        outcome = alter_and_prove(lock_wait.session, job, lock_wait.queue_wait_ms)
    except errors.HotfixError as error:
        raise name_trigger(lock_wait.session, job.hotfix, error) from error.__cause__
    if isinstance(outcome, Altered):
        return outcome
    lock_wait.wait(outcome)
    return None


def finish(lock_wait: LockWait, job: Job, outcome: Altered, reconnect: Callable[[], Session]) -> Report:
    """The report of what was committed, after one more look."""
    session, hotfix, before = lock_wait.session, job.hotfix, job.before
    lock_wait_ms = max(0, round(elapsed_ms(lock_wait.started) - outcome.lock_held_ms))
    after, history, notes = look_again(session, hotfix, reconnect)
    columns = tuple(
        replace(column, changed_here=proved.changed_here)
        for column, proved in zip(after.columns, outcome.proof, strict=True)
    )
    done = "reverted" if before.reverting else "applied"
    return replace(
        report(
            done if any(column.changed_here for column in columns) else f"already_{done}",
            session,
            hotfix,
            replace(after, columns=columns),
            replace(history, recorded_here=outcome.recorded),
            notes,
        ),
        attempts=lock_wait.attempts,
        lock_wait_ms=lock_wait_ms,
        lock_held_ms=outcome.lock_held_ms,
        longest_stall_ms=round(max(lock_wait.longest_stall_ms, outcome.stalled_ms), 1),
        sql=None if before.is_done else hotfix.sql_to_run,
    )


def refuse_too_late(session: Session, lock_wait: LockWait) -> None:
    """No attempt begins that could outlive the function."""
    if time.monotonic() > session.limits.last_attempt_at:
        if lock_wait.has_begun:
            raise lock_wait.give_up()
        reason = "it answers so slowly that the function's time would run out under the lock"
        raise errors.database_unavailable(session.target.address, reason)


def look_again(session: Session, hotfix: Hotfix, reconnect: Callable[[], Session]) -> tuple[Look, History, Notes]:
    """What is there after COMMIT, seen over a fresh connection if this one has failed.

    Raises:
        OutcomeUnknownError: it can't be seen. MismatchError: somebody changed it since.
    """
    try:
        after, history, notes = look_at_all(session, hotfix)
    except (errors.HotfixError, LockNotAvailable):
        try:
            with reconnect() as fresh:
                after, history, notes = look_at_all(fresh, hotfix)
                if not after.is_done:
                    refuse_read_only(fresh)  # After a failover, a replica may not have what was committed.
        except errors.RelationError as error:
            reason = error.message.split(". ", 1)[0] + "."
            raise errors.changed_since(hotfix.id, reason=reason, reverting=hotfix.reverting) from error
        except (errors.HotfixError, LockNotAvailable) as error:
            raise errors.commit_not_seen(
                hotfix.id, session.target.address, type(error).__name__, reverting=hotfix.reverting
            ) from error
    if not after.is_done:
        raise errors.changed_since(hotfix.id, differing(after), reverting=hotfix.reverting)
    return after, history, notes


def look_at_all(session: Session, hotfix: Hotfix) -> tuple[Look, History, Notes]:
    table = find_history(session, hotfix)
    seen = look(session, hotfix)
    return seen, read_history(session, hotfix, table, is_there=seen.matches), find_notes(session, seen)
