"""The story of a run, from top to bottom: look, wait, refuse, run and prove, look again, report.

Nothing here knows of Lambda, events or JSON.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.after_commit import look_again
from pg_hotfix.change.attempt import attempt
from pg_hotfix.change.blocker import name_blockers
from pg_hotfix.change.blockers import try_to_describe_blockers
from pg_hotfix.change.dependents import find_dependents, refuse_dependents
from pg_hotfix.change.job import Job
from pg_hotfix.change.lock_wait import LockWait
from pg_hotfix.change.unused import explain, guard_sql, refuse_used
from pg_hotfix.file.characters import fit_hotfix, fit_schema
from pg_hotfix.file.hotfix_file import tables_of
from pg_hotfix.file.packaged import load_hotfixes, load_list
from pg_hotfix.history.prisma import RECORDED, find_history, read_history
from pg_hotfix.history.recording import plan_absence, plan_recording, refuse_recorded, refuse_unrecordable
from pg_hotfix.look import look
from pg_hotfix.notes import find_notes
from pg_hotfix.preconditions import refuse_stale_plan, refuse_what_cannot_work
from pg_hotfix.read_only import check, gate, plan, verify
from pg_hotfix.report import report, report_change, report_nothing_to_do
from pg_hotfix.server.connect import log_in
from pg_hotfix.server.limits import derive_limits
from pg_hotfix.server.signals import InUse, LockNotAvailable
from pg_hotfix.server.transport import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.report import Report
    from pg_hotfix.request import Request
    from pg_hotfix.server.session import Session
    from pg_hotfix.settings import Settings


def run(request: Request, settings: Settings, remaining_ms: Callable[[], int]) -> Report:
    """The request is fulfilled as its action says. It is safe to repeat it, and to run it twice at once; but a forced
    revert drops again what was added since. `remaining_ms` returns the time that the function has left.

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
        blockers = [one for hotfix in hotfixes for one in try_to_describe_blockers(session, hotfix)]
        in_the_way = name_blockers(blockers, len(blockers))
        raise errors.catalog_blocked(tables, in_the_way, [one.describe() for one in blockers]) from error


def apply(
    session: Session,
    hotfix: Hotfix,
    reconnect: Callable[[], Session],
    plan_hash: str | None = None,
    record: str | None = None,
) -> Report:
    """Every expected column is there as expected, committed, and seen again after COMMIT. If all of them were there
    before, no lock was taken and no DDL was run. `applied` means that this run made the change: of several runs at
    once, one says so. With `record` Prisma's history has a row of it, written by the same transaction, or by one of its
    own.

    https://www.postgresql.org/docs/current/sql-altertable.html
    """
    lock_wait = LockWait(session, hotfix)
    while True:
        try:
            table = find_history(session, hotfix)
            before = look(session, hotfix)
            lock_wait.bookkeeping = plan_recording(hotfix, table, record_only=before.matches) if record else None
            # Otherwise the history is read last, so that the attempt follows the look at once.
            history = (
                read_history(session, hotfix, table, is_there=before.matches, bookkeeping=lock_wait.bookkeeping)
                if record or before.matches
                else None
            )
        except LockNotAvailable:  # PostgreSQL locks the table to print a default, and the history to record in it.
            lock_wait.wait()
            continue
        is_to_record = record is not None and history is not None and history.state != RECORDED
        if before.matches and history and not is_to_record:
            notes = find_notes(session, before)
            return report_nothing_to_do(lock_wait, report("already_applied", session, hotfix, before, history, notes))
        refuse_stale_plan(session, hotfix, before, plan_hash)
        refuse_what_cannot_work(session, hotfix, before)
        if is_to_record and history:
            refuse_unrecordable(session, hotfix, table, history)
        else:
            lock_wait.bookkeeping = None
        job = Job(hotfix, before, lock_wait.bookkeeping)
        if altered := attempt(lock_wait, job):
            return report_change(lock_wait, job, altered, look_again(session, hotfix, reconnect))


def revert(session: Session, hotfix: Hotfix, reconnect: Callable[[], Session], *, force: bool = False) -> Report:
    """No expected column is there: the revert lines of `hotfix` were run and committed, and that was seen again after
    COMMIT. If all were gone before, no lock was taken and no DDL was run. Without `force` no row held anything of its
    own in the columns, and Prisma's history does not have the hotfix as applied.
    """
    lock_wait, guard, rows_seen = LockWait(session, hotfix), "" if force else guard_sql(hotfix), force
    while True:
        try:
            table = find_history(session, hotfix)
            before = look(session, hotfix)
            if before.is_done:
                history = read_history(session, hotfix, table, is_there=before.matches)
                return report_nothing_to_do(lock_wait, report("already_reverted", session, hotfix, before, history))
            refuse_what_cannot_work(session, hotfix, before)
            dependents = find_dependents(session, hotfix)
            refuse_dependents(hotfix, dependents, force=force)
            lock_wait.touches_others = hotfix.touches_others or bool(before.referenced)
            if not force:  # Each time, because the run may have waited for a deploy.
                lock_wait.bookkeeping = plan_absence(hotfix, table)
                history = read_history(
                    session, hotfix, table, is_there=before.matches, bookkeeping=lock_wait.bookkeeping
                )
                refuse_recorded(hotfix, table, history)
            if not rows_seen:
                refuse_used(session, hotfix, guard)
                rows_seen = True
        except LockNotAvailable:
            lock_wait.wait()
            continue
        job = Job(hotfix, before, lock_wait.bookkeeping, f"{dependents.guard}{guard}")
        try:
            altered = attempt(lock_wait, job)
        except InUse as found:  # Another session has written since, or made something that needs the column.
            raise explain(hotfix, found) from found
        if altered:
            done = report_change(lock_wait, job, altered, look_again(session, hotfix, reconnect))
            return replace(done, forced=force, notes=done.notes + dependents.notes(done=True))
