"""What an operator reads when the peer resets, hangs up, talks nonsense or falls silent, at each step of a login."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.conftest import PATIENCE_SECONDS, new_password

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Outcome

    type Peer = socket.socket | ssl.SSLSocket
    type Talk = Callable[[Peer], None]

PLAINTEXT = b"HTTP/1.1 400 Bad Request\r\n\r\n"
ALERT = b"\x15\x03\x03\x00\x02\x02"  # A fatal alert of TLS, but for its number.


def hang_up(_: Peer) -> None:
    pass


def reset(peer: Peer) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.socket.close(peer)


def say(words: bytes) -> Talk:
    def talk(peer: Peer) -> None:
        peer.sendall(words)

    return talk


def say_and_listen(words: bytes) -> Talk:
    """Whoever hangs up on unread words resets the connection."""

    def talk(peer: Peer) -> None:
        peer.sendall(words)
        peer.recv(65_536)

    return talk


def say_and_wait(words: bytes) -> Talk:
    """Nothing more until the caller gives up."""

    def talk(peer: Peer) -> None:
        peer.sendall(words)
        with contextlib.suppress(OSError):
            while peer.recv(4096):
                pass

    return talk


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ask(
    call: Callable[..., Outcome],
    secrets_manager: Callable[..., str],
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., str]:
    """The error's name and text of a `check` against a server that does as told, its port written as PORT."""

    def ask(before_tls: Talk | None, after_tls: Talk = hang_up, certificate: trustme.LeafCert | None = None) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (certificate or authority.issue_cert("localhost")).configure_cert(context)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                connection, _ = listener.accept()
                connection.settimeout(PATIENCE_SECONDS)
                with connection, contextlib.suppress(OSError):
                    connection.recv(8)
                    if before_tls:
                        before_tls(connection)
                        return
                    connection.sendall(b"S")
                    with context.wrap_socket(connection, server_side=True) as encrypted:
                        encrypted.recv(4096)
                        after_tls(encrypted)

            thread = threading.Thread(target=serve)
            thread.start()
            port = listener.getsockname()[1]
            secrets_manager(f"postgres://app:{new_password()}@localhost:{port}/kaviar")
            monkeypatch.setenv("DB_CA_BUNDLE", str(tmp_path / "ca.pem"))
            monkeypatch.setenv("SQL_DIR", "sql")
            monkeypatch.setenv("STATEMENT_TIMEOUT_MS", "100")  # Its socket waits for 1.1 s.
            outcome = call({"action": "check"})
            thread.join(PATIENCE_SECONDS)
        return f"{outcome.error_name}: {outcome.text.replace(str(port), 'PORT')}"

    return ask


def no_connection(reason: str) -> str:
    return (
        f"DatabaseUnavailableError: Cannot connect to the database kaviar at localhost:PORT ({reason}). Nothing was"
        " changed. If it keeps failing, check that the instance is available and that its security group lets the"
        " function in."
    )


def tls_failed(reason: str) -> str:
    return (
        f"TlsError: TLS with localhost:PORT failed: {reason}. No credentials were sent. Nothing was changed. The"
        " server must speak TLS 1.2 or later: check its ssl_min_protocol_version, and what stands between."
    )


CASES = {
    "hangs up": (hang_up, no_connection("it closed the connection")),
    "resets": (reset, no_connection("Connection reset by peer")),
    "answers nonsense": (say(b"\x00"), no_connection("its answer is not PostgreSQL's")),
    "falls silent": (say_and_wait(b""), no_connection("timed out")),
    "hangs up within TLS": (say_and_listen(b"S"), no_connection("the server closed it")),
    "hangs up within a record of TLS": (say_and_wait(b"S\x16\x03\x03\x00\x50ab"), no_connection("timed out")),
    "speaks plaintext within TLS": (say_and_wait(b"S" + PLAINTEXT), tls_failed("WRONG_VERSION_NUMBER")),
    "refuses our version": (say_and_wait(b"S" + ALERT + b"\x46"), tls_failed("TLSV1_ALERT_PROTOCOL_VERSION")),
    "refuses our ciphers": (say_and_wait(b"S" + ALERT + b"\x28"), tls_failed("SSLV3_ALERT_HANDSHAKE_FAILURE")),
    "fails within TLS": (say_and_wait(b"S" + ALERT + b"\x50"), tls_failed("TLSV1_ALERT_INTERNAL_ERROR")),
}


@pytest.mark.parametrize(("talk", "text"), CASES.values(), ids=CASES)
def test_a_peer_that_breaks_off_before_tls_is_described(ask: Callable[..., str], talk: Talk, text: str) -> None:
    assert ask(talk) == text


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


STARTING_UP = message(b"E", b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0")
ENCRYPTED_CASES = {
    "hangs up": (hang_up, no_connection("the server closed it")),
    "resets": (reset, no_connection("Connection reset by peer")),
    "speaks another protocol": (say(PLAINTEXT), no_connection("the server closed it")),
    "answers nonsense": (
        say(message(b"!", b"")),
        no_connection("the answer does not follow PostgreSQL's protocol (KeyError)"),
    ),
    "answers half a message": (say(STARTING_UP[:20]), no_connection("the server closed it")),
    "never ends its message": (say_and_wait(b"E\x7f\xff\xff\xff" + b"S"), no_connection("timed out")),
    "falls silent": (say_and_wait(b""), no_connection("timed out")),
    "is starting up": (
        say(STARTING_UP),
        (
            "DatabaseUnavailableError: The server of the database kaviar at localhost:PORT takes no connections now"
            " (57P03: the database system is starting up). Nothing was changed. If it keeps failing, look at the"
            " instance's events:  aws rds describe-events --source-type db-instance"
        ),
    ),
    "wants a login that nobody knows": (
        say(message(b"R", struct.pack("!i", 7))),
        no_connection("Authentication method 7 not supported by pg8000"),
    ),
    "falls silent within the login": (say_and_wait(message(b"R", struct.pack("!i", 3))), no_connection("timed out")),
}


@pytest.mark.parametrize(("talk", "text"), ENCRYPTED_CASES.values(), ids=ENCRYPTED_CASES)
def test_a_peer_that_breaks_off_after_tls_is_described(ask: Callable[..., str], talk: Talk, text: str) -> None:
    assert ask(None, talk) == text


YESTERDAY, TOMORROW = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))


@pytest.mark.parametrize(
    ("issue", "reason"),
    [
        (lambda ca: ca.issue_cert("localhost", not_after=YESTERDAY), "certificate has expired"),
        (lambda ca: ca.issue_cert("localhost", not_before=TOMORROW), "certificate is not yet valid"),
        (lambda _: trustme.CA().issue_cert("localhost"), "unable to get local issuer certificate"),
    ],
    ids=["expired", "not valid yet", "a stranger's"],
)
def test_a_certificate_that_does_not_verify_is_described(
    ask: Callable[..., str], authority: trustme.CA, issue: Callable[[trustme.CA], trustme.LeafCert], reason: str
) -> None:
    assert ask(None, certificate=issue(authority)) == (
        f"TlsError: The certificate of localhost:PORT does not verify: {reason}. No credentials were sent. Nothing"
        " was changed. If RDS has a new root certificate, fetch it, and deploy:  make update-ca-bundle  Otherwise"
        " find out who answers at this address."
    )
