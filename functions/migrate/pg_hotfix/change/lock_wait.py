"""When to try for the lock: outside the queue, so that nobody waits behind a run that is waiting itself.

Whoever waits for ACCESS EXCLUSIVE makes every later reader wait, too. So the first attempt does not wait at all. After
it this run only watches who holds the tables, and tries again when nobody who stays is among them.
"""

from __future__ import annotations

import math
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.change.blockers import AUTOVACUUM, describe_blockers, find_blockers, find_suspects
from pg_hotfix.server.limits import SHORTEST_ATTEMPT_MS, USUAL_ATTEMPT_MS, elapsed_ms
from pg_hotfix.server.membership import line_that_shows_sessions
from pg_hotfix.server.signals import LockNotAvailable

if TYPE_CHECKING:
    from collections.abc import Collection

    from pg_hotfix.change.blockers import Blocker
    from pg_hotfix.change.in_transaction import NotYet
    from pg_hotfix.change.job import Bookkeeping
    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.server.session import Session

# Two looks at the locks are this far apart, or five times as far as one takes: at most a sixth of one of the server's
# cores. Of the last two the faster counts, so that one late answer misses no gap.
POLL_MS = (20, 1_000)
POLL_FACTOR = 5
# A transaction that is seen for longer is a long one: an attempt would only make others wait.
LONG_MS = 100
# Long ones that take turns leave no gap: after this time, if none of them was there at its beginning, try anyway.
TURNS_MS = 1_000
# Others get at least this many times as long undisturbed as an attempt may have made them wait.
PAUSE_FACTOR = 3.0
JITTER = (1.0, 1.5)
# After an attempt that held its locks and failed on a further one, whose holder it may not see, the next one is so much
# later, in seconds: each may make others wait.
HIDDEN_PAUSES = (2.0, 4.0, 8.0)
# How much longer than deadlock_timeout one has to wait for an autovacuum to yield.
YIELD_MS = 500


