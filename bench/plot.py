"""How long a reader waits, over time, as an SVG for the README: small, and the same for the same figures.

White, since a dark page would swallow its text.
"""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from bench.probes import Sample

WIDTH, HEIGHT = 840, 340
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 40, 44
LOWEST_MS, HIGHEST_MS = 0.1, 30_000
COLORS = ("#c0392b", "#1565c0", "#2e7d32", "#6a1b9a")
POINTS = 240


def draw(title: str, traces: Mapping[str, Sequence[Sample]], seconds: float, marks: Mapping[str, float]) -> str:
    """Returns the SVG: for each trace the longest wait of those that asked in the same moment, on a log scale.

    `marks` names moments, such as the end of the blocker.
    """
    body = [*draw_axes(seconds), *(draw_mark(name, at, seconds) for name, at in marks.items())]
    for (name, samples), color in zip(traces.items(), COLORS, strict=False):
        points = longest_by_moment(samples, seconds)
        path = "M" + "L".join(f"{x_of(at, seconds):.0f} {y_of(ms):.0f}" for at, ms in points)
        body.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        at, ms = max(points, key=lambda point: point[1])
        anchor = "start" if at < seconds * 0.8 else "end"  # So that a name stays inside.
        body.append(text(x_of(at, seconds), y_of(ms) - 8, name, fill=color, font_weight="bold", text_anchor=anchor))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        f' font-size="13"><title>{escape(title)}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n'
        + "\n".join([text(LEFT, 22, title, font_size="15"), *body])
        + "\n</svg>\n"
    )


def longest_by_moment(samples: Sequence[Sample], seconds: float) -> list[tuple[float, float]]:
    width = seconds / POINTS
    longest: dict[int, float] = {}
    for sample in samples:
        moment = math.floor(sample.at / width)
        if 0 <= moment < POINTS:
            longest[moment] = max(longest.get(moment, 0.0), sample.ms)
    return [((moment + 0.5) * width, ms) for moment, ms in sorted(longest.items())]


def draw_axes(seconds: float) -> list[str]:
    lines = []
    for exponent in range(math.ceil(math.log10(LOWEST_MS)), math.floor(math.log10(HIGHEST_MS)) + 1):
        ms = 10.0**exponent
        y = y_of(ms)
        lines.append(f'<path d="M{LEFT} {y:.0f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        label = f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms"
        lines.append(text(LEFT - 8, y + 4, label, text_anchor="end"))
    step = max(1, math.ceil(seconds / 12))
    lines += [
        text(x_of(second, seconds), HEIGHT - BOTTOM + 18, f"{second} s", text_anchor="middle")
        for second in range(0, math.floor(seconds) + 1, step)
    ]
    lines.append(text(WIDTH - RIGHT, HEIGHT - 8, "when the reader asks, since the tool's start", text_anchor="end"))
    return lines


def draw_mark(name: str, at: float, seconds: float) -> str:
    x = x_of(at, seconds)
    line = f'<path d="M{x:.0f} {TOP}V{HEIGHT - BOTTOM}" stroke="#888" stroke-dasharray="4 3"/>'
    return line + text(x - 6, TOP + 8, name, text_anchor="end", fill="#555")


def text(x: float, y: float, words: str, **attributes: str) -> str:
    named = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:.0f}" y="{y:.0f}"{named}>{escape(words)}</text>'


def x_of(at: float, seconds: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * at / seconds


def y_of(ms: float) -> float:
    share = math.log10(max(ms, LOWEST_MS) / LOWEST_MS) / math.log10(HIGHEST_MS / LOWEST_MS)
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share
