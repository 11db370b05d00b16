"""How our own SQL answers by failing, so that COMMIT, or nothing, can follow in the same message.

A query that finds something else than what was looked at fails on purpose: by a cast of a text to a number, a division
by zero, or RAISE. PostgreSQL then runs nothing that follows, and the transaction holds nothing. The session knows each
of these failures by its SQLSTATE and by the mark at the beginning of its text, and raises what is here.
"""

from __future__ import annotations

# How our own query says in an error what it has found: https://www.postgresql.org/docs/current/errcodes-appendix.html
NOT_AS_EXPECTED, INVALID_TEXT, DIVISION_BY_ZERO = "pg-hotfix:", "22P02", "22012"
HISTORY_BUSY = "pg-hotfix-prisma:"
IN_USE, RAISED = "pg-hotfix-in-use:", "P0001"


class LockNotAvailable(Exception):  # noqa: N818 - never leaves the function
    """The lock was not free within lock_timeout. The transaction, if any, has failed and holds nothing. `said` is all
    that the server said of it: never to be shown, since it may quote SQL, but it may name the table."""

    def __init__(self, sqlstate: str, said: str = "") -> None:
        super().__init__(sqlstate)
        self.said = said


class ArrivedLate(Exception):  # noqa: N818 - never leaves the function
    """The message came later than it may and has refused itself: no lock was taken. The transaction has failed."""


class NotAsExpected(Exception):  # noqa: N818 - never leaves the function
    """The proof failed in the server: the transaction has failed. `seen` is what the query found, `wanted` the state
    that was to be proved."""

    def __init__(self, wanted: str, seen: str) -> None:
        super().__init__()
        self.wanted, self.seen = wanted, seen


class InUse(Exception):  # noqa: N818 - never leaves the function
    """A column that is to be dropped may hold something of its own. The transaction has failed. `position` is that of
    the column; `why` is "used", "untold", or "late" when nobody could see it in time."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__()
        self.position, self.why = position, why


class HistoryBusy(Exception):  # noqa: N818 - never leaves the function
    """Prisma's lock is not free, or its history is no longer as it was looked at. The transaction has failed."""
