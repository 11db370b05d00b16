"""How often a run of the function waits for the database, told by the messages that the proxy has recorded."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.wire import find_under_lock
from laptop.proxy import Message

# Of whatever leads to TLS, which costs any client two round trips after that of TCP.
BEFORE_TLS = ("SSLRequest", "ClientHello")
GOOD_BYE = "X"
LOOKS_AT_COLUMNS = "pg_catalog.pg_attribute"


@dataclass(frozen=True)
class RoundTrips:
    """Of one run on one connection, over TLS. `to_look` are those of the login and after it until the columns were
    seen; None where nobody looks at them so. `under_lock` is 0 where no lock was asked for."""

    login: int
    to_look: int | None
    all: int
    under_lock: int


def count_round_trips(messages: Sequence[Message]) -> RoundTrips:
    sent = [m for m in messages if m.sender == "client" and m.type not in (*BEFORE_TLS, GOOD_BYE)]
    looks = (number for number, message in enumerate(sent, start=1) if LOOKS_AT_COLUMNS in message.text)
    uses = find_under_lock(messages)
    return RoundTrips(
        sum(message.type != "Q" for message in sent), next(looks, None), len(sent), sum(use.round_trips for use in uses)
    )
