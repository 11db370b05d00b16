"""How our own SQL answers by failing, so that either COMMIT or nothing follows in the same message.

A query fails on purpose if it finds something else than the look did: by a cast of a text to a number, a division by
zero, or RAISE. PostgreSQL then skips the rest of the message, and the transaction holds no lock. The session recognizes
each of these failures by its SQLSTATE and by the mark at the beginning of its text, and raises an exception of this
module.
"""

from __future__ import annotations

# SQLSTATEs and marks of these failures: https://www.postgresql.org/docs/current/errcodes-appendix.html
NOT_AS_EXPECTED, INVALID_TEXT, DIVISION_BY_ZERO = "pg-hotfix:", "22P02", "22012"
HISTORY_BUSY = "pg-hotfix-prisma:"
IN_USE, RAISED = "pg-hotfix-in-use:", "P0001"


class LockNotAvailable(Exception):  # noqa: N818 - never leaves the function
    """The lock was not free within lock_timeout. A transaction has failed, and holds no lock. `said` is everything that
    the server said about it. It is never shown, since it may quote SQL, but it may name the table."""

    def __init__(self, sqlstate: str, said: str = "") -> None:
        super().__init__(sqlstate)
        self.said = said


class ArrivedLate(Exception):  # noqa: N818 - never leaves the function
    """The message arrived too late, and failed before it took a lock. The transaction has failed."""


class NotAsExpected(Exception):  # noqa: N818 - never leaves the function
    """The proof failed in the server, and so the transaction. `seen` is what the query found, `wanted` the state that
    was to be proved."""

    def __init__(self, wanted: str, seen: str) -> None:
        super().__init__()
        self.wanted, self.seen = wanted, seen


class InUse(Exception):  # noqa: N818 - never leaves the function
    """The revert must not go on, and the transaction has failed. `position` is that of the column. `why` is "used" if a
    row holds a value of its own, "untold" if the catalog does not tell, "late" if reading took too long, and "changed"
    if other objects need the column now."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__()
        self.position, self.why = position, why


class HistoryBusy(Exception):  # noqa: N818 - never leaves the function
    """Prisma's lock is not free, or its history has changed since it was read. The transaction has failed."""
