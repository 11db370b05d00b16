"""How long anything may take, derived from the time that the function has left.

The limits nest strictly, so that the innermost one always fires first and the server never outlives us:
lock < statement < transaction < socket < function.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_hotfix import errors

if TYPE_CHECKING:
    from pg_hotfix.settings import Settings

# Kept free of database work: to look at the blockers, write the log line and the metrics, and return.
REPORT_MS = 2_000
# How long a look waits for a lock, which it needs only where somebody changes the table or the catalog at this moment.
LOCK_TIMEOUT_MS = 20
# How long an attempt may stand in the lock queue: whoever comes after it waits as long at most. It begins with the
# shortest and doubles. Beyond the usual it goes only where long transactions take turns, and nothing else can succeed.
SHORTEST_ATTEMPT_MS = 10
USUAL_ATTEMPT_MS = 80
LONGEST_ATTEMPT_MS = 500
# A client that vanished without a word holds its locks no longer than this between two statements.
IDLE_IN_TRANSACTION_MS = 1_000
# How soon the server notices, while it works or waits for a lock, that our socket is closed.
CONNECTION_CHECK_MS = 500
# Each outer limit exceeds the inner one by this, enough for a cancelled statement's error to reach us.
MARGIN_MS = 500
CONNECT_TIMEOUT_MS = 5_000
SHORTEST_STATEMENT_MS = 500


@dataclass(frozen=True)
class Limits:
    """All in milliseconds, but `last_attempt_at`, on the monotonic clock: an attempt that begins later could outlive
    the function. `lock_timeout_ms` is for looks, `longest_attempt_ms` is the cap of attempts,
    `lock_wait_ms` the budget of all attempts and the waiting between them."""

    lock_timeout_ms: int
    longest_attempt_ms: int
    statement_timeout_ms: int
    transaction_timeout_ms: int
    idle_in_transaction_ms: int
    socket_timeout_ms: int
    connect_timeout_ms: int
    lock_wait_ms: int
    last_attempt_at: float

    def server_limits(self) -> dict[str, int]:
        """The limits that the server itself keeps, by its names for them. None is 0: that would turn it off."""
        return {
            "lock_timeout": self.lock_timeout_ms,
            "statement_timeout": self.statement_timeout_ms,
            "idle_in_transaction_session_timeout": self.idle_in_transaction_ms,
            "client_connection_check_interval": CONNECTION_CHECK_MS,
        }

    def startup_parameters(self) -> dict[str, str]:
        """The limits as settings that the session starts with.

        `transaction_timeout` is set right after the login, since a server before 17 would refuse the connection.
        https://www.postgresql.org/docs/current/runtime-config-client.html
        """
        return {name: f"{limit}ms" for name, limit in self.server_limits().items()} | {
            "tcp_keepalives_idle": "5s",
            "tcp_keepalives_interval": "2s",
            "tcp_keepalives_count": "3",
            # Nothing else ends a server that writes an answer which nobody takes: it heeds no other limit meanwhile.
            "tcp_user_timeout": f"{IDLE_IN_TRANSACTION_MS}ms",
        }


def derive_limits(settings: Settings, remaining_ms: int) -> Limits:
    """The limits for a run that must have ended, reported and all, within `remaining_ms`.

    Raises:
        ConfigurationError: there is too little time to do anything safely; the database was not contacted.
    """
    longest_socket = remaining_ms - REPORT_MS
    # Half of what is left stays for the looks and for waiting.
    longest_statement = (longest_socket - 2 * MARGIN_MS) // 2
    if longest_statement < SHORTEST_STATEMENT_MS:
        raise errors.too_little_time(remaining_ms, REPORT_MS + 2 * MARGIN_MS + 2 * SHORTEST_STATEMENT_MS)
    statement = min(settings.statement_timeout_ms, longest_statement)
    return Limits(
        lock_timeout_ms=LOCK_TIMEOUT_MS,
        longest_attempt_ms=min(LONGEST_ATTEMPT_MS, statement // 2),
        statement_timeout_ms=statement,
        transaction_timeout_ms=statement + MARGIN_MS,
        idle_in_transaction_ms=min(IDLE_IN_TRANSACTION_MS, statement),
        socket_timeout_ms=statement + 2 * MARGIN_MS,
        connect_timeout_ms=min(CONNECT_TIMEOUT_MS, longest_socket),
        lock_wait_ms=settings.lock_wait_seconds * 1000,
        last_attempt_at=time.monotonic() + (longest_socket - statement - 2 * MARGIN_MS) / 1000,
    )


def elapsed_ms(since: float) -> float:
    """Milliseconds since a moment of the monotonic clock."""
    return (time.monotonic() - since) * 1000
