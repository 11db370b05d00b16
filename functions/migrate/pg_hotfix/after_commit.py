"""What is there after COMMIT: read again, over a fresh connection if the run's own has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.history.prisma import find_history, read_history
from pg_hotfix.look import differing, look
from pg_hotfix.notes import find_notes
from pg_hotfix.preconditions import refuse_read_only
from pg_hotfix.server.signals import LockNotAvailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.history.prisma import History
    from pg_hotfix.look import Seen
    from pg_hotfix.report import Notes
    from pg_hotfix.server.session import Session


def look_again(session: Session, hotfix: Hotfix, reconnect: Callable[[], Session]) -> tuple[Seen, History, Notes]:
    """The columns are as the hotfix, or its revert, leaves them; returns them with Prisma's history and the notes.

    Raises:
        OutcomeUnknownError: the catalog could not be read. MismatchError: another session has changed the table. What
        the run did is committed in both cases.
    """
    try:
        after, history, notes = read_all(session, hotfix)
    except (errors.HotfixError, LockNotAvailable):
        after, history, notes = read_over_fresh_connection(session, hotfix, reconnect)
    if not after.is_done:
        raise errors.changed_since(hotfix.id, differing(after), reverting=hotfix.reverting)
    return after, history, notes


def read_over_fresh_connection(
    session: Session, hotfix: Hotfix, reconnect: Callable[[], Session]
) -> tuple[Seen, History, Notes]:
    try:
        with reconnect() as fresh:
            after, history, notes = read_all(fresh, hotfix)
            if not after.is_done:
                refuse_read_only(fresh)  # After a failover a replica may not have what was committed.
            return after, history, notes
    except errors.RelationError as error:
        reason = error.message.split(". ", 1)[0] + "."
        raise errors.changed_since(hotfix.id, reason=reason, reverting=hotfix.reverting) from error
    except (errors.HotfixError, LockNotAvailable) as error:
        raise errors.commit_not_seen(
            hotfix.id, session.target.address, type(error).__name__, reverting=hotfix.reverting
        ) from error


def read_all(session: Session, hotfix: Hotfix) -> tuple[Seen, History, Notes]:
    table = find_history(session, hotfix)
    seen = look(session, hotfix)
    return seen, read_history(session, hotfix, table, is_there=seen.matches), find_notes(session, seen)
