"""The figures of `make bench`: ratios, targets, round trips, sizes and steps."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Literal

from bench import waterfall
from bench.package import AWS_SDK, package_mb
from bench.speed_table import Comparison, Findings, format_comparison, judge
from bench.trips import RoundTrips, count_round_trips
from bench.waterfall import Step
from laptop.proxy import Message

if TYPE_CHECKING:
    from pathlib import Path


def compare(what: str, other: str, ratio: float) -> Comparison:
    return Comparison(what, "ms", [ratio * 100], other, [100.0])


def test_a_ratio_is_that_of_two_runs_that_took_turns() -> None:
    one = Comparison("apply", "ms", [10, 30, 50], "naive", [20, 20, 50])
    assert (one.ratios, one.ratio) == ([0.5, 1.5, 1.0], 1.0)
    assert format_comparison(one).split() == [
        *("apply", "0.50", "1.00", "1.50", "10.0", "30.0", "50.0", "ms", "20.0", "20.0", "50.0", "ms", "naive"),
    ]


def test_the_seldom_runs_of_a_program_are_compared_with_those_of_the_same_turns() -> None:
    assert Comparison("apply", "ms", [1, 9, 9, 2, 9, 9], "psql", [10, 10]).ratios == [0.1, 0.2]


def test_a_target_is_met_up_to_its_limit_and_what_was_not_measured_is_no_target() -> None:
    sections = {
        "Cold start, a whole processor": [compare("apply", "naive", 0.5)],
        "Cold start, with the share": [],
        "Warm": [compare("apply", "pg8000, TCP_NODELAY", 1.31), compare("no-op", "pg8000, TCP_NODELAY", 1.0)],
    }
    trips = {"check": RoundTrips(3, 9, 9, 0), "apply": RoundTrips(3, 5, 8, 1)}
    assert [(target.found, target.met) for target in judge(Findings(sections, trips, 2.6))] == [
        *(("0.50 times", True), ("1.31 times", False), ("1.00 times", True)),
        *(("2.60 MB", False), ("9", False), ("1", True)),
    ]


def test_round_trips_are_counted_from_the_login_on_and_under_the_lock() -> None:
    talk: list[tuple[Literal["client", "server"], str, str]] = [
        *(("client", "SSLRequest", ""), ("server", "S", ""), ("client", "ClientHello", "")),
        *(("client", "startup", ""), ("server", "R", ""), ("client", "p", ""), ("server", "R", "")),
        *(("client", "p", ""), ("server", "Z", "I"), ("client", "Q", "SELECT 1"), ("server", "Z", "I")),
        *(("client", "Q", "SELECT FROM pg_catalog.pg_attribute"), ("server", "Z", "I")),
        *(("client", "Q", "BEGIN; LOCK TABLE x; COMMIT"), ("server", "C", ""), ("server", "Z", "I")),
        ("client", "X", ""),
    ]
    messages = [Message(1, number, *one[:2], 1, float(number), one[2]) for number, one in enumerate(talk)]
    assert count_round_trips(messages) == RoundTrips(login=3, to_look=5, all=6, under_lock=1)


def test_the_part_of_boto3_is_told_by_the_names_at_the_top(tmp_path: Path) -> None:
    for name in ("six.py", "six-1.17.0.dist-info/METADATA", "boto3/x.pyc", "sixty.py", "pg8000/boto3/x.py", "app.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1_000_000)
    assert (package_mb(tmp_path), package_mb(tmp_path, without=AWS_SDK)) == (6.0, 3.0)


def test_each_step_begins_where_the_last_one_ended() -> None:
    steps = [Step("imports", "#000", 0.0, 300.0), Step("login & look", "#000", 300.0, 100.0)]
    picture = ET.fromstring(waterfall.draw("A cold apply", steps))
    _, first, second = picture.findall("{*}rect")
    assert float(second.attrib["x"]) == float(first.attrib["x"]) + float(first.attrib["width"])
    assert [text.text for text in picture.findall("{*}text")][1:] == ["imports", "300 ms", "login & look", "100 ms"]
    assert waterfall.total_ms(steps) == 400.0


def test_the_marks_are_read_among_whatever_else_is_written() -> None:
    output = "START RequestId: 1\nTRACED runtime 1.5\nTRACED connect 5432 2.25\n{}\n"
    assert dict(waterfall.read_marks(output)) == {"runtime": 1.5, "connect 5432": 2.25}
