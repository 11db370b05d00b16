"""Whether a file only adds columns, read from its SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg_hotfix.file.lexer import split_at_commas, statements, tokens
from pg_hotfix.promises.column.line import SERIAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.file.lexer import Token

# What follows ADD if it does not add a column.
CONSTRAINTS = {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "EXCLUDE"}


def count_additions(sql: str) -> int:
    """How many columns the file adds; 0 if it does anything else but add columns and constraints."""
    count = 0
    for statement in statements(tokens(sql)):
        top = [token for token, depth in with_depth(statement) if depth == 0]
        words = [token.keyword or token.text for token in top]
        if words[:2] != ["ALTER", "TABLE"] or "ADD" not in words or any(map(SERIAL.fullmatch, words)):
            return 0
        start = words.index("ADD")
        if len([word for word in words[2:start] if word not in ("IF", "EXISTS", "ONLY", ".", "*")]) > 2:
            return 0
        actions = [[token.keyword for token in action[:2]] for action in split_at_commas(top[start:])]
        if any(action[:1] != ["ADD"] for action in actions):
            return 0
        count += sum(action[-1] not in CONSTRAINTS for action in actions)
    return count


def with_depth(statement: Sequence[Token]) -> list[tuple[Token, int]]:
    depth, found = 0, []
    for token in statement:
        depth -= token.text == ")"
        found.append((token, depth))
        depth += token.text == "("
    return found
