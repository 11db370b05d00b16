"""When to try for the lock. A run waits outside the lock queue, so that no session waits behind it.

A session that waits for ACCESS EXCLUSIVE makes every later reader wait, too. So the first attempt does not wait at all.
After it the run reads from pg_locks who holds the tables, and tries again when only short transactions are among them.
"""

from __future__ import annotations

import math
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.change.blocker import AUTOVACUUM, name_blockers
from pg_hotfix.change.blockers import describe_blockers, find_blockers, find_suspects
from pg_hotfix.server.limits import SHORTEST_ATTEMPT_MS, USUAL_ATTEMPT_MS, elapsed_ms
from pg_hotfix.server.membership import line_that_shows_sessions
from pg_hotfix.server.signals import LockNotAvailable

if TYPE_CHECKING:
    from collections.abc import Collection

    from pg_hotfix.change.blocker import Blocker
    from pg_hotfix.change.in_transaction import NotYet
    from pg_hotfix.change.job import Bookkeeping
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.server.session import Session

# The time between two readings of pg_locks, at least and at most. It is five times as long as a reading takes, so that
# this run uses at most a sixth of one of the server's cores. The faster of the last two readings counts, so that one
# late answer does not make the run miss a gap.
POLL_MS = (20, 1_000)
POLL_FACTOR = 5
# A transaction that is seen for longer counts as long-running: an attempt would only make other sessions wait.
LONG_MS = 100
# Long-running transactions that follow one another leave no gap. If none of them was there this long ago, try anyway.
TURNS_MS = 1_000
# After an attempt that made other sessions wait, they get this many times as long undisturbed.
PAUSE_FACTOR = 3.0
JITTER = (1.0, 1.5)
# The pause in seconds after an attempt that held its locks and failed on one more, whose holder the run may not see:
# each such attempt may make other sessions wait.
HIDDEN_PAUSES = (2.0, 4.0, 8.0)
# An autovacuum yields to a session that has waited for deadlock_timeout. The run waits this much longer for that.
YIELD_MS = 500


