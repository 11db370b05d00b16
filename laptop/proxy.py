"""A proxy between a client and the embedded PostgreSQL that records every message, and can break the connection at one.

It presents the server's own certificate, so that host name, authority and SCRAM's channel binding verify end to end.
"""

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from laptop.postgres import Server

type Sender = Literal["client", "server"]
type Kind = Literal["reset", "close", "freeze", "delay", "call"]

# https://www.postgresql.org/docs/current/protocol-message-formats.html
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
SSL_REQUEST_MESSAGE = struct.pack("!ii", 8, SSL_REQUEST)
# Makes the kernel send RST instead of FIN.
LINGER_ZERO = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Message:
    """One message, or one step of the way to TLS. `number` counts from 1 within its connection, `at` is monotonic.
    `text` is the SQL of a Query or Parse, and the transaction's status in ReadyForQuery."""

    connection: int
    number: int
    sender: Sender
    type: str
    size: int
    at: float
    text: str = ""


@dataclass(frozen=True)
class Fault:
    """What happens before a message is passed on.

    `reset` sends RST to both sides and `close` FIN. `freeze` passes nothing on any more in either direction and closes
    nothing, as a network that swallows packets; `delay` does so for `seconds`, and then all arrives. `call` calls
    `action`. `message` counts the messages of `sender`, or of both; `connection` None hurts all.
    """

    kind: Kind
    message: int
    sender: Sender | None = None
    connection: int | None = 1
    seconds: float = 0.3
    action: Callable[[], object] | None = None


class Cut(Exception):  # noqa: N818 - never leaves the proxy
    """A fault ended the connection."""


