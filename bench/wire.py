"""What passes between a tool and the server, seen from a proxy in between, and what of it passes under the lock.

The proxy ends TLS with the server's own certificate and key, so that both sides verify what they always verify, the
channel binding of SCRAM included. https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import asyncio
import contextlib
import re
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from local.postgres import Server

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
TAKES_THE_LOCK = re.compile(rb"\b(?:LOCK|ALTER)\s+TABLE\b", re.IGNORECASE)
IDLE = b"I"


@dataclass(frozen=True)
class Message:
    """`kind` is the protocol's letter, `at` the moment at which the proxy had it, on the monotonic clock."""

    from_client: bool
    kind: bytes
    body: bytes
    at: float


@dataclass(frozen=True)
class UnderLock:
    """From the message that takes the lock, when it was sent, to the answer that the transaction is over."""

    statements: int
    round_trips: int
    ms: float


@dataclass
class Tap:
    """What was seen so far, one list for each connection."""

    port: int = 0
    connections: list[list[Message]] = field(default_factory=list)

    def take(self) -> list[UnderLock]:
        """Returns every transaction that has asked for the lock since the last time."""
        seen, self.connections = self.connections, []
        return [use for messages in seen for use in find_under_lock(messages)]


def find_under_lock(messages: Sequence[Message]) -> list[UnderLock]:
    found = []
    since: float | None = None
    statements = round_trips = 0
    for message in messages:
        if message.from_client:
            if since is None and message.kind in (b"Q", b"P") and TAKES_THE_LOCK.search(message.body):
                since, statements, round_trips = message.at, 0, 0
        elif since is not None:
            statements += message.kind == b"C"
            round_trips += message.kind == b"Z"
            if message.kind == b"Z" and message.body == IDLE:
                found.append(UnderLock(statements, round_trips, (message.at - since) * 1000))
                since = None
    return found


class Splitter:
    """Cuts a stream into messages, wherever its parts begin and end."""

    def __init__(self, *, from_client: bool) -> None:
        self.from_client = from_client
        self.rest = b""
        # A client's first message has no letter.
        self.header = 4 if from_client else 5

    def feed(self, data: bytes, at: float) -> Iterator[Message]:
        self.rest += data
        while len(self.rest) >= self.header:
            kind = self.rest[: self.header - 4]
            (length,) = struct.unpack("!i", self.rest[len(kind) : self.header])
            end = len(kind) + length
            if len(self.rest) < end:
                return
            yield Message(self.from_client, kind, self.rest[self.header : end], at)
            self.rest, self.header = self.rest[end:], 5


@contextlib.contextmanager
def tapped(server: Server) -> Iterator[Tap]:
    """Within the block whoever connects to the tap's port talks to the server, and every message is kept."""
    tap = Tap()
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await relay_connection(server, tap, reader, writer)

        listener = await asyncio.start_server(relay, "127.0.0.1", 0)
        tap.port = listener.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        listener.close()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    ready.wait()
    try:
        yield tap
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def relay_connection(
    server: Server, tap: Tap, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Both sides have said all that they had to say, and are closed."""
    messages: list[Message] = []
    tap.connections.append(messages)
    while await reader.readexactly(8) != SSL_REQUEST:
        writer.write(b"N")  # Such as GSSENCRequest, after which clients ask for TLS.
    writer.write(b"S")
    await writer.start_tls(own_context(server))
    up_reader, up_writer = await asyncio.open_connection("127.0.0.1", server.port)
    up_writer.write(SSL_REQUEST)
    await up_reader.readexactly(1)
    authority = ssl.create_default_context(cafile=str(server.ca_bundle))
    await up_writer.start_tls(authority, server_hostname=server.host)
    await asyncio.gather(
        pump(reader, up_writer, Splitter(from_client=True), messages.append),
        pump(up_reader, writer, Splitter(from_client=False), messages.append),
    )


async def pump(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    splitter: Splitter,
    keep: Callable[[Message], None],
) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            at = time.monotonic()
            target.write(data)
            for message in splitter.feed(data, at):
                keep(message)
            await target.drain()
    target.close()


def own_context(server: Server) -> ssl.SSLContext:
    cluster = server.ca_bundle.parent
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cluster / "server.crt", cluster / "server.key")
    return context
