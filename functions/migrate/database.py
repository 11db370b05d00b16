"""One verified connection to PostgreSQL. The only module that knows pg8000.

Everything goes over the simple query protocol: one round trip each, several statements in one message, and the SQL of a
file unchanged.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from pg8000.converters import PG_TYPES
from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection, literal
from scramp import ScramException

import errors
from limits import MARGIN_MS
from settings import AMAZON_ROOTS

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from credentials import Target
    from limits import Limits

__all__ = ["LockNotAvailable", "LoginRefused", "ServerFacts", "Session", "literal", "open_session", "tls_context"]

type Row = list[Any]

# What pg8000 and the socket raise when the connection is gone, or what comes over it is no protocol.
LOST = (InterfaceError, OSError, LookupError, ValueError, struct.error)

# https://www.postgresql.org/docs/current/errcodes-appendix.html
LOCK_NOT_AVAILABLE = {"55P03", "40P01"}
# 57P03 starting up or shutting down, 57P01 and 57P02 ended by the administrator or a crash, 25P03 idle for too long.
UNAVAILABLE = re.compile(r"08...|53...|58...|57P0[1235]|25P03|XX...")
# Data exceptions quote the value that did not fit, and that value may be a row's.
QUOTES_ROW_DATA = re.compile(r"22...")
WITHHELD = "its text may quote row data and is withheld"

EXCERPT_CHARACTERS = 120

# What `literal` and the reading of files rely on, whatever the role's own settings say.
SESSION_PARAMETERS = {"client_encoding": "UTF8", "standard_conforming_strings": "on"}
# https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
# The types that our own queries return and that are not read as text: boolean, bigint, integer, oid, double precision.
READ_TYPES = {16, 20, 23, 26, 701}


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
    version_number: int
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

    def __init__(self, connection: Connection, target: Target, limits: Limits, tls: str) -> None:
        self.connection = connection
        self.target = target
        self.limits = limits
        # A file may select anything. What pg8000 can't convert would break the connection, and nobody reads it.
        for oid in PG_TYPES.keys() - READ_TYPES:
            connection.register_in_adapter(oid, str)
        self.facts = self.read_facts(tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with suppress(*LOST):  # It is gone already, and so is everything it held.
            self.connection.close()

    def read_facts(self, tls: str) -> ServerFacts:
        (row,) = self.query(
            "SELECT pg_catalog.current_database(), current_user, pg_catalog.current_setting('server_version'),"
            " pg_catalog.current_setting('server_version_num')::int, d.oid, pg_catalog.pg_is_in_recovery(),"
            " pg_catalog.current_setting('transaction_read_only') = 'on', pg_catalog.current_setting('search_path')"
            " FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
        )
        name, user, version, *rest = row
        return ServerFacts(self.target.host, self.target.port, name, user, version.split(" ")[0], tls, *rest)

    def query(self, sql: str) -> list[Row]:
        """The rows of all statements of `sql`, one after another, from one round trip.

        Raises:
            LockNotAvailable, and the errors of the contract; nothing was changed by this.
        """
        try:
            return self.connection.run(sql) or []
        except (DatabaseError, *LOST) as error:
            raise self.translate(error) from error

    def type_modifiers(self) -> list[int]:
        """The type modifier of each column of the last query: length, precision, scale, or -1.

        https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ROWDESCRIPTION
        """
        return [column["type_modifier"] for column in self.connection.columns or []]

    def begin(self) -> None:
        """A transaction is open and holds nothing yet. From 17 on the server also limits it as a whole."""
        sql = "BEGIN"
        if self.facts.version_number >= 170000:
            sql += f"; SET LOCAL transaction_timeout = '{self.limits.transaction_timeout_ms}ms'"
        self.query(sql)

    def run_file(self, hotfix: str, before: str, sql: str, after: str) -> list[Row]:
        """The rows of `before`, the file's own SQL, and `after`, run in this order in one round trip.

        Raises:
            LockNotAvailable, and the errors of the contract: the transaction has failed, so nothing was changed.
        """
        prefix = f"{before};\n"
        started = time.monotonic()
        try:
            # The line break ends a comment in the file's last line; a second semicolon is an empty statement.
            return self.connection.run(f"{prefix}{sql}\n;{after}") or []
        except DatabaseError as error:
            raise self.translate(error, hotfix, sql, len(prefix)) from error
        except LOST as error:
            # pg8000 loses the server's last words. They were 25P04, or it is older than 17 and our socket timed out.
            took_ms = (time.monotonic() - started) * 1000
            if took_ms >= self.limits.transaction_timeout_ms - MARGIN_MS / 2:
                raise errors.transaction_timeout(hotfix, self.limits.transaction_timeout_ms) from error
            raise self.translate(error) from error

    def commit(self, hotfix: str) -> None:
        """The transaction is committed.

        Raises:
            OutcomeUnknownError: the connection was lost meanwhile. LockNotAvailable, SqlRefusedError: a deferred
            trigger failed; all is rolled back.
        """
        try:
            self.connection.run("COMMIT")
        except DatabaseError as error:
            if UNAVAILABLE.fullmatch(sqlstate_of(error)):
                raise errors.outcome_unknown(hotfix, self.target.address, sqlstate_of(error)) from error
            raise self.translate(error, hotfix) from error
        except LOST as error:
            raise errors.outcome_unknown(hotfix, self.target.address, reason_of(error)) from error

    def roll_back(self) -> None:
        """Nothing of the transaction is left, and it holds no lock. A connection that fails here is closed, which has
        the same effect."""
        try:
            self.connection.run("ROLLBACK")
        except (DatabaseError, *LOST):
            self.close()

    def translate(self, error: Exception, hotfix: str | None = None, sql: str = "", offset: int = 0) -> Exception:
        """The contract's error for pg8000's. `hotfix` and `sql` are given when it was the file that ran, and `offset`
        is where it began in the message."""
        if not isinstance(error, DatabaseError):
            return errors.connection_lost(self.target.address, reason_of(error))
        sqlstate, fields = sqlstate_of(error), error.args[0]
        message = WITHHELD if hotfix and QUOTES_ROW_DATA.fullmatch(sqlstate) else fields.get("M", "")
        if sqlstate in LOCK_NOT_AVAILABLE:
            return LockNotAvailable(sqlstate)
        if UNAVAILABLE.fullmatch(sqlstate):
            return errors.connection_lost(self.target.address, f"{sqlstate}: {message}")
        if sqlstate == "57014":
            return errors.statement_timeout(hotfix or "a look", message, self.limits.statement_timeout_ms)
        if sqlstate == "25006":
            return errors.read_only(self.target.address, message)
        if sqlstate == "42501":
            return errors.permission_denied(self.target.user, message)
        if hotfix is None:
            return errors.query_refused(sqlstate, message)
        return errors.sql_refused(hotfix, sqlstate, message, excerpt(sql, int(fields.get("P", 0)) - offset))


def open_session(target: Target, limits: Limits, ca_bundle: Path) -> Session:
    """A session whose server's certificate and name are verified, with the limits in force.

    Raises:
        LoginRefused, DatabaseUnavailableError, TlsError, LoginError: nothing was changed; before TLS is verified
        nothing secret was sent.
    """
    encrypted = encrypt(connect_socket(target, limits), target, ca_bundle)
    try:
        connection = Connection(
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
        encrypted.close()
        raise translate_login(error, target) from error
    except ScramException:
        encrypted.close()
        raise errors.scram_failed(target.address, target.user) from None
    try:
        return Session(connection, target, limits, encrypted.version() or "")
    except BaseException:
        with suppress(*LOST):
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


def encrypt(plain: socket.socket, target: Target, ca_bundle: Path) -> ssl.SSLSocket:
    """The connection is encrypted, and its certificate and host name are verified. Until then nothing is sent but the
    request for TLS; whatever is answered but yes ends it.

    https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
    """
    host, port = target.host, target.port
    try:
        plain.sendall(SSL_REQUEST)
        answer = plain.recv(1)
        if answer == b"N":
            raise errors.tls_not_offered(host, port)
        if answer != b"S":
            reason = "it ended the connection" if not answer else "it answered neither yes nor no to TLS"
            raise errors.database_unavailable(target.address, reason)
        return tls_context(ca_bundle).wrap_socket(plain, server_hostname=host)
    except errors.HotfixError:
        plain.close()
        raise
    except (OSError, ValueError) as error:
        plain.close()
        raise translate_tls(error, target) from error


@cache
def tls_context(ca_bundle: Path) -> ssl.SSLContext:
    """Verifies certificate and host name against the bundle of RDS and, for RDS Proxy, Amazon's public roots; against
    nothing else.

    Raises:
        ConfigurationError: the bundle holds no certificates; nothing was contacted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca_bundle)
    except OSError as error:
        advice = "Leave it out to use the packaged bundle of RDS."
        raise errors.bad_setting("DB_CA_BUNDLE", f"holds no readable certificates ({ca_bundle})", advice) from error
    context.load_verify_locations(AMAZON_ROOTS)
    return context


