"""What depends on the columns that a revert drops. It is read before any lock is taken, and compared under the lock.

Without CASCADE PostgreSQL refuses to drop a column that a view, a policy or another table's key uses. It silently drops
what was made on the table itself, such as an index or a CHECK, whatever other columns that has. It does not read the
bodies of functions: if a trigger's function names the column, every write to the table fails once the column is gone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pg_hotfix import errors
from pg_hotfix.change.dependents_sql import COMPILED, functions_sql, tables_sql
from pg_hotfix.file.lexer import statements, tokens
from pg_hotfix.file.made import find_made
from pg_hotfix.file.mentions import Mention, find_mentions, takes_whole_rows
from pg_hotfix.listing import first_few
from pg_hotfix.server.session import literal
from pg_hotfix.server.signals import IN_USE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.server.session import Session

# Under the lock the query is cancelled after this time.
READ_UNDER_LOCK_MS = 400
# PostgreSQL's words that a reader would not know, and what is said instead.
WORDS = {
    "table constraint": "constraint",
    "table column": "column",
    "statistics object": "statistics",
    "publication relation": "publication of",
}
# Revert lines may drop these if the file makes them, those with a lower number first.
DROPPED_BY_LINES = {"trigger": 1, "policy": 1, "view": 2, "materialized view": 2, "function": 3, "procedure": 3}
# What a clause of the column's definition makes beside the column: how its default name ends, and the clause's words.
OWN_CLAUSES = {
    "u": ("key", ("unique",)),
    "p": ("pkey", ("primary",)),
    "c": ("check", ("check",)),
    "f": ("fkey", ("references",)),
    "x": ("excl", ("exclude",)),
    "S": ("seq", ("serial", "bigserial", "smallserial", "serial2", "serial4", "serial8")),
}
NAME_LIMIT_BYTES = 63


@dataclass(frozen=True)
class Dependents:
    """`staying`: what needs a column and is not dropped, so that PostgreSQL would refuse the revert, or writes would
    fail. `droppable` are statements that drop those of them that the file itself makes; `others` tells whether there
    are more. `going`: what PostgreSQL drops with the column, and the file does not make. `guessed`: what may fail
    without the column. `guard` is SQL that fails with InUse if any of this has changed."""

    staying: tuple[str, ...]
    droppable: tuple[str, ...]
    others: bool
    going: tuple[str, ...]
    guessed: tuple[str, ...]
    guard: str

    def notes(self, *, done: bool = False) -> tuple[dict[str, str], ...]:
        """The notes of a plan; or, if it is `done`, of the revert."""
        needs_force = "" if done else ", so revert needs --force"
        said = (
            ("revert is refused while these need the column", self.staying),
            (f"revert {'dropped' if done else 'drops'} these with the column{needs_force}", self.going),
            (f"These may fail without the column{needs_force}", self.guessed),
        )
        return tuple(
            {"code": "revert_dependents", "text": f"{text}: {'; '.join(first_few(found))}."}
            for text, found in said
            if found
        )


def find_dependents(session: Session, hotfix: Hotfix) -> Dependents:
    """What depends on the hotfix's columns now. Waits for no lock."""
    sql = tables_sql(hotfix)
    ((text, digest),) = session.query_prepared(sql)
    ((functions,),) = session.query(functions_sql(hotfix))
    return judge(
        hotfix, json.loads(text), json.loads(functions or "[]"), guard_sql(session.sql_or_execute(sql), digest)
    )


def refuse_dependents(hotfix: Hotfix, found: Dependents, *, force: bool) -> None:
    """Nothing that stays needs a column. Without `force` nothing else is dropped with it, either.

    Raises:
        RevertRefusedError: something does, or is. Nothing was changed.
    """
    columns = " and ".join(one.name for one in hotfix.expectations)
    if found.staying:
        raise errors.left_behind(hotfix.id, columns, found.staying, found.droppable, others=found.others)
    if not force and (found.going or found.guessed):
        raise errors.taken_along(hotfix.id, columns, found.going, found.guessed)


def guard_sql(query: str, digest: int) -> str:
    """The same query, for the transaction that holds the lock. It leaves out functions elsewhere, because reading every
    body takes too long. The answer is compared by its hash, so that no name that others chose becomes a part of this
    SQL."""
    return f"""SELECT pg_catalog.set_config('statement_timeout', '{READ_UNDER_LOCK_MS}ms', true);
DO $pg_hotfix$
DECLARE
    seen text;
    digest bigint;
BEGIN
    EXECUTE {literal(query)} INTO seen, digest;
    IF digest <> {digest} THEN
        RAISE EXCEPTION USING MESSAGE = '{IN_USE}0 changed';
    END IF;
END $pg_hotfix$;
"""


