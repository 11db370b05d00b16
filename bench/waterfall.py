"""Where the time of a cold `apply` goes: the steps of a real run, one below the other, as an SVG."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from bench.plot import text
from bench.traced import SAID
from laptop.emulator import emulated_function
from laptop.errors import LocalError
from laptop.places import ARTIFACT
from laptop.proxy import Message, Proxy

TRACED = (sys.executable, "-S", str(Path(__file__).with_name("traced.py")))
WIDTH, LEFT, RIGHT, TOP, ROW = 840, 236, 70, 40, 24
STARTS, IMPORTS, WORKS = "#888", "#1565c0", "#2e7d32"


@dataclass(frozen=True)
class Step:
    """From `start` on, in ms since the request."""

    name: str
    color: str
    start: float
    ms: float


def trace_cold_start(environment: Mapping[str, str], event: Mapping[str, Any], proxy: Proxy) -> list[Step]:
    """The steps of a cold start of `apply`, each until the next; the function reaches the database by the proxy."""
    first = len(proxy.messages)
    with emulated_function(environment, ARTIFACT, TRACED) as function:
        started = time.monotonic()
        invocation = function.invoke(event)
        ended = started + invocation.seconds
    if invocation.error_type:
        raise LocalError(f"{invocation.error_type}: {invocation.error_message}")
    marks = dict(read_marks(invocation.output))
    queries = [message for message in proxy.messages[first:] if message.sender == "client" and message.type == "Q"]
    begins = [
        ("Python starts", STARTS, started),
        ("Lambda's runtime client", STARTS, marks["runtime"]),
        ("import: Powertools", IMPORTS, marks["import app"]),
        ("import: errors and texts", IMPORTS, marks["import hotfix"]),
        ("import: pg8000, scramp", IMPORTS, marks["import session"]),
        ("import: boto3, and the rest", IMPORTS, marks["import credentials"]),
        ("client of Secrets Manager", WORKS, marks["file"]),
        ("the secret", WORKS, marks[f"connect {urlsplit(environment['AWS_ENDPOINT_URL']).port}"]),
        ("TLS and login", WORKS, marks[f"connect {proxy.port}"]),
        ("look", WORKS, queries[0].at),
        ("alter, prove, commit", WORKS, find_alter(queries).at),
        ("look again, log, answer", WORKS, queries[queries.index(find_alter(queries)) + 1].at),
    ]
    ends = [*(at for _, _, at in begins[1:]), ended]
    return [
        Step(name, color, (at - started) * 1000, (end - at) * 1000)
        for (name, color, at), end in zip(begins, ends, strict=True)
    ]


def find_alter(queries: Sequence[Message]) -> Message:
    return next(message for message in queries if "LOCK TABLE" in message.text)


def read_marks(output: str) -> Iterator[tuple[str, float]]:
    for line in output.splitlines():
        said, _, rest = line.partition(" ")
        if said == SAID:
            name, _, at = rest.rpartition(" ")
            yield name, float(at)


def total_ms(steps: Sequence[Step]) -> float:
    return steps[-1].start + steps[-1].ms


def draw(title: str, steps: Sequence[Step]) -> str:
    """Returns the SVG: a bar for each step, where it stands in time, and how long it took."""
    height = TOP + ROW * len(steps) + 12
    scale = (WIDTH - LEFT - RIGHT) / total_ms(steps)
    body = [text(12, 22, title, font_size="15")]
    for number, step in enumerate(steps):
        y, x = TOP + ROW * number, LEFT + step.start * scale
        width = max(1.0, step.ms * scale)
        body += [
            text(LEFT - 10, y + 14, step.name, text_anchor="end"),
            f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{ROW - 6}" fill="{step.color}"/>',
            text(x + width + 6, y + 14, f"{step.ms:.0f} ms", fill="#555"),
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"'
        f' font-size="13"><title>{escape(title)}</title><rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )
