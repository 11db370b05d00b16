"""The function's process is ended or stopped at any moment: the server lets go by itself, and nothing is half done."""

from __future__ import annotations

import random
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import HOTFIX
from tests.integration.aftermath import (
    CLOSED_SECONDS,
    NOISE_SECONDS,
    STALL_SECONDS,
    Ending,
    examine,
    somebody_in_the_way,
    try_all,
)
from tests.integration.sandbox import running_sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pg_hotfix.settings import Settings
    from tests.integration.aftermath import Lane
    from tests.integration.sandbox import Sandbox

# A killed process's sockets are closed: at work or in a queue, the server notices within this.
KILLED_SECONDS = CLOSED_SECONDS + NOISE_SECONDS
# Under the lock. The first is longer than any bound here: a server that works on for a dead client is found out.
SLEEP_SECONDS, NAP_SECONDS = 4.0, 0.3
WORKING_TIMEOUT_MS = 6000
# About twice what a run takes.
RUN_SECONDS = 0.15
BLOCKED_SECONDS = 0.4
SEED = 20260212


@dataclass(frozen=True)
class Moment:
    """When a run is ended or stopped, in seconds; what is in its way or it does by then; how long it is stopped."""

    seconds: float
    blocked: bool = False
    sleeps: bool = False
    stopped_seconds: float = 0.0


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox() as sandbox:
        yield sandbox


def write_sleeping(folder: Path, seconds: float) -> None:
    """The folder holds the same hotfix, which sleeps under its lock."""
    sql = Path("sql", f"{HOTFIX}.sql").read_text()
    (folder / f"{HOTFIX}.sql").write_text(f"{sql}SELECT pg_sleep({seconds});")


def with_sleep(settings: Settings, folder: Path) -> Settings:
    return replace(settings, sql_dir=folder, statement_timeout_ms=WORKING_TIMEOUT_MS)


def test_a_run_that_is_killed_at_any_moment_leaves_nothing_behind(
    lanes: list[Lane], sandbox: Sandbox, tmp_path: Path, long: bool
) -> None:
    dice = random.Random(SEED)
    count = 100 if long else 12
    moments = [Moment(dice.uniform(0, RUN_SECONDS)) for _ in range(2 * count)]
    moments += [Moment(dice.uniform(0, 1), blocked=True) for _ in range(count)]
    moments += [Moment(dice.uniform(0, 1), sleeps=True) for _ in range(count)]
    told: list[Ending] = []
    write_sleeping(tmp_path, SLEEP_SECONDS)

    def kill(lane: Lane, moment: Moment) -> list[str]:
        lane.reset()
        settings = with_sleep(lane.settings, tmp_path) if moment.sleeps else lane.settings
        began = lane.clock.now()
        with (
            sandbox.run(settings, lane.database.secret(host=None, port=None)) as run,
            somebody_in_the_way(lane) if moment.blocked else nullcontext(),
        ):
            run.start()
            time.sleep(moment.seconds)
            run.send(signal.SIGKILL)
            ending = run.ending()
            left = lane.still_held(KILLED_SECONDS)
        told.append(ending)
        stall_bound = KILLED_SECONDS + (moment.seconds if moment.sleeps else 0)
        return left + examine(lane, ending, began, stall_bound=stall_bound)

    try_all(lanes, moments, kill)
    # All that were in somebody's way or asleep, and of the others as many as this machine had the time for.
    assert sum(ending == Ending() for ending in told) > 2 * count, f"seed {SEED}: hardly any was killed at work"


def test_a_run_that_is_stopped_and_goes_on_tells_the_truth(
    lanes: list[Lane], sandbox: Sandbox, tmp_path: Path, long: bool
) -> None:
    """As Lambda freezes a sandbox: its sockets stay open, and nobody reads them."""
    dice = random.Random(SEED)
    count = 80 if long else 8
    write_sleeping(tmp_path, NAP_SECONDS)
    stops = (0.2, 1.7, 4.5)
    moments = [Moment(dice.uniform(0, RUN_SECONDS), stopped_seconds=dice.choice(stops)) for _ in range(2 * count)]
    moments += [Moment(dice.uniform(0, 0.5), blocked=True, stopped_seconds=dice.choice(stops)) for _ in range(count)]
    moments += [Moment(dice.uniform(0, 0.4), sleeps=True, stopped_seconds=dice.choice(stops)) for _ in range(count)]

    def stop(lane: Lane, moment: Moment) -> list[str]:
        lane.reset()
        settings = with_sleep(lane.settings, tmp_path) if moment.sleeps else lane.settings
        bound = STALL_SECONDS + (NAP_SECONDS if moment.sleeps else 0)
        began = lane.clock.now()
        with (
            sandbox.run(settings, lane.database.secret(host=None, port=None)) as run,
            somebody_in_the_way(lane, BLOCKED_SECONDS) if moment.blocked else nullcontext(),
        ):
            run.start()
            time.sleep(moment.seconds)
            run.send(signal.SIGSTOP)
            stopped = time.monotonic()
            left = lane.still_held(bound) if moment.stopped_seconds > bound else []
            time.sleep(max(0, stopped + moment.stopped_seconds - time.monotonic()))
            run.send(signal.SIGCONT)
            if not lane.clock.sees(run.has_ended, lane.end_bound):
                return [f"it did not end within {lane.end_bound} s of going on"]
            ending = run.ending()
            return left + examine(lane, ending, began, stall_bound=bound) + judge(ending)

    try_all(lanes, moments, stop)


def judge(ending: Ending) -> list[str]:
    if ending == Ending():
        return ["it died"]
    if ending.error and not ending.retryable:
        return [f"{ending}: a stop is worth a retry"]
    return []