def judge(hotfix: Hotfix, seen: Mapping[str, Any], functions: Sequence[Mapping[str, Any]], guard: str) -> Dependents:
    """`seen` and `functions`: the answers to `tables_sql` and `functions_sql`."""
    columns, tables = {one.column for one in hotfix.expectations}, set(seen["tables"] or ())
    # By name: how a text says it, and, if the file makes it, the statements that drop it, each with its order.
    staying: dict[str, tuple[str, list[tuple[int, str]]]] = {}
    going: list[str] = []
    guessed: dict[str, str] = {}
    for one in seen["objects"] or ():
        kind = WORDS.get(one["type"], one["type"])
        called = f"{kind} {one['identity']}"
        if not one["goes"] or kind == "column":
            staying[called] = called, drop_sql(hotfix, kind, one["name"], one["identity"])
        elif not is_of_file(hotfix, one, columns | tables):
            going.append(called)
    for what in ("partition key", "replica identity"):
        for table in seen[what] or ():
            called = f"{what} of {table}"
            staying[called] = called, []
    for one in seen["triggers"] or ():
        called = f"trigger {one['identity']}"
        mention, how = tell_mention(one, columns, tables)
        told = f"{called}, {how}"
        match mention:
            case Mention.PART:
                dropping = drop_sql(hotfix, "trigger", one["name"], one["identity"])
                staying[called] = told, dropping + drop_sql(hotfix, "function", one["routine"], one["function"])
            case Mention.WORD:
                guessed[called] = told
    for one in functions:
        mentions = find_mentions(one["source"], columns | tables, one["language"])
        is_called = any(find_mentions(source, {one["name"]})[one["name"]] for source in one["callers"] or ())
        about = one["sure"] or is_called or any(mentions[name] for name in tables)
        if about and any(mentions[name] for name in columns):
            called = f"{one['type']} {one['identity']}"
            guessed[called] = called
    droppable = [statement for _, statements in staying.values() for statement in statements]
    droppable.reverse()  # What was made later may need what was made before.
    droppable.sort(key=itemgetter(0))
    return Dependents(
        staying=tuple(told for told, _ in staying.values()),
        droppable=tuple(dict.fromkeys(statement for _, statement in droppable)),
        others=not all(statements for _, statements in staying.values()),
        going=tuple(going),
        guessed=tuple(told for called, told in guessed.items() if called not in staying),
        guard=guard,
    )


def tell_mention(trigger: Mapping[str, Any], columns: set[str], tables: set[str]) -> tuple[Mention, str]:
    """PART if the trigger would fail: its function uses `NEW.rating` or the like, or names the column and the table
    outside of strings; or it is compiled, and gets the column's name as an argument. WORD if it may fail. And how it
    needs the column."""
    given, named_by = "which gets the name of the column", f"whose function {trigger['function']} names the column"
    arguments = trigger["arguments"] or ()
    is_given = not columns.isdisjoint(arguments) or any(
        mention for argument in arguments for mention in find_mentions(argument, columns).values()
    )
    if trigger["language"] in COMPILED:
        return Mention.PART if is_given else Mention.NONE, given
    source, language = trigger["source"], trigger["language"]
    named = max(find_mentions(source, columns, language).values())
    plain = find_mentions(source, {*columns, *tables}, language, in_strings=False)
    if any(plain[name] for name in columns) and any(plain[name] for name in tables):
        return Mention.PART, named_by
    if not named and not is_given and language == "plpgsql" and takes_whole_rows(source):
        return Mention.WORD, f"whose function {trigger['function']} uses whole rows (NEW.* or OLD.*)"
    return max(named, Mention(int(is_given))), named_by if named else given


def is_of_file(hotfix: Hotfix, one: Mapping[str, Any], others: Collection[str]) -> bool:
    """Whether the file itself makes it: the file has its name, which is not that of a table or a column; or the name is
    the one that PostgreSQL gives to what a clause of the column makes."""
    if one["name"] is None:
        return False
    ending, words = OWN_CLAUSES.get(one["contype"], ("", ()))
    said = find_mentions(hotfix.sql, {one["name"], *words})
    if said[one["name"]] and one["name"] not in others:
        return True
    if one["spans"] != 1 or not one["columns"] or not any(said[word] for word in words):
        return False
    column = "" if ending == "pkey" else one["columns"][0]
    return any(one["name"] == default_name(one["table"], column, f"{ending}{number}") for number in ("", *range(1, 10)))


def default_name(table: str, column: str, ending: str) -> str:
    """The name that PostgreSQL makes; it cuts the longer of the two until they fit. See makeObjectName in
    https://github.com/postgres/postgres/blob/master/src/backend/commands/indexcmds.c
    """
    first, second = table.encode(), column.encode()
    room = NAME_LIMIT_BYTES - len(ending) - 1 - bool(column)
    while len(first) + len(second) > room:
        if len(first) > len(second):
            first = first[:-1]
        else:
            second = second[:-1]
    return "_".join(part for part in (first.decode(errors="ignore"), second.decode(errors="ignore"), ending) if part)


def drop_sql(hotfix: Hotfix, kind: str, name: str | None, identity: str) -> list[tuple[int, str]]:
    """The statement that drops it, if revert lines may drop such an object and the file makes it."""
    made = (one for statement in statements(tokens(hotfix.sql)) for one in find_made(statement))
    if kind not in DROPPED_BY_LINES or not any((one.kind, one.name) == (kind.upper(), name) for one in made):
        return []
    return [(DROPPED_BY_LINES[kind], f"DROP {kind.upper()} IF EXISTS {identity};")]
