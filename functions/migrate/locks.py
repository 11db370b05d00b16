"""When to try for the lock: outside the queue, so that nobody waits behind a run that is waiting itself.

Whoever waits for ACCESS EXCLUSIVE makes every later reader wait, too. So the first attempt does not wait at all. After
it this run only watches who holds the tables, and tries again when nobody who stays is among them.
"""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING

import errors
from alter import lock_tables_sql
from blockers import AUTOVACUUM, describe_blockers, find_blockers
from database import LockNotAvailable
from limits import SHORTEST_ATTEMPT_MS, USUAL_ATTEMPT_MS, elapsed_ms

if TYPE_CHECKING:
    from collections.abc import Collection

    from blockers import Blocker
    from database import Session
    from look import Look
    from sqlfile import Hotfix

# Two looks at the locks are this far apart; farther if one takes long, so that the server has other things to do, but
# not so far that a gap is missed.
POLL_MS = (20, 50)
POLL_FACTOR = 5
# A transaction that is seen for longer is a long one: an attempt would only make others wait.
LONG_MS = 100
# Long ones that take turns leave no gap: after this time, if none of them was there at its beginning, try anyway.
TURNS_MS = 1_000
# Others get at least this many times as long undisturbed as an attempt may have made them wait.
PAUSE_FACTOR = 3.0
JITTER = (1.0, 1.5)
# How much longer than deadlock_timeout one has to wait for an autovacuum to yield.
YIELD_MS = 500


class Turn:
    """The waiting of one run: how often it tried, how long the next attempt may wait in the queue (0: not at all), and
    how long others may have waited behind it at most. Times in ms."""

    def __init__(self, session: Session, hotfix: Hotfix) -> None:
        self.session = session
        self.hotfix = hotfix
        self.started = time.monotonic()
        self.attempts = 0
        self.patience_ms = 0
        self.next_patience_ms = SHORTEST_ATTEMPT_MS
        self.longest_stall_ms = 0.0
        self.blockers: list[Blocker] = []
        # When each transaction was seen first. Of the very first ones nobody knows how long they have been there.
        self.first_seen: dict[str, float] = {}
        self.unyielding: set[str] = set()
        self.is_last = False

    @property
    def deadline(self) -> float:
        limits = self.session.limits
        return min(self.started + limits.lock_wait_ms / 1000, limits.last_attempt_at)

    def begin_attempt(self) -> None:
        """The budget runs from the first attempt on."""
        if self.attempts == 0:
            self.started = time.monotonic()
        self.attempts += 1

    def wait(self, stalled_ms: float = 0.0, before: Look | None = None) -> None:
        """An attempt makes sense again: nobody who stays is in the way, and others had the table to themselves for a
        while. Until then this run waited outside the queue. `stalled_ms` is what the last attempt may have cost others.

        Raises:
            LockBusyError: the budget is spent. Nothing was changed.
        """
        self.longest_stall_ms = max(self.longest_stall_ms, stalled_ms)
        tried_at = time.monotonic()
        pause = stalled_ms / 1000 * PAUSE_FACTOR
        while True:
            polled_at = time.monotonic()
            ages_ms = self.look_at_blockers()
            now = time.monotonic()
            is_time = now >= tried_at + pause and self.is_worth_trying(ages_ms.values(), (now - tried_at) * 1000)
            if now > self.deadline and (self.is_last or not is_time):
                raise self.give_up()
            if is_time:
                self.is_last = now > self.deadline  # What is free at the very end is not left lying.
                self.patience_ms = self.next_patience_ms
                self.next_patience_ms = min(2 * self.patience_ms, self.session.limits.longest_attempt_ms)
                return
            if before and self.is_autovacuum_alone(ages_ms):
                self.make_autovacuum_yield(before)
                continue
            shortest, longest = POLL_MS
            step_ms = min(longest, max(shortest, POLL_FACTOR * elapsed_ms(polled_at))) * random.uniform(*JITTER)  # noqa: S311
            time.sleep(step_ms / 1000)

    def look_at_blockers(self) -> dict[str, float]:
        """How long each transaction in the way has been seen for, in ms."""
        self.blockers = find_blockers(self.session, self.hotfix)
        now = time.monotonic()
        unknown = now if self.first_seen else -math.inf
        self.first_seen |= {
            blocker.transaction: unknown for blocker in self.blockers if blocker.transaction not in self.first_seen
        }
        return {blocker.transaction: (now - self.first_seen[blocker.transaction]) * 1000 for blocker in self.blockers}

    def is_worth_trying(self, ages_ms: Collection[float], since_last_attempt_ms: float) -> bool:
        """Whether an attempt may succeed, given for how long each transaction in the way has been seen: all seem to be
        short, and the attempts so far were; or none was there at the last attempt, so that they take turns."""
        if self.next_patience_ms <= USUAL_ATTEMPT_MS and all(age <= LONG_MS for age in ages_ms):
            return True
        return since_last_attempt_ms >= TURNS_MS and all(age < since_last_attempt_ms for age in ages_ms)

    def is_autovacuum_alone(self, ages_ms: dict[str, float]) -> bool:
        """Whether of those who stay every one is an autovacuum that would yield, and there is time to make it."""
        staying = [blocker for blocker in self.blockers if ages_ms[blocker.transaction] > LONG_MS]
        wait_ms = self.session.facts.deadlock_timeout_ms + YIELD_MS
        return (
            bool(staying)
            and all(one.autovacuum == AUTOVACUUM and one.transaction not in self.unyielding for one in staying)
            and wait_ms < self.session.limits.statement_timeout_ms
            and time.monotonic() + wait_ms / 1000 < self.deadline
        )

    def make_autovacuum_yield(self, before: Look) -> None:
        """The autovacuum has cancelled itself, as it does for whoever waits longer than deadlock_timeout. The lock that
        is waited for here conflicts with it, but with no reader and no writer: nobody waits behind this.

        https://www.postgresql.org/docs/current/routine-vacuuming.html#AUTOVACUUM
        """
        wait_ms = round(self.session.facts.deadlock_timeout_ms + YIELD_MS)
        try:
            self.session.query(
                f"BEGIN; SET LOCAL lock_timeout = {wait_ms};"
                f"{lock_tables_sql(before, 'SHARE UPDATE EXCLUSIVE MODE')}; ROLLBACK"
            )
        except LockNotAvailable:
            self.session.roll_back()
        # Whoever is still there afterwards is not asked twice.
        self.unyielding |= {blocker.transaction for blocker in self.blockers}

    def give_up(self) -> errors.LockBusyError:
        blockers = [blocker.describe() for blocker in describe_blockers(self.session, self.blockers)]
        return errors.lock_busy(
            self.hotfix.id,
            self.hotfix.tables,
            blockers,
            user=self.session.facts.user,
            waited_ms=round(elapsed_ms(self.started)),
            attempts=self.attempts,
            stalled_ms=round(self.longest_stall_ms),
        )
