"""A transaction in the way of a hotfix: as data for the response, and as a text names it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pg_hotfix.quoting import string

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTOVACUUM = "autovacuum"
WRAPAROUND = "autovacuum to prevent wraparound"
PRISMAS_LOCK = "Prisma's advisory lock 72707369"
# What the reader must know before ending one of these.
WHY_IT_STAYS = {
    WRAPAROUND: " PostgreSQL starts it again if it is ended: let it finish.",
    "prepared": " No session will end it: whoever prepared it must commit it or roll it back.",
    PRISMAS_LOCK: " A prisma migrate that is ended in the middle leaves a failed migration (P3009).",
}
# A text names so many; the log line has more.
NAMED_BLOCKERS = 5


@dataclass(frozen=True)
class Blocker:
    """A transaction that holds or awaits a lock on one of the tables, or Prisma's lock, for which `table` is None. Of
    several locks this is the strongest. A parallel query counts once, by its leader; without pg_read_all_stats nobody
    can tell the workers of another role from sessions, so these are listed as well.

    `pid` is None for a prepared transaction, which `prepared_transaction` names; `autovacuum` is None for all others.
    `application_name`, `state` and `transaction_seconds` are None where the role lacks pg_read_all_stats. Whether the
    blocker is `waiting` for a lock itself is always known; `waits_for` are the pids, the nearest first, 0 for a
    prepared transaction. There is no query text: it would hold people's data.
    """

    transaction: str
    pid: int | None
    user: str | None
    application_name: str | None
    state: str | None
    transaction_seconds: float | None
    lock_mode: str
    granted: bool
    waiting: bool
    table: str | None
    prepared_transaction: str | None
    autovacuum: str | None
    waits_for: tuple[int, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The blocker as the response shows it; `text` is the same for people."""
        described = asdict(self) | {"waits_for": list(self.waits_for), "text": self.text}
        del described["transaction"]
        return described

    @property
    def text(self) -> str:
        names = ", ".join(name for name in (self.user, self.application_name) if name)
        who = f" ({names})" if names else ""
        age, state = self.transaction_seconds, f" ({self.state})" if self.state else ""
        if self.pid:
            parts = [f"{self.autovacuum or ''} pid {self.pid}".strip() + who]
            parts += [f"in a transaction for {age:.0f} s{state}"] if age is not None else []
        else:
            parts = [f"the prepared transaction {self.prepared_transaction or 'with an unknown name'}{who}"]
            parts += [f"prepared {age:.0f} s ago"] if age is not None else []
        if self.waiting:
            pids = [f"pid {pid}" if pid else "a prepared transaction" for pid in self.waits_for]
            more = [f"{len(pids) - NAMED_BLOCKERS} more"] if len(pids) > NAMED_BLOCKERS else []
            parts += [f"itself waiting{' for ' if pids else ''}{' and '.join(pids[:NAMED_BLOCKERS] + more)}"]
        parts += [f"{self.lock_mode} on {self.table or PRISMAS_LOCK}{'' if self.granted else ' (awaited)'}"]
        return f"{', '.join(parts)}.{WHY_IT_STAYS.get(self.kind, '')}"

    @property
    def kind(self) -> str:
        if self.autovacuum:
            return self.autovacuum
        if self.prepared_transaction:
            return "prepared"
        return "" if self.table else PRISMAS_LOCK

    @property
    def sql_to_end_it(self) -> str | None:
        """None for one that waits in line itself, that would begin again, or whose name is not known."""
        if self.waiting or self.autovacuum == WRAPAROUND:
            return None
        if self.prepared_transaction:
            return f"ROLLBACK PREPARED {string(self.prepared_transaction)};"
        return f"SELECT pg_terminate_backend({self.pid});" if self.pid else None

    @property
    def is_hidden(self) -> bool:
        """Whether the role may not see what this session does."""
        return bool(self.pid) and self.state is None and not self.autovacuum


def name_blockers(blockers: Sequence[Blocker], count: int) -> list[str]:
    """The lines of a text about these, of `count` in all: who is in the way, and how to end it."""
    if not blockers:
        return []
    named = blockers[:NAMED_BLOCKERS]
    lines = [f"In the way: {blocker.text}" for blocker in named]
    if count > len(named):
        lines += [f"and {count - len(named)} more."]
    it_ends, it = ("it ends", "it") if count == 1 else ("they end", "them")
    lost = "its transaction is" if count == 1 else "their transactions are"
    endings = [sql for blocker in named if (sql := blocker.sql_to_end_it)]
    if endings:
        return [*lines, f"Wait until {it_ends}, or end {it} now ({lost} rolled back):  {'  '.join(endings)}"]
    return [*lines, f"Wait until {it_ends}."]
