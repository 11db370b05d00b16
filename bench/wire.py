"""What of a tool's talk with the server passes under the lock, told by the messages that the proxy has recorded.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from laptop.proxy import Message

TAKES_THE_LOCK = re.compile(r"\b(?:LOCK|ALTER)\s+TABLE\b", re.IGNORECASE)
IDLE = "I"


@dataclass(frozen=True)
class UnderLock:
    """From the message that takes the lock, when it was sent, to the answer that the transaction is over."""

    statements: int
    round_trips: int
    ms: float


def find_under_lock(messages: Sequence[Message]) -> list[UnderLock]:
    """Returns every transaction of one connection that has asked for the lock."""
    found = []
    since: float | None = None
    statements = round_trips = 0
    for message in messages:
        if message.sender == "client":
            if since is None and TAKES_THE_LOCK.search(message.text):
                since, statements, round_trips = message.at, 0, 0
        elif since is not None:
            statements += message.type == "C"
            round_trips += message.type == "Z"
            if message.type == "Z" and message.text == IDLE:
                found.append(UnderLock(statements, round_trips, (message.at - since) * 1000))
                since = None
    return found
