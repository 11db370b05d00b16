"""One verified connection to PostgreSQL. Only this module and login.py know pg8000.

Everything goes over the simple query protocol: each message is one round trip and may have several statements, and the
SQL of a file is sent unchanged.
"""

from __future__ import annotations

import itertools
import json
import math
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pg8000.converters import PG_TYPES
from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import literal as literal
from scramp import ScramException

from pg_hotfix import errors
from pg_hotfix.quoting import quoted
from pg_hotfix.server import transport
from pg_hotfix.server.limits import MARGIN_MS, elapsed_ms
from pg_hotfix.server.login import LibpqConnection
from pg_hotfix.server.pinned import END_OF_FILE, PIN, READ_OWN, set_sql
from pg_hotfix.server.signals import (
    DIVISION_BY_ZERO,
    HISTORY_BUSY,
    IN_USE,
    INVALID_TEXT,
    NOT_AS_EXPECTED,
    RAISED,
    ArrivedLate,
    HistoryBusy,
    InUse,
    LockNotAvailable,
    NotAsExpected,
)
from pg_hotfix.server.sqlstates import (
    CANCELLED_IN,
    ENDED_BY_SERVER,
    HOLDS_NO_DATA,
    IN_TROUBLE,
    LOCK_NOT_AVAILABLE,
    LOCK_TABLE,
    NOT_CONVERTED,
    WITHHELD,
    excerpt,
    hung_up,
    is_free_of_row_data,
    is_made_up,
    reason_of,
    sqlstate_of,
    translate_login,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

    from pg_hotfix.server.credentials import Target
    from pg_hotfix.server.limits import Limits

type Row = list[Any]

# The server's clock and ours may differ by a twentieth while one of them is adjusted.
CLOCKS_AGREE = 0.95

# What pg8000 and the socket raise when the connection is gone, or when an answer does not follow the protocol.
LOST = (InterfaceError, OSError, LookupError, ValueError, AttributeError, TypeError, struct.error)

# `literal` and lexer.py rely on the first two, whatever the role's own settings say. READ COMMITTED lets the statements
# after a lock see what other sessions have committed while the transaction waited for it.
SESSION_PARAMETERS = {
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
}
# The types of our own queries that are not read as text: boolean, bigint, integer, oid, double precision.
READ_TYPES = {16, 20, 23, 26, 701}
XID8 = 5069
UNITS_MS = {"": 1, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
SERVER_CLOCK = "extract(epoch FROM pg_catalog.clock_timestamp())::float8"


@dataclass(frozen=True)
class ServerFacts:
    """What the server says of itself and of this session. `limits` are those in force, in ms, by the server's names;
    those that it does not know are left out. `database_oid` differs in a restored or recreated database of the same
    name. `schemas` are the existing ones of the role's own search_path."""

    host: str
    port: int
    tls: str
    limits: dict[str, int]
    deadlock_timeout_ms: int
    name: str
    user: str
    server_version: str
    version_number: int
    database_oid: int
    in_recovery: bool
    read_only: bool
    schemas: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "port": self.port,
            "name": self.name,
            "user": self.user,
            "server_version": self.server_version,
            "tls": self.tls,
        }


class Session:
    """One connection with its time limits in force. All its settings are pinned, except while a file's own statements
    run. Leaving it as a context manager closes it, and the server rolls back an open transaction."""

    def __init__(self, connection: LibpqConnection, encrypted: ssl.SSLSocket, target: Target, limits: Limits) -> None:
        self.connection = connection
        self.encrypted = encrypted
        self.target = target
        self.limits = limits
        self.lock_held = False
        self.server_clock_ahead = -math.inf
        self.own_settings: dict[str, str] = {}
        self.prepared: dict[str, str] = {}
        self.numbers = itertools.count(1)
        # A file may select values of any type. One that pg8000 cannot convert would break the connection.
        for oid in PG_TYPES.keys() - READ_TYPES:
            connection.register_in_adapter(oid, str)
        connection.register_in_adapter(XID8, self.note_lock)
        self.facts = self.read_facts(encrypted.version() or "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def encoding(self) -> str:
        """The database's encoding, which the server reports at each login."""
        return str(self.connection.parameter_statuses.get("server_encoding", "UTF8"))

    def close(self) -> None:
        with suppress(*LOST):  # It is gone already, with all its locks.
            self.connection.close()
        hang_up(self.encrypted)

    def note_lock(self, value: str) -> str:
        """Called when the row arrives, because pg8000 drops the rows of a message that fails later."""
        self.lock_held = True
        return value

    def read_facts(self, tls: str) -> ServerFacts:
        """The settings are pinned, transaction_timeout is set, and the limits in force were read back.

        Raises:
            ConfigurationError: a pooler stands in front of the server, or a limit is not in force. Nothing was changed.
        """
        ((text,),) = self.query(READ_OWN)
        own = json.loads(text)
        # At the login a server sends the pid of its own process. A pooler sends a number of its own instead, and may
        # change the server's process between two transactions.
        # https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-BACKENDKEYDATA
        if own["pid"] != int.from_bytes((self.connection._backend_key_data or b"")[:4]):
            raise errors.pooler_in_front(self.target.address)
        self.own_settings = own["settings"]
        names = [*self.limits.server_limits(), "transaction_timeout", "deadlock_timeout"]
        settings = ", ".join(f"{literal(name)}, pg_catalog.current_setting({literal(name)}, true)" for name in names)
        *_, (text,) = self.query(
            f"{PIN};"
            "SELECT CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL THEN"
            f" pg_catalog.set_config('transaction_timeout', '{self.limits.transaction_timeout_ms}ms', false) END;"
            f"SELECT pg_catalog.json_build_object('limits', pg_catalog.json_build_object({settings}),"
            f" 'clock', {SERVER_CLOCK}, 'name', d.datname, 'user', current_user,"
            " 'server_version', pg_catalog.split_part(pg_catalog.current_setting('server_version'), ' ', 1),"
            " 'version_number', pg_catalog.current_setting('server_version_num')::int, 'database_oid', d.oid::bigint,"
            " 'in_recovery', pg_catalog.pg_is_in_recovery(),"
            " 'read_only', pg_catalog.current_setting('transaction_read_only')::bool)"
            " FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
        )
        facts = json.loads(text)
        self.note_clock(facts.pop("clock"))
        limits = {name: parse_ms(shown) for name, shown in facts.pop("limits").items() if shown is not None}
        deadlock_timeout_ms = limits.pop("deadlock_timeout")
        asked = self.limits.server_limits()
        if "transaction_timeout" in limits:
            asked |= {"transaction_timeout": self.limits.transaction_timeout_ms}
        for name, asked_ms in asked.items():
            if not 0 < limits.get(name, 0) <= asked_ms:
                raise errors.limit_not_in_force(self.target.address, name, asked_ms, limits.get(name, 0))
        return ServerFacts(
            host=self.target.host,
            port=self.target.port,
            tls=tls,
            limits=limits,
            deadlock_timeout_ms=deadlock_timeout_ms,
            schemas=tuple(own["schemas"]),
            **facts,
        )

    def query(self, sql: str) -> list[Row]:
        """The rows of all statements of `sql`, one after another, from one round trip.

        Raises:
            LockNotAvailable, InUse, HotfixError: this has changed nothing.
        """
        started = time.monotonic()
        try:
            return self.connection.run(sql) or []
        except (DatabaseError, *LOST) as error:
            raise self.translate(error, took_ms=elapsed_ms(started)) from error

    def type_modifiers(self) -> list[int]:
        """The type modifiers of the last query's columns: length, precision, scale, or -1.

        https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ROWDESCRIPTION
        """
        return [column["type_modifier"] for column in self.connection.columns or []]

    def query_prepared(self, sql: str) -> list[Row]:
        """As `query`, for one statement that runs several times: the server parses it once."""
        name = self.prepared.get(sql)
        if name:
            return self.query(f"EXECUTE {name}")
        name = f"pg_hotfix_{next(self.numbers)}"  # Never the same twice: a failed attempt may have prepared it.
        rows = self.query(f"PREPARE {name} AS {sql}; EXECUTE {name}")
        self.prepared[sql] = name
        return rows

    def prepare(self, sql: str) -> None:
        """The server has parsed the statement, but not run it. See `sql_or_execute`."""
        if sql not in self.prepared:
            name = f"pg_hotfix_{next(self.numbers)}"
            self.query(f"PREPARE {name} AS {sql}")
            self.prepared[sql] = name

    def sql_or_execute(self, sql: str) -> str:
        """The statement, or EXECUTE with its name if it was prepared."""
        return f"EXECUTE {self.prepared[sql]}" if sql in self.prepared else sql

    @property
    def own_search_path(self) -> list[str]:
        path = self.own_settings["search_path"].strip()
        return [path] if path else []

    def share_of_statements(self, count: int) -> int:
        """Returns how long each of `count` statements may take, in ms. Before PostgreSQL 17 that is a share, because
        there nothing limits the transaction as a whole, and the server runs a message to its end even if the client is
        gone."""
        has_transaction_timeout = self.facts.version_number >= 170000
        return (
            self.limits.statement_timeout_ms
            if has_transaction_timeout
            else max(1, self.limits.statement_timeout_ms // count)
        )

    def read_clock(self) -> None:
        """The server's clock was read again, since an administrator may have set it."""
        ((server_clock,),) = self.query(f"SELECT {SERVER_CLOCK}")
        self.note_clock(server_clock)

    def note_clock(self, server_clock: float) -> None:
        """`server_clock` was read and has just arrived, so the server's clock is ahead of ours by at least the
        difference."""
        self.server_clock_ahead = max(self.server_clock_ahead, server_clock - time.monotonic())

    def server_time_in(self, milliseconds: int) -> str:
        """SQL for that moment in the future, by the server's clock."""
        return f"pg_catalog.to_timestamp({time.monotonic() + self.server_clock_ahead + milliseconds / 1000:.3f})"

    def run_file(
        self,
        hotfix: str,
        before: str,
        sql: str,
        after: str,
        *,
        schemas: Sequence[str],
        locking_ms: int,
        statement_ms: int,
        reverting: bool,
    ) -> list[Row]:
        """The rows of `before`, of the file's own SQL, and of `after`, run in this order in one round trip. `before`
        begins the transaction, divides by zero if it arrives too late, takes the lock in at most `locking_ms`, and ends
        by selecting an xid8: when that row arrives, the lock is held. Each later statement has `statement_ms`. `after`
        may end with COMMIT.

        Only the file's SQL runs under the session's own settings, with `schemas` first in its search_path.

        Raises:
            OutcomeUnknownError: the connection was lost meanwhile. LockNotAvailable, ArrivedLate, HistoryBusy,
            NotAsExpected, InUse, other errors of errors.py: the transaction has failed, so nothing was changed.
        """
        own = self.own_settings | {"search_path": ", ".join([*map(quoted, schemas), *self.own_search_path])}
        prefix = f"{before};{set_sql(own)};\n"
        self.lock_held = False
        started = time.monotonic()
        try:
            # The line break ends a comment in the file's last line; a second semicolon is an empty statement.
            return self.connection.run(f"{prefix}{sql}\n;{END_OF_FILE};{after}") or []
        except DatabaseError as error:
            sqlstate, message = sqlstate_of(error), error.args[0].get("M", "")
            if sqlstate == "57014" and not self.lock_held and is_over(elapsed_ms(started), locking_ms):
                raise LockNotAvailable("57014") from error
            if sqlstate == DIVISION_BY_ZERO and not self.lock_held:
                raise ArrivedLate from error
            if sqlstate == INVALID_TEXT and NOT_AS_EXPECTED in message:
                wanted, _, seen = message.partition(NOT_AS_EXPECTED)[2].partition("[")
                raise NotAsExpected(wanted, f"[{seen.rpartition(']')[0]}]") from error
            took_ms = elapsed_ms(started)
            offset = len(prefix.encode()) if self.encoding == "SQL_ASCII" else len(prefix)
            raise self.translate(error, hotfix, sql, offset, statement_ms, took_ms=took_ms) from error
        except LOST as error:
            # pg8000 loses the server's last message. If the server closed the connection after transaction_timeout, it
            # was 25P04. A time-out of our socket has another cause, since the server's own limits are shorter: the
            # network is down.
            if hung_up(error) and elapsed_ms(started) >= self.limits.transaction_timeout_ms - MARGIN_MS / 2:
                raise errors.transaction_timeout(hotfix, self.limits.transaction_timeout_ms) from error
            raise errors.outcome_unknown(hotfix, self.target.address, reason_of(error), reverting=reverting) from error

    def commit(self, hotfix: str, sql: str, *, reverting: bool) -> list[Row]:
        """`sql` was run, and the transaction is committed. Returns the rows.

        Raises:
            OutcomeUnknownError: the connection was lost meanwhile. LockNotAvailable, HistoryBusy, SqlRefusedError: the
            SQL or a deferred trigger failed, and the server rolls back.
        """
        try:
            return self.connection.run(f"{sql}COMMIT") or []
        except DatabaseError as error:  # The server answered, so it is still there, and has rolled back.
            raise self.translate(error, hotfix) from error
        except LOST as error:
            raise errors.outcome_unknown(hotfix, self.target.address, reason_of(error), reverting=reverting) from error

    def roll_back(self) -> None:
        """The transaction is rolled back, and holds no lock. A connection that fails here is closed, which has the same
        effect."""
        try:
            self.connection.run("ROLLBACK")
        except (DatabaseError, *LOST):
            self.close()

    def translate(
        self,
        error: Exception,
        hotfix: str | None = None,
        sql: str = "",
        offset: int = 0,
        statement_ms: int = 0,
        *,
        took_ms: float = math.inf,
    ) -> Exception:
        """The error of errors.py for one of pg8000, after `took_ms`. The other arguments are given if the file ran:
        `offset` is where its SQL began in the message, and `statement_ms` its limit."""
        if not isinstance(error, DatabaseError):
            if self.connection.last_words:
                return errors.pooler_unavailable(self.target.address, f"08P01: {self.connection.last_words}")
            return errors.connection_lost(self.target.address, reason_of(error))
        sqlstate, fields = sqlstate_of(error), error.args[0]
        message = fields.get("M", "")
        if hotfix and not is_free_of_row_data(sqlstate, fields, sql):
            message = WITHHELD
        if sqlstate in ("40001", "40P01") and fields.get("R", "").startswith(CANCELLED_IN):
            return errors.cancelled_by_replay(self.target.address, f"{sqlstate}: {message}")
        if sqlstate in LOCK_NOT_AVAILABLE:
            # Its message, detail and context, and the query inside a function.
            return LockNotAvailable(sqlstate, " ".join(fields.get(field, "") for field in "MDWq"))
        if sqlstate == INVALID_TEXT and HISTORY_BUSY in fields.get("M", ""):
            return HistoryBusy()
        if sqlstate == RAISED and fields.get("M", "").startswith(IN_USE):
            position, _, why = fields["M"].removeprefix(IN_USE).partition(" ")
            return InUse(int(position), why)
        if ENDED_BY_SERVER.fullmatch(sqlstate):
            return errors.connection_lost(self.target.address, f"{sqlstate}: {message}")
        hint = fields.get("H", "")
        if sqlstate == "53200" and (setting := LOCK_TABLE.search(hint)) and not is_made_up(fields):
            return errors.lock_table_full(hotfix or "a catalog query of pg-hotfix", message, setting[0])
        if IN_TROUBLE.fullmatch(sqlstate):
            return errors.server_in_trouble(self.target.address, f"{sqlstate}: {message}")
        if sqlstate == "57014":
            return self.translate_cancelled(hotfix, message, took_ms, statement_ms or self.limits.statement_timeout_ms)
        if sqlstate == "25006":
            return errors.read_only(self.target.address, message)
        if sqlstate == "42501":
            return errors.permission_denied(self.target.user, message)
        hint = hint if HOLDS_NO_DATA.fullmatch(hint) and not is_made_up(fields) else ""
        if hotfix is None and sqlstate in NOT_CONVERTED and self.encoding != "UTF8":
            reason = f"{sqlstate}: {message}"
            return errors.catalog_not_readable(self.target.database, self.encoding, reason)
        if hotfix is None:
            return errors.query_refused(sqlstate, message, hint)
        position = int(fields.get("P", 0)) - offset
        if self.encoding == "SQL_ASCII" and position > 0:  # It counts bytes.
            position = len(sql.encode()[: position - 1].decode(errors="ignore")) + 1
        return errors.sql_refused(hotfix, sqlstate, message, excerpt(sql, position), hint)

    def translate_cancelled(
        self, hotfix: str | None, message: str, took_ms: float, limit_ms: int
    ) -> errors.StatementTimeoutError:
        """The server's own limit never ends a statement early, so another session has cancelled one that ended early.
        The message may be in any language, so it does not tell the cause."""
        if not is_over(took_ms, limit_ms):
            what = hotfix or "a catalog query of pg-hotfix"
            return errors.cancelled_by_somebody(what, message, round(took_ms), limit_ms)
        if hotfix:
            return errors.statement_timeout(hotfix, message, limit_ms)
        return errors.catalog_too_slow(self.target.address, message, round(took_ms), limit_ms)


def is_over(took_ms: float, limit_ms: int) -> bool:
    """Whether the server's own limit may have ended a statement that took so long. The server measures by the wall
    clock, which may be adjusted meanwhile, and pg-hotfix does not: so the server may seem to be early.

    https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-STATEMENT-TIMEOUT
    """
    return took_ms >= limit_ms * CLOCKS_AGREE


def with_names(sql: str) -> str:
    """The same rows, each as one text for `read_as`. The query's columns have the names of a dataclass's fields."""
    return f"SELECT pg_catalog.row_to_json(named)::text FROM ({sql}) AS named"


def read_as[T](kind: type[T], rows: Iterable[Row]) -> list[T]:
    return [kind(**json.loads(text)) for (text,) in rows]


def open_session(target: Target, limits: Limits, ca_bundle: Path) -> Session:
    """A session with the server's certificate and host name verified, the limits in force and the settings pinned.

    Raises:
        LoginRefused, DatabaseUnavailableError, TlsError, LoginError, ConfigurationError: nothing was changed. Nothing
        secret was sent before TLS was verified.
    """
    encrypted = transport.encrypt(transport.connect_socket(target, limits), target, ca_bundle)
    try:
        connection = LibpqConnection(
            target.user,
            host=target.host,
            port=target.port,
            database=target.database,
            password=target.password,
            ssl_context=False,  # It is encrypted already.
            application_name="pg-hotfix",
            startup_params=SESSION_PARAMETERS | limits.startup_parameters(),
            sock=encrypted,
        )
    except (DatabaseError, *LOST) as error:
        hang_up(encrypted)
        raise translate_login(first_of(error), target) from error
    except ScramException:
        hang_up(encrypted)
        raise errors.scram_failed(target.address, target.user) from None
    try:
        return Session(connection, encrypted, target, limits)
    except BaseException:
        with suppress(*LOST):
            connection.close()
        hang_up(encrypted)
        raise


def first_of(error: Exception) -> Exception:
    """The first error. After a refused login pg8000 sends Terminate, and if that fails it raises that error instead."""
    while isinstance(error.__context__, (DatabaseError, *LOST)):
        error = error.__context__
    return error


def hang_up(encrypted: ssl.SSLSocket) -> None:
    """The server learns at once that the client is gone. Otherwise pg8000's file keeps the socket open as long as the
    traceback of an exception refers to it."""
    with suppress(OSError):
        encrypted.shutdown(socket.SHUT_RDWR)
    encrypted.close()


def parse_ms(shown: str) -> int:
    """A limit as PostgreSQL shows it, in the largest unit that divides it: `90s`, `2min`, or `0` without one. See
    convert_int_from_base_unit in https://github.com/postgres/postgres/blob/master/src/backend/utils/misc/guc.c
    """
    number = shown.rstrip("dhimns")
    return int(number) * UNITS_MS[shown.removeprefix(number)]
