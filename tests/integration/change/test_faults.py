"""`apply` over a network that fails at each of its messages: nothing outlives the caller, and every text is true."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from laptop.proxy import Fault, running_proxy
from tests.conftest import HOTFIX
from tests.integration.aftermath import Ending, examine, run_to_its_end, somebody_in_the_way, try_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from laptop.proxy import Message, Proxy
    from tests.integration.aftermath import Lane

# A reader that leaves while the run waits for it.
BLOCKED_SECONDS = 0.4
# Longer than a message may take to arrive, and shorter than its answer is waited for.
HELD_UP_SECONDS = 0.9
# A hold-up that every limit allows for, and one after which the run has given up.
DELAY_SECONDS = 0.3
LATE_SECONDS = 4.5


@dataclass(frozen=True)
class Point:
    """Where a run is hurt, and whether somebody is in its way."""

    faults: tuple[Fault, ...] = ()
    blocked: bool = False

    def __str__(self) -> str:
        where = [f"{fault.kind} at message {fault.message} of connection {fault.connection}" for fault in self.faults]
        return " and ".join(where) + (", with a reader in the way" if self.blocked else "")


@dataclass(frozen=True)
class Trial:
    ending: Ending
    proxy: Proxy
    broken: list[str]


def try_point(lane: Lane, point: Point) -> Trial:
    """One `apply` was hurt at the point, and what it left behind was looked at while the broken connection stands."""
    lane.reset()
    began = lane.clock.now()
    with (
        # The proxy is closed first, which ends a run that would never end.
        ThreadPoolExecutor(1) as pool,
        running_proxy(lane.database.server, *point.faults) as proxy,
        somebody_in_the_way(lane, BLOCKED_SECONDS) if point.blocked else nullcontext(),
    ):
        running = pool.submit(run_to_its_end, replace(lane.settings, db_port=proxy.port))
        if not lane.clock.sees(running.done, lane.end_bound):
            return Trial(Ending(), proxy, [f"the run did not end within {lane.end_bound} s"])
        ending = running.result()
        wait_for_late_messages(proxy)
        late = lane.has_column() and any(is_late(message, point.faults) for message in proxy.struck)
        broken = examine(lane, ending, began)
    if late:
        broken.append("what arrived late has added the column")
    return Trial(ending, proxy, broken + judge_error(ending, point.faults))


def is_late(message: Message, faults: Sequence[Fault]) -> bool:
    """Whether it is what changes the table, held up until nobody waited for it."""
    return "COMMIT" in message.text and any(fault.seconds == LATE_SECONDS for fault in faults)


def wait_for_late_messages(proxy: Proxy) -> None:
    for message in proxy.struck:
        for fault in proxy.faults:
            if fault.kind == "delay":
                time.sleep(max(0, message.at + fault.seconds + DELAY_SECONDS - time.monotonic()))


def judge_error(ending: Ending, faults: Sequence[Fault]) -> list[str]:
    if ending.error and not ending.retryable:
        return [f"{ending}: a network's fault is worth a retry"]
    if ending.error and all(fault.kind == "delay" and fault.seconds == DELAY_SECONDS for fault in faults):
        return [f"{ending}: every limit allows for such a delay"]
    return []


def sweep(lanes: Sequence[Lane], points: Iterable[Point]) -> int:
    """Every point was tried and no promise was broken. Returns how many of them a run met: how often it must try for
    the lock varies."""
    struck: list[Message] = []

    def trial(lane: Lane, point: Point) -> list[str]:
        tried = try_point(lane, point)
        last = tried.proxy.struck[-1:]
        struck.extend(last)
        at = "".join(f"({message.sender}'s {message.type} {message.text[:40]!r})" for message in last)
        return [f"{at} {what}" for what in tried.broken]

    try_all(lanes, points, trial)
    return len(struck)


def unhurt(lane: Lane, *, blocked: bool = False) -> Proxy:
    """What is said in a run that nothing happens to."""
    lane.reader.wanted.set()
    trial = try_point(lane, Point((), blocked))
    assert (trial.ending.result, trial.broken) == ("applied", [])
    return trial.proxy


def faults_at(messages: Iterable[Message], *kinds: str, seconds: float = DELAY_SECONDS) -> Iterator[Fault]:
    for message in messages:
        for kind in kinds:
            yield Fault(kind, message.number, seconds=seconds)  # type: ignore[arg-type]


def test_a_connection_that_breaks_at_any_message_leaves_nothing_behind(lanes: list[Lane]) -> None:
    messages = unhurt(lanes[0]).messages
    faults = list(faults_at(messages, "reset", "close"))
    # A network that stays broken hurts the fresh connection of the second look, too.
    faults += [replace(fault, connection=None) for fault in faults_at(queries(messages), "reset")]
    assert sweep(lanes, [Point((fault,)) for fault in faults]) >= 2 * 60


def test_a_connection_that_falls_silent_at_any_turn_leaves_nothing_behind(lanes: list[Lane], long: bool) -> None:
    proxy = unhurt(lanes[0])
    messages = proxy.messages if long else proxy.turns()
    points = [Point((fault,)) for fault in faults_at(messages, "freeze", "delay")]
    if long:
        points += [Point((replace(fault, connection=None),)) for fault in faults_at(messages, "freeze", "delay")]
    assert sweep(lanes, points) >= 2 * 15


def test_messages_that_arrive_after_the_run_gave_up_change_nothing(lanes: list[Lane], long: bool) -> None:
    messages = unhurt(lanes[0]).messages if long else queries(unhurt(lanes[0]).messages)
    points = [Point((fault,)) for fault in faults_at(messages, "delay", seconds=LATE_SECONDS)]
    assert lanes[0].limits.socket_timeout_ms / 1000 < LATE_SECONDS
    assert sweep(lanes, points) >= 5


def test_a_connection_that_breaks_while_waiting_leaves_nothing_behind(lanes: list[Lane], long: bool) -> None:
    proxy = unhurt(lanes[0], blocked=True)
    if long:
        faults = list(faults_at(proxy.messages, "reset", "close", "freeze", "delay"))
    else:
        faults = list(faults_at(queries(proxy.messages), "reset", "freeze", "delay"))
    assert sweep(lanes, [Point((fault,), blocked=True) for fault in faults]) >= 20


def test_a_second_look_over_a_broken_connection_leaves_nothing_behind(lanes: list[Lane], long: bool) -> None:
    """The first connection breaks right after COMMIT, the fresh one at any message."""
    first, fresh = find_second_look(lanes[0])
    if long:
        faults = list(faults_at(fresh, "reset", "close", "freeze", "delay"))
    else:
        faults = [*faults_at(fresh, "close"), *faults_at(queries(fresh), "freeze")]
    assert sweep(lanes, [Point((first, replace(fault, connection=2))) for fault in faults]) >= 25


def find_second_look(lane: Lane) -> tuple[Fault, list[Message]]:
    """What breaks the first connection right after COMMIT, and what is said over the fresh one."""
    for _ in range(5):  # The lane's reader can cost a run a second attempt, which changes the numbers.
        messages = unhurt(lane).messages
        committed = max(message.number for message in messages if "COMMIT" in message.text)
        look = next(message for message in queries(messages) if message.number > committed)
        first = Fault("reset", look.number)
        hurt = try_point(lane, Point((first,))).proxy.messages
        if fresh := [message for message in hurt if message.connection == 2]:
            return first, fresh
    raise AssertionError("no run has looked again over a fresh connection")


def test_an_answer_that_nobody_takes_does_not_hold_the_lock(lanes: list[Lane], tmp_path: Path) -> None:
    """The server can't send it, and heeds neither statement_timeout nor transaction_timeout until it can."""
    sql = Path("sql", f"{HOTFIX}.sql").read_text()
    (tmp_path / f"{HOTFIX}.sql").write_text(f"{sql}SELECT repeat('x', 1000000) FROM generate_series(1, 30);")
    lane = replace(lanes[0], settings=replace(lanes[0].settings, sql_dir=tmp_path))
    row = next(message for message in unhurt(lane).messages if message.size > 1_000_000)
    trial = try_point(lane, Point((Fault("freeze", row.number),)))
    assert (trial.ending.error, trial.broken) == ("OutcomeUnknownError", [])


def test_a_message_that_is_held_up_refuses_itself_and_is_sent_again(lanes: list[Lane]) -> None:
    sent = next(message for message in unhurt(lanes[0]).messages if "COMMIT" in message.text)
    trial = try_point(lanes[0], Point((Fault("delay", sent.number, seconds=HELD_UP_SECONDS),)))
    assert (trial.ending.result, trial.broken) == ("applied", [])
    # The one that refused itself, and the one that did not.
    assert sum("LOCK TABLE" in message.text for message in trial.proxy.messages) == 2


def queries(messages: Iterable[Message]) -> list[Message]:
    return [message for message in messages if message.sender == "client" and message.text]