class LockWait:
    """The waiting of one run: how often it tried, how long the next attempt may wait in the lock queue (0: not at all),
    and how long other sessions may have waited behind it at most. Times are in milliseconds."""

    def __init__(self, session: Session, hotfix: Hotfix) -> None:
        self.session = session
        self.hotfix = hotfix
        self.bookkeeping: Bookkeeping | None = None
        self.touches_others = hotfix.touches_others
        self.started = time.monotonic()
        self.attempts = 0
        self.queue_wait_ms = 0
        self.next_queue_wait_ms = SHORTEST_ATTEMPT_MS
        self.longest_stall_ms = 0.0
        self.blockers: list[Blocker] = []
        # When each transaction in the way was seen first. Nobody knows how old those of the first reading are, so they
        # count as long-running.
        self.first_seen: dict[str, float] = {}
        self.has_read_locks = False
        self.poll_ms = 0.0
        self.asked_to_yield: set[str] = set()
        self.is_last = False
        self.hidden_attempts = 0
        self.said = ""
        self.suspects: list[Blocker] = []
        self.was_late = False

    @property
    def deadline(self) -> float:
        limits = self.session.limits
        return min(self.started + limits.lock_wait_ms / 1000, limits.last_attempt_at)

    @property
    def record_only(self) -> bool:
        return self.bookkeeping is not None and self.bookkeeping.record_only

    @property
    def must_wait_first(self) -> bool:
        """Whether the file needs locks on further tables: while it waits for these it would already hold the first."""
        return self.touches_others and not self.has_read_locks and not self.record_only

    @property
    def has_begun(self) -> bool:
        """The budget runs from the first attempt on, or from the first reading of the locks."""
        return self.has_read_locks or self.attempts > 0

    def begin_attempt(self) -> None:
        """An attempt is counted, and can end before the function does.

        Raises:
            LockBusyError, DatabaseUnavailableError: the function's time is up. Nothing was changed.
        """
        if time.monotonic() > self.session.limits.last_attempt_at:
            if self.has_begun:
                raise self.give_up()
            reason = "it answers so slowly that the function's time would run out under the lock"
            raise errors.database_unavailable(self.session.target.address, reason)
        if not self.has_begun:
            self.started = time.monotonic()
        self.attempts += 1

    def wait(self, after: NotYet | None = None) -> None:
        """An attempt makes sense again: only short transactions are in the way, and other sessions had the table to
        themselves for a while. Until then this run waited outside the lock queue. `after`: how the last attempt ended.

        Raises:
            LockBusyError, DatabaseUnavailableError: the budget is spent. Nothing was changed.
        """
        stalled_ms = after.stalled_ms if after else 0.0
        self.was_late = after is not None and after.late
        self.longest_stall_ms = max(self.longest_stall_ms, stalled_ms)
        tried_at = time.monotonic()
        if not self.has_begun:
            self.started = tried_at
        pause = stalled_ms / 1000 * PAUSE_FACTOR
        if after and after.hidden:
            pause = max(pause, HIDDEN_PAUSES[min(self.hidden_attempts, len(HIDDEN_PAUSES) - 1)])
            self.hidden_attempts += 1
            self.said = after.said
        while True:
            pause_ms = self.read_locks()
            now = time.monotonic()
            ages_ms = {one.transaction: (now - self.first_seen[one.transaction]) * 1000 for one in self.blockers}
            is_time = now >= tried_at + pause and self.is_worth_trying(ages_ms.values(), (now - tried_at) * 1000)
            if now > self.deadline:  # Deadline reached: try once more if the lock looks free.
                if self.is_last or not is_time or now > self.session.limits.last_attempt_at:
                    raise self.give_up()
                self.is_last = True
            if is_time:
                # No attempt waits for the lock of another tool.
                self.lengthen_queue_wait(among_others=any(blocker.table for blocker in self.blockers))
                return
            vacuum = self.find_autovacuum_to_ask(ages_ms)
            if vacuum:
                self.ask_to_yield(vacuum)
            else:
                time.sleep(pause_ms / 1000)

    def read_locks(self) -> float:
        """Who is in the way is known, and since when. Returns how long to pause before the next reading, in ms."""
        began = time.monotonic()
        with suppress(LockNotAvailable):  # Another session holds the catalog itself: the last reading counts.
            self.blockers = find_blockers(self.session, self.hotfix, self.bookkeeping)
            if self.hidden_attempts:
                # A session that was suspected once stays suspected until another one is.
                self.suspects = find_suspects(self.session, self.hotfix, self.said) or self.suspects
        now = time.monotonic()
        new = now if self.has_read_locks else -math.inf
        self.has_read_locks = True
        self.first_seen = {one.transaction: self.first_seen.get(one.transaction, new) for one in self.blockers}
        faster_ms, self.poll_ms = min(self.poll_ms, elapsed_ms(began)), elapsed_ms(began)
        shortest, longest = POLL_MS
        return min(longest, max(shortest, POLL_FACTOR * faster_ms)) * random.uniform(*JITTER)  # noqa: S311 - jitter needs no secrecy

    def lengthen_queue_wait(self, *, among_others: bool) -> None:
        """The next attempt waits in the queue for longer than the last one, unless it is the first, or no other session
        is there to wait for."""
        if self.attempts == 0:
            self.queue_wait_ms = 0
        elif among_others:
            self.queue_wait_ms = self.next_queue_wait_ms
            self.next_queue_wait_ms = min(2 * self.queue_wait_ms, self.session.limits.longest_attempt_ms)
        else:
            self.queue_wait_ms = SHORTEST_ATTEMPT_MS

    def is_worth_trying(self, ages_ms: Collection[float], since_last_attempt_ms: float) -> bool:
        """Whether an attempt may succeed, given for how long each transaction in the way has been seen: all of them are
        short, and so were the attempts; or none of them was there at the last attempt, so they follow one another."""
        if not ages_ms or (self.next_queue_wait_ms <= USUAL_ATTEMPT_MS and all(age <= LONG_MS for age in ages_ms)):
            return True
        return since_last_attempt_ms >= TURNS_MS and all(age < since_last_attempt_ms for age in ages_ms)

    def find_autovacuum_to_ask(self, ages_ms: dict[str, float]) -> Blocker | None:
        """An autovacuum that would yield, if all long-running transactions are such autovacuums, and there is time."""
        staying = [blocker for blocker in self.blockers if ages_ms[blocker.transaction] > LONG_MS]
        wait_ms = self.session.facts.deadlock_timeout_ms + YIELD_MS
        in_time = (
            time.monotonic() + wait_ms / 1000 < self.deadline and wait_ms < self.session.limits.statement_timeout_ms
        )
        if not in_time or any(blocker.autovacuum != AUTOVACUUM for blocker in staying):
            return None
        return next((blocker for blocker in staying if blocker.transaction not in self.asked_to_yield), None)

    def ask_to_yield(self, vacuum: Blocker) -> None:
        """The autovacuum has cancelled itself, as it does for a session that waits longer than deadlock_timeout; or it
        never will. The lock that this waits for conflicts with autovacuum, but with no reader and no writer.

        https://www.postgresql.org/docs/current/routine-vacuuming.html#AUTOVACUUM
        """
        self.asked_to_yield.add(vacuum.transaction)
        wait_ms = self.session.facts.deadlock_timeout_ms + YIELD_MS
        try:
            self.session.query(
                f"BEGIN; SET LOCAL lock_timeout = {wait_ms};"
                f"LOCK TABLE ONLY {vacuum.table} IN SHARE UPDATE EXCLUSIVE MODE; ROLLBACK"
            )
        except (LockNotAvailable, errors.StatementTimeoutError, errors.NotOwnerError):
            self.session.roll_back()  # It goes on, or the table belongs to another role.

    def give_up(self) -> errors.LockBusyError | errors.DatabaseUnavailableError:
        if self.was_late and not self.blockers:
            return errors.arrived_late(self.session.target.address)
        found = [*self.blockers, *self.suspects]
        blockers = describe_blockers(self.session, found)
        in_the_way = name_blockers(blockers, len(found))
        if any(blocker.is_hidden for blocker in blockers):
            in_the_way.append(f"To see what they do and since when:  {line_that_shows_sessions(self.session)}")
        tables = [] if self.record_only else [self.hotfix.tables]
        tables += ["Prisma's history"] if self.bookkeeping else []
        return errors.lock_busy(
            self.hotfix.id,
            " or ".join(tables),
            "recorded" if self.record_only else "reverted" if self.hotfix.reverting else "applied",
            in_the_way,
            elsewhere=not self.record_only,
            further=self.hidden_attempts > 0,
            blockers=[blocker.describe() for blocker in blockers],
            attempts=self.attempts,
            lock_wait_ms=round(elapsed_ms(self.started)),
            longest_stall_ms=math.ceil(self.longest_stall_ms),
        )
