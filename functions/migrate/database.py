"""One verified connection to PostgreSQL. The only module that knows pg8000.

Everything goes over the simple query protocol: one round trip each, several statements in one message, and the SQL of a
file unchanged.
"""

from __future__ import annotations

import re
import socket
import ssl
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection, literal
from scramp import ScramException

import errors
from settings import AMAZON_ROOTS

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from credentials import Target
    from limits import Limits

__all__ = ["LockNotAvailable", "LoginRefused", "ServerFacts", "Session", "literal", "open_session"]

type Row = list[Any]

# https://www.postgresql.org/docs/current/errcodes-appendix.html
LOCK_NOT_AVAILABLE = {"55P03", "40P01"}
# 57P03 starting up or shutting down, 57P01 and 57P02 ended by the administrator or a crash, 25P03 idle in transaction
# for too long.
UNAVAILABLE = re.compile(r"08...|53...|58...|57P0[1235]|25P03|XX...")
# What `literal` and the reading of files rely on, whatever the role's own settings say.
SESSION_PARAMETERS = {"client_encoding": "UTF8", "standard_conforming_strings": "on"}
# Data exceptions quote the value that did not fit, and that value may be a row's.
QUOTES_ROW_DATA = re.compile(r"22...")
WITHHELD = "its text may quote row data and is withheld"


class LockNotAvailable(Exception):  # noqa: N818 - never leaves the function
    """The lock was not free within lock_timeout. The transaction, if any, has failed and holds nothing."""


class LoginRefused(Exception):  # noqa: N818 - never leaves the function
    """The server refused the credentials (28xxx). The secret may have been rotated since it was read."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


@dataclass(frozen=True)
class ServerFacts:
    """What the server says of itself and of us. `database_oid` tells a restored or recreated database of the same
    name apart."""

    host: str
    port: int
    name: str
    user: str
    server_version: str
    tls: str
    database_oid: int
    in_recovery: bool
    read_only: bool
    search_path: str

    def describe(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in asdict(self).items()
            if key in ("host", "port", "name", "user", "server_version", "tls")
        }


class Session:
    """One connection with its time limits in force. Leaving it as a context manager closes it; an open transaction
    is rolled back by that."""

    def __init__(self, connection: Connection, target: Target, limits: Limits, ca_bundle: Path) -> None:
        self.connection = connection
        self.target = target
        self.limits = limits
        self.ca_bundle = ca_bundle
        self.facts = self.read_facts()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with suppress(InterfaceError, OSError):  # It is gone already, and so is everything it held.
            self.connection.close()

    def read_facts(self) -> ServerFacts:
        (row,) = self.query(
            "SELECT pg_catalog.current_database(), current_user, d.oid, pg_catalog.pg_is_in_recovery(),"
            " pg_catalog.current_setting('transaction_read_only') = 'on',"
            " pg_catalog.current_setting('search_path'), s.version"
            " FROM pg_catalog.pg_database d LEFT JOIN pg_catalog.pg_stat_ssl s ON s.pid = pg_catalog.pg_backend_pid()"
            " WHERE d.datname = pg_catalog.current_database()"
        )
        name, user, oid, in_recovery, read_only, search_path, tls = row
        version = self.connection.parameter_statuses["server_version"].split(" ")[0]
        return ServerFacts(
            self.target.host, self.target.port, name, user, version, tls, oid, in_recovery, read_only, search_path
        )

    def query(self, sql: str) -> list[Row]:
        """The rows of all statements of `sql`, one after another, from one round trip.

        Raises:
            LockNotAvailable, and the errors of the contract; nothing was changed by this.
        """
        try:
            return self.connection.run(sql) or []
        except (DatabaseError, InterfaceError, OSError) as error:
            raise self.translate(error, None, 0) from error

    def type_modifiers(self) -> list[tuple[int, int]]:
        """Type oid and modifier of each column of the last query. A domain shows as its base type.

        https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ROWDESCRIPTION
        """
        return [(column["type_oid"], column["type_modifier"]) for column in self.connection.columns or []]

    def begin(self) -> None:
        """A transaction is open and holds nothing yet. From 17 on the server also limits it as a whole."""
        sql = "BEGIN"
        if int(self.facts.server_version.partition(".")[0]) >= 17:
            sql += f"; SET LOCAL transaction_timeout = '{self.limits.transaction_timeout_ms}ms'"
        self.query(sql)

    def run_file(self, hotfix: str, before: str, sql: str, after: str) -> list[Row]:
        """The rows of `before`, the file's own SQL, and `after`, run in this order in one round trip.

        Raises:
            LockNotAvailable, and the errors of the contract: the transaction has failed, so nothing was changed.
        """
        prefix = f"{before};\n"
        try:
            # The line break ends a comment in the file's last line; a second semicolon is an empty statement, which is
            # allowed.
            return self.connection.run(f"{prefix}{sql}\n;{after}") or []
        except (DatabaseError, InterfaceError, OSError) as error:
            raise self.translate(error, (hotfix, sql), len(prefix)) from error

    def commit(self, hotfix: str) -> None:
        """The transaction is committed.

        Raises:
            OutcomeUnknownError: the connection was lost meanwhile. SqlRefusedError: a deferred constraint failed;
            rolled back.
        """
        try:
            self.connection.run("COMMIT")
        except DatabaseError as error:
            if UNAVAILABLE.fullmatch(sqlstate_of(error)):
                raise errors.outcome_unknown(hotfix, self.target.address, sqlstate_of(error)) from error
            raise self.translate(error, (hotfix, ""), 0) from error
        except (InterfaceError, OSError) as error:
            raise errors.outcome_unknown(hotfix, self.target.address, reason_of(error)) from error

    def roll_back(self) -> None:
        """Nothing of the transaction is left, and it holds no lock. A connection that fails here is closed, which
        has the same effect."""
        try:
            self.connection.run("ROLLBACK")
        except (DatabaseError, InterfaceError, OSError):
            self.close()

    def translate(self, error: Exception, file: tuple[str, str] | None, offset: int) -> Exception:
        """The contract's error for pg8000's. `file` is the hotfix and its SQL when it was the file that ran;
        `offset` is where it began."""
        if not isinstance(error, DatabaseError):
            return errors.connection_lost(self.target.address, reason_of(error))
        sqlstate, fields = sqlstate_of(error), error.args[0]
        message = WITHHELD if QUOTES_ROW_DATA.fullmatch(sqlstate) else fields.get("M", "")
        if sqlstate in LOCK_NOT_AVAILABLE:
            return LockNotAvailable(sqlstate)
        if UNAVAILABLE.fullmatch(sqlstate):
            return errors.connection_lost(self.target.address, f"{sqlstate}: {message}")
        if sqlstate in ("57014", "25P04"):
            limit = self.limits.statement_timeout_ms if sqlstate == "57014" else self.limits.transaction_timeout_ms
            return errors.statement_timeout(file[0] if file else "a look into the catalog", limit)
        if sqlstate == "25006":
            return errors.read_only(self.target.address, message)
        if sqlstate == "42501":
            return errors.permission_denied(self.target.user, message)
        if file is None:
            return errors.query_refused(sqlstate, message)
        hotfix, sql = file
        position = int(fields.get("P", 0)) - offset
        return errors.sql_refused(hotfix, sqlstate, message, excerpt(sql, position))


def open_session(target: Target, limits: Limits, ca_bundle: Path) -> Session:
    """A session whose server's certificate and name are verified, with the limits in force.

    Raises:
        LoginRefused, DatabaseUnavailableError, TlsError, LoginError: nothing was changed; before TLS is verified
        nothing secret was sent.
    """
    plain = connect_socket(target, limits)
    try:
        connection = Connection(
            target.user,
            host=target.host,
            port=target.port,
            database=target.database,
            password=target.password,
            ssl_context=tls_context(ca_bundle),
            application_name="pg-hotfix",
            startup_params=SESSION_PARAMETERS | limits.startup_parameters(),
            sock=plain,
        )
    except (DatabaseError, InterfaceError, OSError) as error:
        plain.close()
        raise translate_connect(error, target) from error
    except ScramException:
        plain.close()
        raise errors.scram_failed(target.address, target.user) from None
    try:
        return Session(connection, target, limits, ca_bundle)
    except BaseException:
        with suppress(InterfaceError, OSError):
            connection.close()
        raise


def connect_socket(target: Target, limits: Limits) -> socket.socket:
    """A TCP connection that notices a vanished peer: pg8000 alone would leave the kernel's two hours.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES
    """
    try:
        plain = socket.create_connection((target.host, target.port), timeout=limits.connect_timeout_ms / 1000)
    except (OSError, UnicodeError) as error:
        raise errors.database_unavailable(target.address, reason_of(error)) from error
    plain.settimeout(limits.socket_timeout_ms / 1000)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", limits.socket_timeout_ms),
    ):
        plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return plain


@cache
def tls_context(ca_bundle: Path) -> ssl.SSLContext:
    """Verifies certificate and host name against the bundle of RDS and, for RDS Proxy, Amazon's public roots;
    against nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca_bundle)
    context.load_verify_locations(AMAZON_ROOTS)
    return context


