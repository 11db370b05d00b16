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
def make_turn(monkeypatch: pytest.MonkeyPatch, clock: FakeTime) -> Callable[..., LockWait]:
    """A run's turn, and who is seen in the way at each look; at the last one and ever after nobody."""

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


def test_who_was_there_first_counts_as_long_and_who_comes_later_does_not(
    make_turn: Callable[..., LockWait], clock: FakeTime
) -> None:
    turn = make_turn(["old"], ["old", "new"])
    turn.read_locks()
    turn.read_locks()
    assert turn.first_seen == {"old": -math.inf, "new": clock.now}


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
    make_turn: Callable[..., LockWait], next_queue_wait_ms: int, ages_ms: list[float], since_ms: float, worth: bool
) -> None:
    turn = make_turn()
    turn.next_queue_wait_ms = next_queue_wait_ms
    assert turn.is_worth_trying(ages_ms, since_ms) == worth


def test_the_first_attempt_does_not_wait_and_later_ones_ever_longer(make_turn: Callable[..., LockWait]) -> None:
    turn = make_turn()
    turn.lengthen_queue_wait(among_others=True)
    patience = [turn.queue_wait_ms]
    turn.attempts = 1
    for _ in range(8):
        turn.lengthen_queue_wait(among_others=True)
        patience.append(turn.queue_wait_ms)
    assert patience == [0, 10, 20, 40, 80, 160, 320, 500, 500]
    turn.lengthen_queue_wait(among_others=False)
    assert turn.queue_wait_ms == 10


def test_others_are_left_alone_three_times_as_long_as_they_may_have_waited(
    make_turn: Callable[..., LockWait], clock: FakeTime
) -> None:
    turn = make_turn()
    began = clock.now
    turn.wait(NotYet(stalled_ms=100))
    assert clock.now - began >= 0.3
    assert turn.longest_stall_ms == 100


@pytest.mark.parametrize(("remaining_ms", "ends_early"), [(6_000, True), (55_000, False)])
def test_the_wait_ends_before_an_attempt_could_outlive_the_function(
    make_turn: Callable[..., LockWait], remaining_ms: int, ends_early: bool
) -> None:
    turn = make_turn(remaining_ms=remaining_ms)
    last = turn.session.limits.last_attempt_at
    assert turn.deadline == (last if ends_early else turn.started + 30)
    assert turn.deadline <= last


def test_a_message_that_comes_late_is_tried_again_until_no_time_is_left(make_turn: Callable[..., LockWait]) -> None:
    turn = make_turn(lock_wait_ms=-1)
    turn.wait(NotYet(late=True))
    with pytest.raises(DatabaseUnavailableError) as refused:
        turn.wait(NotYet(late=True))
    assert refused.value.message == (
        "Every message to the database kaviar at db:5432 arrived more than 0.5 s late, so the server refused each of"
        " them until the run had no time left. Nothing was changed, and no lock was held. If it keeps failing, the"
        " network or the server is too slow: look at the instance's CPU and connections."
    )


def test_a_further_lock_is_tried_for_after_2_and_4_and_ever_8_seconds(
    make_turn: Callable[..., LockWait], clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_wait, "find_suspects", lambda *_: [])
    turn = make_turn()
    turn.begin_attempt()
    paused = []
    for _ in range(4):
        began = clock.now
        turn.wait(NotYet(stalled_ms=20, hidden=True))
        turn.begin_attempt()
        paused.append(clock.now - began)
    # Each look at the locks comes at most 1.5 s after the one before.
    assert all(least <= took <= least + 1.5 for least, took in zip([2, 4, 8, 8], paused, strict=True)), paused


def test_what_is_free_as_the_time_runs_out_is_tried_once(make_turn: Callable[..., LockWait]) -> None:
    turn = make_turn(lock_wait_ms=-1)
    turn.wait()
    with pytest.raises(LockBusyError):
        turn.wait()


def test_what_is_held_as_the_time_runs_out_is_given_up(make_turn: Callable[..., LockWait]) -> None:
    with pytest.raises(LockBusyError):
        make_turn(["old"], lock_wait_ms=-1).wait()


def test_a_costly_look_is_taken_less_often_but_one_late_answer_is_none(
    make_turn: Callable[..., LockWait], monkeypatch: pytest.MonkeyPatch, clock: FakeTime
) -> None:
    turn = make_turn()

    def find_slowly(*_: object) -> list[Blocker]:
        clock.sleep(0.1)
        return []

    monkeypatch.setattr(lock_wait, "find_blockers", find_slowly)
    late, costly = turn.read_locks(), turn.read_locks()
    assert 20 <= late <= 30
    assert costly >= 500
