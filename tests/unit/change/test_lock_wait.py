"""When a run tries for the lock, told by what it has seen so far. That it hurts nobody real locks tell."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pg_hotfix.change import lock_wait
from pg_hotfix.change.blocker import Blocker
from pg_hotfix.change.in_transaction import NotYet
from pg_hotfix.change.lock_wait import LockWait
from pg_hotfix.errors import DatabaseUnavailableError, LockBusyError
from pg_hotfix.server import limits
from pg_hotfix.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.conftest import FakeTime


def blocker(transaction: str) -> Blocker:
    return Blocker(transaction, 1, "app", None, None, None, "ACCESS SHARE", True, False, "public.t", None, None)


@pytest.fixture
def clock(stop_time: Callable[..., FakeTime]) -> FakeTime:
    return stop_time(limits, lock_wait)


@pytest.fixture
def make_wait(monkeypatch: pytest.MonkeyPatch, clock: FakeTime) -> Callable[..., LockWait]:
    """A run's waiting, and who is seen in the way at each look; at the last one and ever after nobody."""

    def make(*looks: list[str], lock_wait_ms: int = 30_000, remaining_ms: int = 55_000) -> LockWait:
        script = iter(looks)
        monkeypatch.setattr(lock_wait, "find_blockers", lambda *_: [blocker(one) for one in next(script, [])])
        monkeypatch.setattr(lock_wait, "line_that_shows_sessions", lambda _: "")
        monkeypatch.setattr(lock_wait, "describe_blockers", lambda session, blockers: blockers)
        settings = read_settings({"DB_SECRET_ARN": "x", "SQL_DIR": "sql"})
        derived = replace(limits.derive_limits(settings, remaining_ms), lock_wait_ms=lock_wait_ms)
        facts = SimpleNamespace(user="app", deadlock_timeout_ms=1000)
        hotfix = SimpleNamespace(id="x", tables="public.t", touches_others=False, reverting=False)
        session = SimpleNamespace(limits=derived, facts=facts, target=SimpleNamespace(address="kaviar at db:5432"))
        return LockWait(cast("Any", session), cast("Any", hotfix))

    return make


def test_transactions_of_the_first_reading_count_as_long_running_and_later_ones_do_not(
    make_wait: Callable[..., LockWait], clock: FakeTime
) -> None:
    waiting = make_wait(["old"], ["old", "new"])
    waiting.read_locks()
    waiting.read_locks()
    assert waiting.first_seen == {"old": -math.inf, "new": clock.now}


@pytest.mark.parametrize(
    ("next_queue_wait_ms", "ages_ms", "since_ms", "worth"),
    [
        (10, [], 0, True),
        (500, [], 0, True),  # Nobody is there: no reason to wait, however often it was in vain.
        (80, [99, 1], 0, True),
        (80, [99, 101], 0, False),
        (160, [1, 2], 999, False),  # They seemed to be short, but an attempt of 80 ms was in vain.
        (160, [1, 2], 1000, True),
        (10, [101], 1000, True),
        (10, [1000], 1000, False),  # It was there at the last attempt.
    ],
)
def test_an_attempt_is_made_only_if_it_may_succeed(
    make_wait: Callable[..., LockWait], next_queue_wait_ms: int, ages_ms: list[float], since_ms: float, worth: bool
) -> None:
    waiting = make_wait()
    waiting.next_queue_wait_ms = next_queue_wait_ms
    assert waiting.is_worth_trying(ages_ms, since_ms) == worth


def test_the_first_attempt_does_not_wait_and_later_ones_ever_longer(make_wait: Callable[..., LockWait]) -> None:
    waiting = make_wait()
    waiting.lengthen_queue_wait(among_others=True)
    patience = [waiting.queue_wait_ms]
    waiting.attempts = 1
    for _ in range(8):
        waiting.lengthen_queue_wait(among_others=True)
        patience.append(waiting.queue_wait_ms)
    assert patience == [0, 10, 20, 40, 80, 160, 320, 500, 500]
    waiting.lengthen_queue_wait(among_others=False)
    assert waiting.queue_wait_ms == 10


def test_other_sessions_are_left_alone_three_times_as_long_as_they_may_have_waited(
    make_wait: Callable[..., LockWait], clock: FakeTime
) -> None:
    waiting = make_wait()
    began = clock.now
    waiting.wait(NotYet(stalled_ms=100))
    assert clock.now - began >= 0.3
    assert waiting.longest_stall_ms == 100


@pytest.mark.parametrize(("remaining_ms", "ends_early"), [(6_000, True), (55_000, False)])
def test_the_wait_ends_before_an_attempt_could_outlive_the_function(
    make_wait: Callable[..., LockWait], remaining_ms: int, ends_early: bool
) -> None:
    waiting = make_wait(remaining_ms=remaining_ms)
    last = waiting.session.limits.last_attempt_at
    assert waiting.deadline == (last if ends_early else waiting.started + 30)
    assert waiting.deadline <= last


def test_a_message_that_comes_late_is_tried_again_until_no_time_is_left(make_wait: Callable[..., LockWait]) -> None:
    waiting = make_wait(lock_wait_ms=-1)
    waiting.wait(NotYet(late=True))
    with pytest.raises(DatabaseUnavailableError) as refused:
        waiting.wait(NotYet(late=True))
    assert refused.value.message == (
        "Every message to the database kaviar at db:5432 arrived more than 0.5 s late, so the server refused each of"
        " them until the run had no time left. Nothing was changed, and no lock was held. If it keeps failing, the"
        " network or the server is too slow: look at the instance's CPU and connections."
    )


def test_a_further_lock_is_tried_for_after_2_then_4_then_every_8_seconds(
    make_wait: Callable[..., LockWait], clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_wait, "find_suspects", lambda *_: [])
    waiting = make_wait()
    waiting.begin_attempt()
    paused = []
    for _ in range(4):
        began = clock.now
        waiting.wait(NotYet(stalled_ms=20, hidden=True))
        waiting.begin_attempt()
        paused.append(clock.now - began)
    # Each look at the locks comes at most 1.5 s after the one before.
    assert all(least <= took <= least + 1.5 for least, took in zip([2, 4, 8, 8], paused, strict=True)), paused


def test_a_lock_that_is_free_at_the_deadline_is_tried_once(make_wait: Callable[..., LockWait]) -> None:
    waiting = make_wait(lock_wait_ms=-1)
    waiting.wait()
    with pytest.raises(LockBusyError):
        waiting.wait()


def test_a_lock_that_is_held_at_the_deadline_is_given_up(make_wait: Callable[..., LockWait]) -> None:
    with pytest.raises(LockBusyError):
        make_wait(["old"], lock_wait_ms=-1).wait()


def test_a_slow_reading_of_the_locks_is_repeated_less_often_and_one_late_answer_counts_as_none(
    make_wait: Callable[..., LockWait], monkeypatch: pytest.MonkeyPatch, clock: FakeTime
) -> None:
    waiting = make_wait()

    def find_slowly(*_: object) -> list[Blocker]:
        clock.sleep(0.1)
        return []

    monkeypatch.setattr(lock_wait, "find_blockers", find_slowly)
    late, costly = waiting.read_locks(), waiting.read_locks()
    assert 20 <= late <= 30
    assert costly >= 500
