"""Markdown in which no text from outside is anything but text.

It stands in code only, where neither Markdown nor HTML means anything, and in no table, where a bar would.
https://spec.commonmark.org/0.31.2/#fenced-code-blocks
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Controls, formats (which turn the text after them around), lone surrogates, and line ends that few take for one.
UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
SHORTEST_FENCE = 3


def printable(text: str) -> str:
    """The text with a visible sign for each character that could hide or turn around what a person reads."""
    return "".join(
        sign if sign in "\n\t" or unicodedata.category(sign) not in UNPRINTABLE else "\N{REPLACEMENT CHARACTER}"
        for sign in text.replace("\r\n", "\n")
    )


def code(text: str) -> str:
    """The text in one line, within a sentence."""
    line = " ".join(printable(text).split()) or "-"
    ticks = "`" * (longest_run(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def block(text: str, language: str = "") -> str:
    """The text as it is, in lines of its own."""
    inside = printable(text).strip("\n")
    fence = "`" * max(SHORTEST_FENCE, longest_run(inside) + 1)
    return f"{fence}{language}\n{inside}\n{fence}"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """The rows as a block of columns, the first row being their titles."""
    cells = [[" ".join(printable(cell).split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return block("\n".join(line.rstrip() for line in lines))


def longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
