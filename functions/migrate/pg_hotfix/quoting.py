"""A name or a text, written so that SQL takes it for one identifier or one string, whatever characters it has.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html
"""

from __future__ import annotations


def quoted(name: str) -> str:
    """The name as an SQL identifier, always in double quotes."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def string(text: str) -> str:
    """The text as an SQL string."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
