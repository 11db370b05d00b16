"""The function's log line, abridged for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

READ_FIRST = ("action", "result", "error", "lock_held_ms", "duration_ms", "requested_by", "reason")


def format_log_line(record: Mapping[str, Any]) -> str:
    """One line with what is read first; the whole line is JSON, and longer, in CloudWatch."""
    facts = [f"{key}={quote(str(record[key]))}" for key in READ_FIRST if record.get(key) is not None]
    return " ".join([str(record.get("level")), str(record.get("message")), *facts])


def quote(value: str) -> str:
    return value if value.isprintable() and " " not in value else json.dumps(value, ensure_ascii=False)