class LockWait:
    """The waiting of one run: how often it tried, how long the next attempt may wait in the queue (0: not at all), and
    how long others may have waited behind it at most. Times in ms."""

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
        # When each transaction in the way was seen first. Of those of the first look nobody knows for how long they
        # have been there: they count as long.
        self.first_seen: dict[str, float] = {}
        self.has_looked = False
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
    def must_look_first(self) -> bool:
        """Whether the file needs locks on further tables: it would wait for these with the first lock in its hand."""
        record_only = self.bookkeeping is not None and self.bookkeeping.record_only
        return self.touches_others and not self.has_looked and not record_only

    @property
    def has_begun(self) -> bool:
        """The budget runs from the first attempt on, or from the first look at the locks."""
        return self.has_looked or self.attempts > 0

    def begin_attempt(self) -> None:
        if not self.has_begun:
            self.started = time.monotonic()
        self.attempts += 1

    def wait(self, after: NotYet | None = None) -> None:
        """An attempt makes sense again: nobody who stays is in the way, and others had the table to themselves for a
        while. Until then this run waited outside the queue. `after`: how the last attempt ended.

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
            pause_ms = self.look_at_blockers()
            now = time.monotonic()
            ages_ms = {one.transaction: (now - self.first_seen[one.transaction]) * 1000 for one in self.blockers}
            is_time = now >= tried_at + pause and self.is_worth_trying(ages_ms.values(), (now - tried_at) * 1000)
            if now > self.deadline:  # Deadline reached: try once more if the lock looks free.
                if self.is_last or not is_time or now > self.session.limits.last_attempt_at:
                    raise self.give_up()
                self.is_last = True
            if is_time:
                # For another tool's lock no attempt waits.
                self.be_patient(among_others=any(blocker.table for blocker in self.blockers))
                return
            vacuum = self.find_autovacuum_to_ask(ages_ms)
            if vacuum:
                self.ask_to_yield(vacuum)
            else:
                time.sleep(pause_ms / 1000)

    def look_at_blockers(self) -> float:
        """Who is in the way is known, and since when. Returns how long to pause before the next look, in ms."""
        began = time.monotonic()
        with suppress(LockNotAvailable):  # Somebody holds the catalog itself: what was seen last is all there is.
            self.blockers = find_blockers(self.session, self.hotfix, self.bookkeeping)
            if self.hidden_attempts:
                # Who was seen once stays suspected until somebody else is.
                self.suspects = find_suspects(self.session, self.hotfix, self.said) or self.suspects
        now = time.monotonic()
        new = now if self.has_looked else -math.inf
        self.has_looked = True
        self.first_seen = {one.transaction: self.first_seen.get(one.transaction, new) for one in self.blockers}
        faster_ms, self.poll_ms = min(self.poll_ms, elapsed_ms(began)), elapsed_ms(began)
        shortest, longest = POLL_MS
        return min(longest, max(shortest, POLL_FACTOR * faster_ms)) * random.uniform(*JITTER)  # noqa: S311 - jitter needs no secrecy

    def be_patient(self, *, among_others: bool) -> None:
        """The next attempt waits longer than the last one, unless there is nobody to wait for, or it is the first."""
        if self.attempts == 0:
            self.queue_wait_ms = 0
        elif among_others:
            self.queue_wait_ms = self.next_queue_wait_ms
            self.next_queue_wait_ms = min(2 * self.queue_wait_ms, self.session.limits.longest_attempt_ms)
        else:
            self.queue_wait_ms = SHORTEST_ATTEMPT_MS

    def is_worth_trying(self, ages_ms: Collection[float], since_last_attempt_ms: float) -> bool:
        """Whether an attempt may succeed, given for how long each transaction in the way has been seen: all seem to be
        short, and the attempts so far were; or none was there at the last attempt, so that they take turns."""
        if not ages_ms or (self.next_queue_wait_ms <= USUAL_ATTEMPT_MS and all(age <= LONG_MS for age in ages_ms)):
            return True
        return since_last_attempt_ms >= TURNS_MS and all(age < since_last_attempt_ms for age in ages_ms)

    def find_autovacuum_to_ask(self, ages_ms: dict[str, float]) -> Blocker | None:
        """One that would yield, if of those who stay every one is such an autovacuum, and there is time to ask it."""
        staying = [blocker for blocker in self.blockers if ages_ms[blocker.transaction] > LONG_MS]
        wait_ms = self.session.facts.deadlock_timeout_ms + YIELD_MS
        in_time = (
            time.monotonic() + wait_ms / 1000 < self.deadline and wait_ms < self.session.limits.statement_timeout_ms
        )
        if not in_time or any(blocker.autovacuum != AUTOVACUUM for blocker in staying):
            return None
        return next((blocker for blocker in staying if blocker.transaction not in self.asked_to_yield), None)

    def ask_to_yield(self, vacuum: Blocker) -> None:
        """The autovacuum has cancelled itself, as it does for whoever waits longer than deadlock_timeout; or it never
        will. The lock that is waited for here conflicts with it, but with no reader and no writer.

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
            self.session.roll_back()  # It stays, or the table is another's.

    def give_up(self) -> errors.LockBusyError | errors.DatabaseUnavailableError:
        if self.was_late and not self.blockers:
            return errors.arrived_late(self.session.target.address)
        found = [*self.blockers, *self.suspects]
        blockers = [blocker.describe() for blocker in describe_blockers(self.session, found)]
        return errors.lock_busy(
            self.hotfix.id,
            self.hotfix.tables,
            blockers,
            records=self.bookkeeping is not None,
            record_only=self.bookkeeping is not None and self.bookkeeping.record_only,
            reverting=self.hotfix.reverting,
            count=len(found),
            hidden=self.hidden_attempts > 0,
            see=line_that_shows_sessions(self.session),
            waited_ms=round(elapsed_ms(self.started)),
            attempts=self.attempts,
            stalled_ms=math.ceil(self.longest_stall_ms),
        )
