"""Counts and lists as a text gives them: in the right number, and no longer than somebody reads."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of a list of the database's objects a text names so many, and the log line has so many.
NAMED_OBJECTS, LOGGED_OBJECTS = 20, 200


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def first_few(texts: Sequence[str], most: int = NAMED_OBJECTS) -> list[str]:
    """The first of them, and how many more there are."""
    hidden = len(texts) - most
    return [*texts[:most], *([f"and {hidden} more"] if hidden > 0 else [])]


def first_that_fit(texts: Sequence[str], most_bytes: int) -> list[str]:
    """The first of them that take no more than this in JSON, each with the end of its line."""
    ends = accumulate(len(json.dumps(text)) for text in texts)
    return [text for text, end in zip(texts, ends, strict=True) if end <= most_bytes]
