"""The one table of `make bench`, as plain text, and whether the targets are met."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.figures import Target, format_ms
from bench.trips import RoundTrips

HEADING = ("", "times the other's", "pg-hotfix", "the other", "")
COLUMNS = (38, 20, 28, 28)

NOTES = """
Each figure: minimum, median, maximum. The ratios are of runs that took turns, so that noise hits both alike.
Cold: from the request, upon which Lambda's emulator starts the process, to the answer. Neither package may be written
to, as on Lambda. naive is the same job as tutorials write it (boto3, pg8000 and Powertools, of the same versions), by
plain `sam build`: bench/naive/app.py. Lambda's own work before the process starts is in no figure.
The share of a processor is imposed on the function's process alone, by the kernel, for its whole life.
Warm: from the request to the answer, the emulator's 3 to 4 ms included, with a connection of its own each time.
pg8000 is its bare calls in such a function, too: connect, ALTER, SELECT, close, with secret and certificates remembered
(bench/naive/bare.py). By itself pg8000 waits some 40 ms for a delayed acknowledgement; TCP_NODELAY spares it that, so
the targets are about that one. psql, dbmate and Alembic are whole processes.
CPU time and peak memory are of the whole process. boto3's part of the package is boto3, botocore, s3transfer, jmespath,
dateutil, six and urllib3.
Round trips: over TLS, which itself costs any client three, TCP's included.
"""


@dataclass(frozen=True)
class Comparison:
    """What was measured of pg-hotfix and of another, in turns: the first of one belongs to the first of the other."""

    what: str
    unit: str
    ours: Sequence[float]
    other: str
    theirs: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Where the other ran more seldom, its runs are spread over all."""
        step = len(self.ours) // len(self.theirs)
        return [ours / theirs for ours, theirs in zip(self.ours[::step], self.theirs, strict=False)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)


@dataclass(frozen=True)
class Findings:
    """The comparisons by section, empty where something could not be measured; the round trips by action; and
    the size of the package without boto3's part."""

    sections: Mapping[str, Sequence[Comparison]]
    round_trips: Mapping[str, RoundTrips]
    package_mb: float

    def of(self, section: str, what: str, other: str) -> Comparison | None:
        """The comparison in the section whose title begins so; None where it could not be measured."""
        return next(
            (
                one
                for title, comparisons in self.sections.items()
                for one in comparisons
                if title.startswith(section) and (one.what, one.other) == (what, other)
            ),
            None,
        )


def render(findings: Findings) -> str:
    lines = [format_line(HEADING)]
    for number, (title, comparisons) in enumerate(findings.sections.items(), start=1):
        lines.append(f"{number}. {title}")
        lines += [format_comparison(one) for one in comparisons] or ["   not measured: this machine does not let us"]
    lines += [f"{len(findings.sections) + 1}. Round trips", *format_round_trips(findings.round_trips), NOTES]
    return "\n".join([*lines, "Targets:", *(format_target(target) for target in judge(findings))])


def format_line(cells: Sequence[str]) -> str:
    first, *others = zip(cells, COLUMNS, strict=False)
    return "".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others), *cells[4:]]).rstrip()


def format_comparison(one: Comparison) -> str:
    figures = format_spread(one.ours, one.unit), format_spread(one.theirs, one.unit)
    ratio = " ".join(f"{ratio:.2f}" for ratio in spread(one.ratios))
    return format_line([f"   {one.what}", ratio, *figures, f"  {one.other}"])


def spread(values: Sequence[float]) -> list[float]:
    """Minimum, median and maximum; the value itself where there is but one."""
    return [min(values), median(values), max(values)] if len(set(values)) > 1 else [values[0]]


def format_spread(values: Sequence[float], unit: str) -> str:
    return " ".join(format_ms(value) for value in spread(values)) + f" {unit}"


def format_round_trips(found: Mapping[str, RoundTrips]) -> list[str]:
    return [
        f"   {what:12}{trips.all:3} in all, {trips.to_look} until the columns are seen, {trips.login} for the login"
        + (f"; {trips.under_lock} under the lock" if trips.under_lock else "")
        for what, trips in found.items()
    ]


def format_target(target: Target) -> str:
    return f"   {'met' if target.met else 'NOT MET':9}{target.what}: {target.found}"


def judge(findings: Findings) -> list[Target]:
    """The targets, each with what was found. Of several runs the median counts."""
    targets = []
    for section, what, other, limit, words in (
        ("Cold start, a", "apply", "naive", 0.5, "a cold apply takes at most 0.5 times the naive handler's time"),
        ("Cold start, with", "apply", "naive", 0.5, "and so with the share of a processor"),
        ("Warm", "apply", "pg8000, TCP_NODELAY", 1.3, "a warm apply takes at most 1.3 times pg8000's bare calls"),
        ("Warm", "no-op", "pg8000, TCP_NODELAY", 1.3, "a warm no-op takes at most 1.3 times pg8000's bare calls"),
    ):
        found = findings.of(section, what, other)
        if found:
            targets.append(Target(words, f"{found.ratio:.2f} times", found.ratio <= limit))
    size = findings.package_mb
    looks = max(trips.to_look or 0 for trips in findings.round_trips.values())
    under_lock = findings.round_trips["apply"].under_lock
    return [
        *targets,
        Target("the package without boto3's part has at most 2.5 MB", f"{size:.2f} MB", size <= 2.5),
        Target("at most 8 round trips from connecting to the look", str(looks), looks <= 8),
        Target("one round trip under the lock", str(under_lock), under_lock == 1),
    ]
