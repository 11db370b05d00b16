"""The actions that change nothing: plan, verify, check and gate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.change.blockers import describe_blockers, find_blockers
from pg_hotfix.change.dependents import find_dependents
from pg_hotfix.gate import compare_schema
from pg_hotfix.history.prisma import find_history, read_history
from pg_hotfix.look import differing, look
from pg_hotfix.notes import find_notes
from pg_hotfix.preconditions import (
    are_selectable,
    refuse_read_only,
    refuse_what_alter_table_would,
    refuse_what_cannot_work,
)
from pg_hotfix.promises.column import catalog
from pg_hotfix.report import Report, report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.file.hotfix_file import ExpectedSchema, Hotfix
    from pg_hotfix.look import Seen
    from pg_hotfix.promises.column.catalog import Column
    from pg_hotfix.report import Notes
    from pg_hotfix.server.session import Session


def plan(session: Session, hotfix: Hotfix) -> Report:
    """What `apply` would do now, and who is in its way. Nothing was changed, and no lock was taken.

    Raises: what `apply` would raise for the same state.
    """
    table = find_history(session, hotfix)
    seen = look(session, hotfix)
    history = read_history(session, hotfix, table, is_there=seen.matches)
    notes = find_notes(session, seen)
    if seen.matches:
        already = report("already_applied", session, hotfix, seen, history)
        return replace(already, notes=notes + note_way_back(session, hotfix, seen))
    refuse_what_cannot_work(session, hotfix, seen)
    blockers = describe_blockers(session, find_blockers(session, hotfix))
    would = report("would_apply", session, hotfix, seen, history)
    notes += note_way_back(session, hotfix, seen)
    return replace(would, blockers=blockers, sql=hotfix.sql, notes=notes)


def note_way_back(session: Session, hotfix: Hotfix, seen: Seen) -> Notes:
    """What the file's revert lines would meet now, if it has any and there is a column to drop."""
    if hotfix.revert is None or all(column.actual == catalog.MISSING for column in seen.columns):
        return ()
    return find_dependents(session, hotfix).notes()


def verify(session: Session, hotfix: Hotfix) -> Report:
    """Every expectation holds, and the role that has logged in can select the columns. Nothing was changed.

    Raises:
        MismatchError: a column is missing or differs. NotOwnerError: the role may not select one.
    """
    seen = look_for_match(session, hotfix)
    while not are_selectable(session, seen):  # Another session has dropped one since: the next look finds it missing.
        seen = look_for_match(session, hotfix)
    history = read_history(session, hotfix, find_history(session, hotfix), is_there=seen.matches)
    return report("verified", session, hotfix, seen, history, find_notes(session, seen))


def look_for_match(session: Session, hotfix: Hotfix) -> Seen:
    seen = look(session, hotfix)
    if not seen.matches:
        raise errors.mismatch(hotfix.id, differing(seen))
    return seen


def check(session: Session, hotfixes: Sequence[Hotfix]) -> Report:
    """Everything that an incident needs works: the files, the secret, the network, TLS, the login, and the rights on
    every table that ALTER TABLE reaches. The tables can take the columns that are missing.

    Raises: what `apply` would raise for a missing column. For a column that is there and differs, `plan` raises.
    """
    refuse_read_only(session)
    columns: list[Column] = []
    for hotfix in hotfixes:
        seen = look(session, hotfix)
        refuse_what_alter_table_would(session, hotfix, seen)
        columns += seen.columns
    ids = tuple(hotfix.id for hotfix in hotfixes)
    return Report("ready", tuple(columns), session.facts.describe(), limits=session.facts.limits, hotfixes=ids)


def gate(session: Session, schema: ExpectedSchema) -> Report:
    """Every column that the application expects is there as expected. Nothing was changed.

    Raises:
        MismatchError: names all that are missing or differ.
    """
    columns = compare_schema(session, schema)
    return Report("passed", columns, session.facts.describe(), limits=session.facts.limits, sql_sha256=schema.sha256)
