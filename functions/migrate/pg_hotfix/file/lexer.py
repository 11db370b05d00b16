"""Cuts SQL into tokens where PostgreSQL would, so that no statement hides in what only looks like a string or comment.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html and PostgreSQL's own src/backend/parser/scan.l
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# For PostgreSQL every character beyond ASCII is a letter, even a no-break space, and white space is ASCII only. Such a
# letter is [^\x00-\x7f] here: for a set up to \U0010ffff Python builds a bitmap, which took 25 ms of each cold start.
TOKEN = re.compile(
    r"""(?P<space>[ \t\n\r\f\v]+)
    |(?P<comment>--[^\r\n]*|/\*)
    |(?P<string>
        # A string goes on after a line break, and then its backslashes still escape.
        [eE]'(?:[^'\\]|\\.|'')*'
        (?:(?:[ \t\f\v]|--[^\r\n]*)*[\r\n](?:[ \t\n\r\f\v]|--[^\r\n]*[\r\n])*'(?:[^'\\]|\\.|'')*')*
        |(?:[uU]&|[bBxXnN])?'(?:[^']|'')*')
    |(?P<quoted>(?:[uU]&)?"(?:[^"]|"")*")
    |(?P<dollar>\$(?:(?:[A-Za-z_]|[^\x00-\x7f])(?:[A-Za-z0-9_]|[^\x00-\x7f])*+)?\$)
    |(?P<unended>[eE]?'|")
    |(?P<word>(?:[A-Za-z_]|[^\x00-\x7f])(?:[A-Za-z0-9_$]|[^\x00-\x7f])*+)
    |(?P<number>[0-9][0-9.]*)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
LOWER = {upper: lower for lower, upper in UPPER.items()}


@dataclass(frozen=True)
class Token:
    """`kind` is the name of the group in TOKEN that matched."""

    kind: str
    text: str
    position: int

    @property
    def keyword(self) -> str:
        """The word in upper case as PostgreSQL folds it: in ASCII only. Empty if it is no word."""
        return self.text.translate(UPPER) if self.kind == "word" else ""


class Unended(Exception):  # noqa: N818 - never leaves the function
    """A string, a quoted name or a comment does not end."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def tokens(sql: str) -> Iterator[Token]:
    """The tokens in order, nothing left out; nested comments and dollar-quoted strings are one token each.

    Raises:
        Unended: with the position where it began.
    """
    position = 0
    while position < len(sql):
        match = TOKEN.match(sql, position)
        assert match is not None  # "sign" matches any character.
        kind, end = str(match.lastgroup), match.end()
        if match["comment"] == "/*":
            end = end_of_comment(sql, end)
        elif kind == "dollar":
            closing = sql.find(match[0], end)
            end = closing + len(match[0]) if closing >= 0 else -1
        if end < 0 or kind == "unended":
            raise Unended(position)
        yield Token(kind, sql[position:end], position)
        position = end


def end_of_comment(sql: str, position: int) -> int:
    depth = 1
    for mark in re.compile(r"/\*|\*/").finditer(sql, position):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return -1


def statements(found: Iterator[Token]) -> Iterator[list[Token]]:
    """The tokens of each statement, without space, comments and semicolons. A semicolon in a function's body in
    standard SQL, BEGIN ATOMIC ... END, ends no statement."""
    statement: list[Token] = []
    for token in found:
        if token.kind in ("space", "comment"):
            continue
        if token.text == ";" and not inside_atomic_body([token.keyword or token.text for token in statement]):
            if statement:
                yield statement
            statement = []
        elif token.text != ";":
            statement.append(token)
    if statement:
        yield statement


def inside_atomic_body(words: list[str]) -> bool:
    after_create = words[3:] if words[1:3] == ["OR", "REPLACE"] else words[1:]
    if words[:1] != ["CREATE"] or after_create[:1] not in (["FUNCTION"], ["PROCEDURE"]):
        return False
    depth = 0
    for position, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if depth == 0 and words[position : position + 2] == ["BEGIN", "ATOMIC"]:
            body = words[position:]
            return body.count("END") < 1 + body.count("CASE")
    return False


def split_at_commas(found: Iterable[Token]) -> Iterator[list[Token]]:
    action: list[Token] = []
    for token in found:
        if token.text == ",":
            yield action
            action = []
        else:
            action.append(token)
    yield action
