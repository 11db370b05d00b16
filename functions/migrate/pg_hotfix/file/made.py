"""What a file creates beside columns, and what its revert lines drop of that, read from the statements.

https://www.postgresql.org/docs/current/sql-commands.html
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from pg_hotfix.file.lexer import Unended, statements, tokens
from pg_hotfix.promises.column.line import stored_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pg_hotfix.file.lexer import Token

# Words between CREATE and the kind. A TEMPORARY or RECURSIVE view is a view as well.
BEFORE_THE_KIND = ("OR", "REPLACE", "CONSTRAINT", "TEMP", "TEMPORARY", "RECURSIVE")
ROUTINES = ("FUNCTION", "PROCEDURE")
ON_A_TABLE = ("TRIGGER", "POLICY")
# These hold no data of their own.
WITHOUT_DATA = (*ROUTINES, *ON_A_TABLE, "VIEW", "MATERIALIZED VIEW")
KINDS = (*WITHOUT_DATA, "INDEX", "TYPE", "DOMAIN")


@dataclass(frozen=True)
class Named:
    """An object as a statement names it; `schema` is None if the statement names none. A trigger or a policy has the
    schema of its `table`. `arguments` are those of a routine, the words of each; None without brackets."""

    kind: str
    schema: str | None
    name: str
    table: str | None = None
    arguments: tuple[tuple[str, ...], ...] | None = None

    def is_made_by(self, made: Named, schemas: Collection[str]) -> bool:
        """Whether a statement that drops this drops what `made` creates. A name without a schema means one of
        `schemas`."""
        same = (self.kind, self.name, self.table) == (made.kind, made.name, made.table)
        told = {schema for schema in (self.schema, made.schema) if schema is not None}
        return same and len(told) < 2 and (self.schema == made.schema or told <= set(schemas)) and self.takes_as(made)

    def takes_as(self, made: Named) -> bool:
        """Whether the arguments are the same, so that no other function of this name is meant. The types are enough, in
        the same words; names, defaults and OUT arguments may be left out."""
        if self.kind not in ROUTINES:
            return True
        if self.arguments is None or made.arguments is None:
            return False
        given = [argument for argument in made.arguments if argument[:1] != ("OUT",)]
        return len(self.arguments) == len(given) and all(
            own and whole[-len(own) :] == own for own, whole in zip(self.arguments, given, strict=True)
        )


def find_made(statement: Sequence[Token]) -> Iterator[Named]:
    """What the statement creates, also in the body of a DO and in strings that it executes."""
    words = words_of(statement)
    inside = words[:1] == ["DO"]
    for position, word in enumerate(words):
        if word == "CREATE" and (position == 0 or inside):
            yield from read_made(list(statement[position + 1 :]))
        if inside and statement[position].kind in ("dollar", "string"):
            with suppress(Unended):
                for inner in statements(iter(list(tokens(inner_text(statement[position]))))):
                    yield from find_made([*statement[:1], *inner])


def read_made(rest: list[Token]) -> Iterator[Named]:
    while rest and rest[0].keyword in BEFORE_THE_KIND:
        rest = rest[1:]
    kind, rest = read_kind(rest)
    rest = skip_words(rest, "IF", "NOT", "EXISTS", "CONCURRENTLY")
    read = read_name(rest)
    if kind not in WITHOUT_DATA or read is None:
        return
    schema, name, rest = read
    if kind in ON_A_TABLE:
        rest = rest[next((place + 1 for place, token in enumerate(rest) if token.keyword == "ON"), len(rest)) :]
        table = read_name(rest)
        if table:
            yield Named(kind, table[0], name, table[1])
    else:
        yield Named(kind, schema, name, None, read_arguments(rest)[0] if kind in ROUTINES else None)


def find_dropped(statement: Sequence[Token]) -> tuple[Named, ...] | None:
    """All that a DROP drops, if it is one of KINDS without CASCADE; None if it is anything else."""
    if words_of(statement[:1]) != ["DROP"]:
        return None
    kind, rest = read_kind(list(statement[1:]))
    rest = skip_words(rest, "CONCURRENTLY", "IF", "EXISTS")
    found: list[Named] = []
    while kind in KINDS:
        read = read_name(rest)
        if read is None:
            return None
        schema, name, rest = read
        if kind in ON_A_TABLE:
            table = read_name(rest[1:]) if words_of(rest[:1]) == ["ON"] else None
            if table is None:
                return None
            schema, on, rest = table
            found.append(Named(kind, schema, name, on))
        else:
            arguments, rest = read_arguments(rest) if kind in ROUTINES else (None, rest)
            found.append(Named(kind, schema, name, None, arguments))
        if words_of(rest) in ([], ["RESTRICT"]):
            return tuple(found)
        if rest[0].text != "," or kind in ON_A_TABLE:
            return None
        rest = rest[1:]
    return None


def words_of(found: Sequence[Token]) -> list[str]:
    return [token.keyword or token.text for token in found]


def inner_text(token: Token) -> str:
    """What a string holds, without its quotes."""
    if token.kind == "dollar":
        return token.text.split("$", 2)[2].rsplit("$", 2)[0]
    return token.text.partition("'")[2][:-1].replace("''", "'")


def read_kind(rest: list[Token]) -> tuple[str, list[Token]]:
    words = words_of(rest[:2])
    if words == ["MATERIALIZED", "VIEW"]:
        return "MATERIALIZED VIEW", rest[2:]
    return (words[0] if words else ""), rest[1:]


def skip_words(rest: list[Token], *keywords: str) -> list[Token]:
    skipped = sum(1 for _ in takewhile(lambda token: token.keyword in keywords, rest))
    return rest[skipped:]


def read_name(rest: list[Token]) -> tuple[str | None, str, list[Token]] | None:
    """Schema, name, and what follows."""
    name = stored_name(rest[0]) if rest else None
    if name is None:
        return None
    if len(rest) > 2 and rest[1].text == ".":
        inner = stored_name(rest[2])
        return None if inner is None else (name, inner, rest[3:])
    return None, name, rest[1:]


def read_arguments(rest: list[Token]) -> tuple[tuple[tuple[str, ...], ...] | None, list[Token]]:
    """The words of each argument without its default, and what follows; None if no bracket stands here."""
    if not rest or rest[0].text != "(":
        return None, rest
    arguments: list[tuple[str, ...]] = []
    words: list[str] = []
    in_default, depth = False, 0
    for place, token in enumerate(rest):
        depth += (token.text in "([") - (token.text in ")]")
        if depth == 0 or (depth == 1 and token.text == ","):
            if words:
                arguments.append(tuple(words))
            words, in_default = [], False
            if depth == 0:
                return tuple(arguments), rest[place + 1 :]
        elif depth > 1 or token.text != "(":
            in_default = in_default or token.keyword == "DEFAULT" or token.text == "="
            words += [] if in_default else [token.keyword or token.text]
    return None, rest
