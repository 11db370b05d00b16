"""How long anything may take, derived from the time that the function has left.

The limits nest strictly, so that the innermost one always ends the work first, and the server never goes on after the
function: lock < statement < transaction < socket < function.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_hotfix import errors

if TYPE_CHECKING:
    from pg_hotfix.settings import Settings

# Kept free of work under a lock: to read the blockers, write the log line and the metrics, and return.
REPORT_MS = 2_000
# How long a catalog query waits for a lock. It needs one only while another session changes the table or the catalog.
LOCK_TIMEOUT_MS = 20
# How long an attempt may stay in the lock queue; sessions that come after it wait no longer than that. The first wait
# is the shortest, and each further one twice as long. Waits beyond the usual one are only for long transactions that
# follow one another, where nothing shorter can succeed.
SHORTEST_ATTEMPT_MS = 10
USUAL_ATTEMPT_MS = 80
LONGEST_ATTEMPT_MS = 500
# If the client disappears between two statements, the server keeps its locks no longer than this.
IDLE_IN_TRANSACTION_MS = 1_000
# How soon the server notices a closed socket while it works or waits for a lock.
CONNECTION_CHECK_MS = 500
# Each outer limit exceeds the inner one by this, so that the error of a cancelled statement still arrives.
MARGIN_MS = 500
CONNECT_TIMEOUT_MS = 5_000
SHORTEST_STATEMENT_MS = 500


@dataclass(frozen=True)
class Limits:
    """`lock_timeout_ms` is for catalog queries, `longest_attempt_ms` for one attempt in the lock queue, `lock_wait_ms`
    for all attempts and the waiting between them. `last_attempt_at` is on the monotonic clock: an attempt that begins
    later could outlive the function."""

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
        """The limits that the server keeps, by its names for them. No value is 0: that would turn the limit off."""
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
            # While the server writes an answer that nobody reads, no other limit ends it.
            "tcp_user_timeout": f"{IDLE_IN_TRANSACTION_MS}ms",
        }


def derive_limits(settings: Settings, remaining_ms: int) -> Limits:
    """The limits for a run that must end, with its report, within `remaining_ms`.

    Raises:
        ConfigurationError: there is too little time to do anything safely. The database was not contacted.
    """
    longest_socket = remaining_ms - REPORT_MS
    # Half of what is left is for catalog queries and for waiting.
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