def translate_tls(error: Exception, target: Target) -> Exception:
    host, port = target.host, target.port
    if isinstance(error, ssl.SSLCertVerificationError):
        mismatch = error.verify_code in (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        explain = errors.host_name_mismatch if mismatch else errors.certificate_not_verified
        return explain(host, port, error.verify_message.rstrip("."))
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return errors.tls_failed(host, port, error.reason or "protocol error")
    return errors.database_unavailable(target.address, reason_of(error))


def translate_login(error: Exception, target: Target) -> Exception:
    if not isinstance(error, DatabaseError):
        return errors.database_unavailable(target.address, reason_of(error))
    sqlstate, message = sqlstate_of(error), error.args[0].get("M", "")
    if sqlstate.startswith("28"):
        return LoginRefused(sqlstate)
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
    if not isinstance(cause, OSError):
        return f"what came back is no PostgreSQL protocol ({type(cause).__name__})"
    if isinstance(cause, TimeoutError):
        return "timed out"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__


def excerpt(sql: str, position: int) -> str:
    """The line of `sql` that holds the character at `position`, counted from 1, with a caret below it; of a long line
    only what surrounds it. Empty when the position lies outside."""
    if not 1 <= position <= len(sql) + 1:
        return ""
    start = sql.rfind("\n", 0, position - 1) + 1
    line = sql[start:].split("\n", 1)[0].rstrip("\r").replace("\t", " ")
    column = position - 1 - start
    cut = max(0, column - EXCERPT_CHARACTERS // 2) if len(line) > EXCERPT_CHARACTERS else 0
    head = f"LINE {sql.count('\n', 0, start) + 1}: "
    return f"{head}{line[cut : cut + EXCERPT_CHARACTERS]}\n{' ' * (len(head) + column - cut)}^"