def translate_connect(error: Exception, target: Target) -> Exception:
    host, port = target.host, target.port
    if isinstance(error, ssl.SSLCertVerificationError):
        mismatch = error.verify_code in (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        explain = errors.host_name_mismatch if mismatch else errors.certificate_not_verified
        return explain(host, port, error.verify_message.rstrip("."))
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return errors.tls_failed(host, port, error.reason or "protocol error")
    if isinstance(error, InterfaceError) and str(error) == "Server refuses SSL":
        return errors.tls_not_offered(host, port)
    if not isinstance(error, DatabaseError):
        return errors.database_unavailable(target.address, reason_of(error))
    sqlstate = sqlstate_of(error)
    if sqlstate.startswith("28"):
        return LoginRefused(sqlstate)
    message = error.args[0].get("M", "")
    if sqlstate in ("3D000", "42501"):
        return errors.database_refused(target.address, target.user, sqlstate, message)
    return errors.database_unavailable(target.address, f"{sqlstate}: {message}")


def sqlstate_of(error: DatabaseError) -> str:
    return str(error.args[0].get("C", "XX000"))


def reason_of(error: Exception) -> str:
    """Why a connection failed, in the words of the system; pg8000 wraps them in its own."""
    cause = error.__cause__ if isinstance(error, InterfaceError) and error.__cause__ else error
    if isinstance(cause, InterfaceError):
        return "the server closed it"
    if isinstance(cause, TimeoutError):
        return "timed out"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__


def excerpt(sql: str, position: int) -> str:
    """The line of `sql` that holds the character at `position`, counted from 1, with a caret below it; empty when it
    lies outside."""
    if not 1 <= position <= len(sql) + 1:
        return ""
    start = sql.rfind("\n", 0, position - 1) + 1
    line = sql[start:].split("\n", 1)[0].rstrip("\r").replace("\t", " ")
    head = f"LINE {sql.count('\n', 0, start) + 1}: "
    return f"{head}{line}\n{' ' * (len(head) + position - 1 - start)}^"
