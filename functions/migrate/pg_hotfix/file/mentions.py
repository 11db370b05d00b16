"""Which names the source of a function uses. PostgreSQL keeps no dependencies of a function's body, only its text.

A comment uses no name. A string may be SQL that the function builds and runs, so it is read as SQL, too.
https://www.postgresql.org/docs/current/plpgsql-implementation.html
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from pg_hotfix.file.lexer import LOWER, Unended, tokens
from pg_hotfix.file.made import inner_text
from pg_hotfix.promises.column.line import stored_name

if TYPE_CHECKING:
    from collections.abc import Collection

# The languages that the lexer can cut. In any other the whole text is searched.
SQL_LANGUAGES = ("plpgsql", "sql")


class Mention(IntEnum):
    """How a name is used, in ascending certainty: not at all, as a word, or as a part of something, such as
    `NEW.rating`."""

    NONE = 0
    WORD = 1
    PART = 2


def find_mentions(
    source: str, names: Collection[str], language: str = "sql", *, in_strings: bool = True
) -> dict[str, Mention]:
    """How the source uses each of the names, which are as PostgreSQL stores them."""
    if language not in SQL_LANGUAGES:
        return {name: Mention.PART if stands_in(source, name) else Mention.NONE for name in names}
    found = dict.fromkeys(names, Mention.NONE)
    before = ""
    try:
        for token in tokens(source):
            if token.kind in ("space", "comment"):
                continue
            if token.kind in ("string", "dollar") and in_strings:
                inner = find_mentions(inner_text(token), names)
                found = {name: max(mention, inner[name]) for name, mention in found.items()}
            name = stored_name(token)
            if name in found:
                found[name] = max(found[name], Mention.PART if before.endswith(".") else Mention.WORD)
            before = token.text
    except Unended:  # Prose, or another language.
        return {name: max(found[name], Mention(int(stands_in(source, name)))) for name in names}
    return found


def takes_whole_rows(source: str) -> bool:
    """Whether a trigger's function in PL/pgSQL uses `NEW.*` or `OLD.*`: it may need the same number of columns."""
    words = []
    try:
        words = [token.text.upper() for token in tokens(source) if token.kind not in ("space", "comment")]
    except Unended:
        return False
    return any(
        words[position : position + 3] in (["NEW", ".", "*"], ["OLD", ".", "*"]) for position in range(len(words))
    )


def stands_in(text: str, name: str) -> bool:
    """Whether the text has the name as a whole word, in upper or lower case."""
    text, name = text.translate(LOWER), name.translate(LOWER)
    position = text.find(name)
    while position >= 0:
        around = text[max(0, position - 1) : position] + text[position + len(name) :][:1]
        if not any(is_letter(character) for character in around):
            return True
        position = text.find(name, position + 1)
    return False


def is_letter(character: str) -> bool:
    """Whether it can be a part of a name without quotes."""
    return character.isalnum() or character in "_$" or ord(character) > ord("\x7f")