@dataclass
class Link:
    """One client's connection. `passing` is set while it is not frozen."""

    number: int
    passing: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)
    counts: dict[Sender | None, int] = field(default_factory=lambda: {"client": 0, "server": 0, None: 0})
    resets: bool = False

    def add(self, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.sockets.append(writer.get_extra_info("socket"))

    def drop(self) -> None:
        for writer, raw in zip(self.writers, self.sockets, strict=True):
            if self.resets:
                with contextlib.suppress(OSError):  # The other side was faster.
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            writer.transport.abort()


class Proxy:
    """`server` is where the next connection leads. `struck` are the messages that met a fault."""

    def __init__(self, server: Server, faults: tuple[Fault, ...], listener: socket.socket) -> None:
        self.server = server
        self.faults = faults
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self.messages: list[Message] = []
        self.struck: list[Message] = []
        self.stopping = asyncio.Event()
        cluster = server.ca_bundle.parent
        self.to_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.to_client.load_cert_chain(cluster / "server.crt", cluster / "server.key")
        self.to_server = ssl.create_default_context(cafile=server.ca_bundle)
        self.links = itertools.count(1)

    def turns(self, connection: int = 1) -> list[Message]:
        """The messages of a connection after which the other side had spoken: two for each round trip."""
        spoken = [message for message in self.messages if message.connection == connection]
        return spoken[:1] + [now for before, now in itertools.pairwise(spoken) if now.sender != before.sender]

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks: set[asyncio.Task[None]] = set()

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                tasks.add(group.create_task(self.attend(Link(next(self.links)), reader, writer)))

            listening = await asyncio.start_server(accept, sock=self.listener)
            await self.stopping.wait()
            listening.close()
            for task in tasks:
                task.cancel()
        await asyncio.sleep(0.01)  # The loop closes the sockets.

    async def attend(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The connection was passed on until one side, a fault or the proxy's end ended it."""
        link.passing.set()
        link.add(writer)
        # asyncio does this by itself only for the sockets that it makes.
        link.sockets[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self.answer_tls_request(link, reader, writer)
            from_server, to_server = await self.connect(link)
            writer.write(b"S")
            await self.strike(link, "client", "ClientHello")
            await writer.start_tls(self.to_client)
            async with asyncio.TaskGroup() as group:
                group.create_task(self.forward(link, "client", reader, to_server))
                group.create_task(self.forward(link, "server", from_server, writer))
        except* (Cut, EOFError, OSError):
            pass
        finally:
            link.drop()

    async def answer_tls_request(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The client asked for TLS; its ClientHello is not read yet."""
        while True:
            size, code = struct.unpack("!ii", await reader.readexactly(8))
            name = {SSL_REQUEST: "SSLRequest", GSS_REQUEST: "GSSENCRequest"}.get(code, "plaintext")
            await self.strike(link, "client", name, size)
            if name == "plaintext":
                raise Cut
            if name == "SSLRequest":
                # Whatever comes from here on is for TLS to read.
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # typeshed gives writers a plain transport
                return
            await self.strike(link, "server", "N", 1)
            writer.write(b"N")

    async def connect(self, link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An encrypted connection to the server, which has agreed to TLS."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        link.add(writer)
        writer.write(SSL_REQUEST_MESSAGE)
        if await reader.readexactly(1) != b"S":
            raise Cut
        await self.strike(link, "server", "S", 1)
        await writer.start_tls(self.to_server, server_hostname=self.server.host)
        return reader, writer

    async def forward(
        self, link: Link, sender: Sender, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Passes on whole messages, as many at once as have come, unless one of them could meet a fault: a delay for
        each would count as the time that the server takes. Raises EOFError, OSError or Cut at the end."""
        rest, named = b"", sender == "server"  # The client's first message has no type.
        while True:
            try:
                data = await reader.read(65536)
                if not data:
                    raise EOFError
            except (EOFError, OSError):
                await link.passing.wait()
                raise
            rest += data
            ready = b""
            while message := first_message(rest, named=named):
                rest = rest[len(message) :]
                kind, body = message[:named], message[4 + named :]
                await self.strike(link, sender, kind.decode() or "startup", len(message), read_text(sender, kind, body))
                named = True
                ready += message
                if self.faults:
                    writer.write(ready)
                    await writer.drain()
                    ready = b""
            writer.write(ready)
            await writer.drain()

    async def strike(self, link: Link, sender: Sender, kind: str, size: int = 0, text: str = "") -> None:
        """The message is recorded, and what should happen before it is passed on has happened."""
        link.counts[None] += 1
        link.counts[sender] += 1
        message = Message(link.number, link.counts[None], sender, kind, size, time.monotonic(), text)
        self.messages.append(message)
        for fault in self.faults:
            of_sender = fault.sender in (None, sender) and fault.message == link.counts[fault.sender]
            if of_sender and fault.connection in (None, link.number):
                self.struck.append(message)
                await hurt(link, fault)
        await link.passing.wait()


def first_message(data: bytes, *, named: bool) -> bytes:
    """The first whole message, or nothing."""
    if len(data) < 4 + named:
        return b""
    (length,) = struct.unpack_from("!i", data, int(named))
    end = named + length
    return data[:end] if len(data) >= end else b""


def read_text(sender: Sender, kind: bytes, body: bytes) -> str:
    match sender, kind:
        case "client", b"Q":
            return body.rstrip(b"\0").decode(errors="replace")
        case "client", b"P":
            return body.split(b"\0")[1].decode(errors="replace")
        case "server", b"Z":
            return body.decode()
    return ""


async def hurt(link: Link, fault: Fault) -> None:
    match fault.kind:
        case "reset" | "close":
            link.resets = fault.kind == "reset"
            raise Cut
        case "freeze":
            link.passing.clear()
        case "delay":
            link.passing.clear()
            await asyncio.sleep(fault.seconds)
            link.passing.set()
        case "call":
            assert fault.action
            await asyncio.to_thread(fault.action)


@contextlib.contextmanager
def running_proxy(server: Server, *faults: Fault) -> Iterator[Proxy]:
    """Within the block the proxy listens on a port of 127.0.0.1; after it all connections through it are closed."""
    loop = asyncio.new_event_loop()
    with (
        contextlib.closing(loop),
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(1, thread_name_prefix="proxy") as pool,
    ):
        proxy = Proxy(server, faults, listener)
        serving = pool.submit(loop.run_until_complete, proxy.serve())
        try:
            yield proxy
        finally:
            loop.call_soon_threadsafe(proxy.stopping.set)
            serving.result()
            loop.run_until_complete(loop.shutdown_default_executor())
