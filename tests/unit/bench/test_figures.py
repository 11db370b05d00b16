"""The figures of `make bench-locks`: from pgbench's log and the wire's messages to table, targets and picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from bench import figures, plot, table
from bench.figures import Findings, Run, Stalls
from bench.probes import Sample, parse_log
from bench.scenarios import SCENARIOS
from bench.wire import UnderLock, find_under_lock
from laptop.proxy import Message

TOOLS = ("nobody", "psql", "pg-hotfix")


def test_a_line_of_pgbench_is_a_request_from_its_sending_to_its_end() -> None:
    # It was due 1,203 microseconds before its end, and sent 369 later.
    assert parse_log("1 1 1203 0 1795383417 29401 369\n2 1501 skipped 0 1795383450 833907 0\n") == [
        Sample(1795383417 + (29401 - 834) / 1e6, 0.834)
    ]


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (75, 3), (99, 4), (100, 4)])
def test_a_percentile_is_one_of_the_values(percent: float, value: float) -> None:
    assert figures.percentile([4, 2, 1, 3], percent) == value


def test_a_wait_counts_for_the_requests_that_were_not_sent_meanwhile() -> None:
    samples = [Sample(10.0, 1.0), Sample(20.0, 10.0)]
    assert figures.steady(samples, interval_ms=4) == [
        Sample(10.0, 1.0),
        Sample(20.0, 10.0),
        Sample(20.004, 6.0),
        Sample(20.008, 2.0),
    ]
    assert figures.summarise(samples, interval_ms=4) == Stalls(10.0, 10.0)


def test_the_lock_is_counted_from_the_message_that_takes_it_to_the_end_of_its_transaction() -> None:
    def client(at: float, sql: str) -> Message:
        return Message(1, 1, "client", "Q", 1, at, sql)

    def server(at: float, status: str, statements: int) -> list[Message]:
        done = Message(1, 1, "server", "C", 1, at)
        return [*[done] * statements, Message(1, 1, "server", "Z", 1, at, status)]

    messages = [
        *(client(1.0, "BEGIN"), *server(1.1, "T", 1)),
        *(client(2.0, 'alter  table "drivers" ADD ...'), *server(2.1, "T", 1)),
        *(client(3.0, "COMMIT"), *server(3.25, "I", 1)),
        *(client(4.0, "SELECT 1"), *server(4.1, "I", 1)),
        *(client(5.0, "LOCK TABLE a; SELECT; ALTER TABLE a ...; COMMIT"), *server(5.5, "I", 4)),
    ]
    assert find_under_lock(messages) == [UnderLock(2, 2, 1250.0), UnderLock(4, 1, 500.0)]


def run(tool: str, scenario: str, worst: float = 2.0, column_ms: float | None = 30.0, outcome: str = "exit 0") -> Run:
    return Run(scenario, tool, outcome, Stalls(worst, 1.0), Stalls(worst / 2, 1.0), column_ms, [])


def find(*, runs: int = 1, psql_worst: float = 10_000.0, held_ms: float = 1.2, busy: float | None = 0.5) -> Findings:
    return Findings(
        [
            run(tool, scenario.key, psql_worst if tool == "psql" and scenario.key == "reader" else 2.0)
            for scenario in SCENARIOS
            for tool in TOOLS
        ]
        * runs,
        {"psql": [UnderLock(1, 1, 1.0)], "pg-hotfix": [UnderLock(7, 2, held_ms)]},
        [0.1] * 98 + [busy, busy],
    )


def test_targets_are_met_up_to_their_bounds() -> None:
    assert [target.met for target in figures.judge(find())] == [True] * 6
    assert [target.met for target in figures.judge(find(psql_worst=999, held_ms=1.6, busy=None))] == [
        *(True, False, True),
        *(True, False, False),
    ]


def test_a_column_that_never_came_misses_its_target() -> None:
    found = find()
    late = replace(found, runs=[*found.runs, run("pg-hotfix", "writer", column_ms=None, outcome="LockBusyError")])
    assert [target.met for target in figures.judge(late)][2] is False
    assert "1 x exit 0, 1 x LockBusyError" in table.render(late, 1000, 10, "17.10")


def test_a_row_shows_the_median_of_the_runs_and_their_range() -> None:
    row = table.format_row([run("psql", "reader", *figures) for figures in ((3, 1), (9000, 2), (1, None))])
    assert " ".join(row.split()) == "psql 3.0 (1.0-9,000) 1.0 1.5 (0.5-4,500) 1.0 1.5 (1.0-2.0) exit 0"


def test_the_table_has_a_line_for_each_tool_in_each_scenario_and_for_each_target() -> None:
    lines = table.render(find(runs=3), 200_000, 10, "17.10").splitlines()
    assert lines[0].startswith("ADD COLUMN on 200,000 rows; PostgreSQL 17.10, ")
    assert lines[0].endswith(" cores; 3 runs of each.")
    assert sum(line.startswith("   nobody") for line in lines) == len(SCENARIOS)
    assert sum(line.startswith("   pg-hotfix") for line in lines) == len(SCENARIOS) + 2
    assert sum(line.startswith("   met") for line in lines) == 6
    assert max(len(line) for line in lines) <= 120


def test_the_picture_is_small_whole_and_the_same_every_time() -> None:
    traces = {
        "psql": figures.steady([Sample(0.1, 10_000.0)], 4),
        "pg-hotfix": [Sample(number / 1000, 0.3) for number in range(11_500)],
    }
    svg = plot.draw("A <title>", traces, 11.5, {"it ends": 10.0})
    assert svg == plot.draw("A <title>", traces, 11.5, {"it ends": 10.0})
    assert len(svg) < 10_000
    root = ET.fromstring(svg)
    assert root.find("{*}title").text == "A <title>"  # type: ignore[union-attr]
    assert [name.text for name in root.iterfind("{*}text[@font-weight]")] == ["psql", "pg-hotfix"]
