"""An encrypted TCP connection to the server, with its certificate and host name verified."""

from __future__ import annotations

import socket
import ssl
import struct
from functools import cache
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.settings import AMAZON_ROOTS

if TYPE_CHECKING:
    from pathlib import Path

    from pg_hotfix.server.credentials import Target
    from pg_hotfix.server.limits import Limits

# https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def connect_socket(target: Target, limits: Limits) -> socket.socket:
    """A TCP connection that notices soon if the server has disappeared; by the kernel's defaults that takes two hours.

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
    """The connection is encrypted, and the server's certificate and host name are verified. Before that only the
    request for TLS was sent, and any answer but yes ends the connection.

    https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
    """
    host, port = target.host, target.port
    try:
        plain.sendall(SSL_REQUEST)
        answer = plain.recv(1)
        if answer == b"N":
            raise errors.tls_not_offered(host, port)
        if answer != b"S":
            reason = "it closed the connection" if not answer else "its answer is not PostgreSQL's"
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
    """Verifies certificate and host name with the bundle of RDS and, for RDS Proxy, Amazon's public roots, and with no
    others.

    Raises:
        ConfigurationError: the bundle has no certificates. Nothing was contacted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca_bundle)
    except OSError as error:
        advice = "Remove this setting to use the packaged bundle of RDS."
        raise errors.bad_setting("DB_CA_BUNDLE", f"has no readable certificates ({ca_bundle})", advice) from error
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


def reason_of(error: Exception) -> str:
    """Why a connection failed, in the system's words."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "the server closed it"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"the answer does not follow PostgreSQL's protocol ({type(error).__name__})"
