"""One reviewed file of sql/: its SQL, and what it promises, read without a database.

psql can run a file as it is. This module checks only what must be right before anything connects; PostgreSQL checks the
SQL itself.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import dropwhile
from typing import TYPE_CHECKING, ClassVar

from pg_hotfix import errors
from pg_hotfix.file.additions import count_additions
from pg_hotfix.file.hotfix_id import HOTFIX_ID
from pg_hotfix.file.lexer import Token, Unended, split_at_commas, statements, tokens
from pg_hotfix.file.made import WITHOUT_DATA, Named, find_dropped, find_made, inner_text
from pg_hotfix.listing import counted
from pg_hotfix.promises.column.line import Expectation, Unreadable, parse_expectation, stored_name
from pg_hotfix.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

DIRECTIVE = re.compile(r"--[ \t]*(expect|allow|revert)[ \t]*:[ \t]*(.*)", re.IGNORECASE)
ALLOWED = re.compile(r"(rewrite|scan)\b[ \t]*(.*)", re.IGNORECASE)
# Such as "expected: column", "exepct column", or one with a no-break space: this promise would be ignored silently.
MISSPELT = re.compile(r"--\W*ex[cept]{3,}\w*\W*column\b", re.IGNORECASE)
MISSPELT_REVERT = re.compile(r"--\W*re?v[ert]{2,}\w*\W*(ALTER|DROP)\b", re.IGNORECASE)

TRANSACTION_CONTROL = "BEGIN|START TRANSACTION|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE TRANSACTION"
LIMITS = (
    "(?:LOCK_TIMEOUT|STATEMENT_TIMEOUT|TRANSACTION_TIMEOUT|IDLE_IN_TRANSACTION_SESSION_TIMEOUT"
    "|CLIENT_CONNECTION_CHECK_INTERVAL|ALL)"
)
# How a refused statement begins, what the text says about it, and what to do.
REFUSED = (
    (
        re.compile(rf"(?:{TRANSACTION_CONTROL})\b"),
        "contains transaction control ({})",
        "Remove it: the whole file runs in one transaction, which is committed only after the proof.",
    ),
    (
        re.compile(rf"(?:SET (?:SESSION |LOCAL )?{LIMITS}|RESET {LIMITS}|DISCARD|DEALLOCATE)\b"),
        "changes the session's limits ({})",
        "Remove it: LOCK_WAIT_SECONDS and STATEMENT_TIMEOUT_MS limit every run.",
    ),
    (re.compile(r"COPY\b"), "moves data ({})", "A hotfix changes the schema: remove it, and move data by other means."),
)


@dataclass(frozen=True)
class NamedTable:
    """A name in the SQL at a place where a table is named, as PostgreSQL stores it; `schema` is None if it has none.
    The table is `altered`, or a foreign key, an index or a trigger refers to it."""

    schema: str | None
    name: str
    altered: bool


@dataclass(frozen=True)
class Revert:
    """The SQL of the file's revert lines, and what it drops beside columns."""

    sql: str
    statement_count: int
    named_tables: tuple[NamedTable, ...]
    dropped: tuple[Named, ...] = ()


@dataclass(frozen=True)
class Hotfix:
    """A file that may be run. `sha256` is of its bytes, so a Prisma migration of the same bytes has the same checksum.
    `allowed` has the reason why the file may do what `./pg-hotfix prove` would refuse: for "rewrite" or "scan". If the
    hotfix is `reverting`, the columns must go, and the counts and names are those of the revert lines.
    """

    id: str
    sql: str
    sha256: str
    statement_count: int
    expectations: tuple[Expectation, ...]
    named_tables: tuple[NamedTable, ...] = ()
    allowed: tuple[tuple[str, str], ...] = ()
    revert: Revert | None = None
    reverting: bool = False

    @property
    def sql_to_run(self) -> str:
        return self.revert.sql if self.reverting and self.revert else self.sql

    @property
    def file(self) -> str:
        return f"{self.id}.sql"

    @property
    def touches_others(self) -> bool:
        """Whether the SQL names tables that are not expected ones. A name that is no table's does no harm."""
        expected = {(one.schema, one.table) for one in self.expectations} | {
            (None, one.table) for one in self.expectations
        }
        return any((named.schema, named.name) not in expected for named in self.named_tables)

    @property
    def tables(self) -> str:
        return tables_of(self.expectations)

    @cached_property
    def additions(self) -> int:
        return count_additions(self.sql)

    @cached_property
    def keywords(self) -> set[str]:
        return {token.keyword for token in tokens(self.sql)}


@dataclass(frozen=True)
class ExpectedSchema:
    """The columns that the application expects, of all its tables, as `./pg-hotfix expect-schema` writes them. It has
    no SQL."""

    expectations: tuple[Expectation, ...]
    sha256: str
    text: str = ""

    file: ClassVar = "schema.expect"
    named_tables: ClassVar[tuple[NamedTable, ...]] = ()


type PackagedFile = Hotfix | ExpectedSchema


def tables_of(expectations: Iterable[Expectation]) -> str:
    """The names of their tables, each once."""
    return " and ".join(dict.fromkeys(expectation.qualified_table for expectation in expectations))


def count_columns(expectations: Collection[Expectation]) -> str:
    """Such as "412 columns of 57 tables"."""
    tables = {(expectation.schema, expectation.table) for expectation in expectations}
    return f"{counted(len(expectations), 'column')} of {counted(len(tables), 'table')}"


def list_hotfixes(sql_dir: Path) -> list[str]:
    return sorted(path.stem for path in sql_dir.glob("*.sql"))


def load_hotfix(sql_dir: Path, hotfix_id: str) -> Hotfix:
    """The file, checked.

    Raises:
        UnknownHotfixError, HotfixFileError: nothing was contacted.
    """
    path = sql_dir / f"{hotfix_id}.sql"
    if not path.exists():
        raise errors.unknown_hotfix(hotfix_id, list_hotfixes(sql_dir))
    return read_packaged(path, lambda content: parse_hotfix(hotfix_id, content))


def load_schema(sql_dir: Path) -> ExpectedSchema | None:
    """The list, checked; None if none is packaged.

    Raises:
        HotfixFileError: nothing was contacted.
    """
    path = sql_dir / ExpectedSchema.file
    return read_packaged(path, parse_schema) if path.exists() else None


def read_packaged[File: PackagedFile](path: Path, parse: Callable[[bytes], File]) -> File:
    try:
        return parse(path.read_bytes())
    except Unreadable as error:
        raise errors.bad_file(path.name, error.what, error.advice) from None
    except OSError as error:
        advice = "Make it a file that everybody may read (chmod 644)."
        raise errors.bad_file(path.name, f"cannot be read ({error.strerror})", advice) from error


def as_revert(hotfix: Hotfix) -> Hotfix:
    """The same hotfix, to be reverted.

    Raises:
        HotfixFileError: the file has no revert line. Nothing was contacted.
    """
    if hotfix.revert is None:
        raise errors.no_way_back(hotfix.id, derive_way_back(hotfix.expectations))
    counted, named = hotfix.revert.statement_count, hotfix.revert.named_tables
    return replace(hotfix, statement_count=counted, named_tables=named, reverting=True)


def derive_way_back(expectations: Iterable[Expectation]) -> list[str]:
    """The opposite of what is expected, one statement for each column."""
    return [f"ALTER TABLE {one.table_in_sql} DROP COLUMN IF EXISTS {quoted(one.column)};" for one in expectations]


@lru_cache(maxsize=32)
def parse_hotfix(hotfix_id: str, content: bytes) -> Hotfix:
    """The file, from the cache if a warm function has read it before."""
    if not HOTFIX_ID.fullmatch(hotfix_id):
        raise Unreadable("has a name that is not an id", "Name it as 14 digits, an underscore, and lower-case words.")
    sql, found = cut_tokens(content)
    expectations, allowed, lines = read_directives(found)
    cut = cut_statements(found)
    refuse_none_or_twice(expectations)
    revert = read_revert(lines, expectations, cut) if lines is not None else None
    digest = hashlib.sha256(content).hexdigest()
    return Hotfix(
        hotfix_id, sql, digest, len(cut), tuple(expectations), name_tables(cut), tuple(allowed.items()), revert
    )


def parse_schema(content: bytes) -> ExpectedSchema:
    text, found = cut_tokens(content)
    expectations, allowed, revert = read_directives(found)
    if allowed or revert is not None or any(token.kind not in ("space", "comment") for token in found):
        raise Unreadable("contains more than expect lines", "It is a list of columns only.")
    refuse_none_or_twice(expectations)
    return ExpectedSchema(tuple(expectations), hashlib.sha256(content).hexdigest(), text)


def refuse_none_or_twice(expectations: Sequence[Expectation]) -> None:
    if not expectations:
        raise Unreadable(
            "expects no column", "Add a line such as  -- expect: column public.drivers.active_since timestamptz null"
        )
    if len({expectation.name for expectation in expectations}) < len(expectations):
        raise Unreadable("expects the same column twice", "Keep one line for each column.")


def cut_tokens(content: bytes) -> tuple[str, list[Token]]:
    """The text and its tokens."""
    try:
        sql = content.decode()
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8", "Save it as UTF-8.") from None
    if "\0" in sql or sql.startswith("\ufeff"):
        raise Unreadable("contains a zero byte or begins with a byte order mark", "Save it as plain UTF-8.")
    try:
        return sql, list(tokens(sql))
    except Unended as error:
        line = sql.count("\n", 0, error.position) + 1
        raise Unreadable(f"contains a string, name or comment that does not end (line {line})", "Close it.") from None


def cut_statements(found: list[Token]) -> list[list[Token]]:
    """The statements, at least one, and none of them refused."""
    if any(token.text == "\\" for token in found):
        raise Unreadable("contains a psql meta-command (\\)", "Write plain SQL: the function is not psql.")
    cut = list(statements(iter(found)))
    for statement in cut:
        refuse_statement(statement)
    if not cut:
        raise Unreadable("contains no statement", "Write the ALTER TABLE below its expect lines.")
    return cut


def refuse_statement(statement: list[Token]) -> None:
    start = " ".join(token.keyword or token.text.strip('"').upper() for token in statement[:4])
    for form, what, advice in REFUSED:
        found = form.match(start)
        if found:
            raise Unreadable(what.format(found[0]), advice)


def name_tables(cut: list[list[Token]]) -> tuple[NamedTable, ...]:
    return tuple(dict.fromkeys(name for statement in cut for name in find_tables(statement)))


def find_tables(statement: list[Token]) -> Iterator[NamedTable]:
    """The names at places where a table is named, also in the body of a DO. Only the server knows which are tables."""
    words = [token.keyword or token.text for token in statement]
    for position, word in enumerate(words):
        altered = word == "TABLE" and words[max(0, position - 1)] in ("ALTER", "DROP", "TRUNCATE")
        altered = altered or (word == "ON" and words[0] == "DROP")
        if altered or word in ("REFERENCES", "ON") or (word == "VIEW" and words[0] == "DROP"):
            yield from name_at(statement[position + 1 :], altered=altered)
        if words[0] == "DO" and statement[position].kind == "dollar":
            with suppress(Unended):
                for inner in statements(iter(list(tokens(inner_text(statement[position]))))):
                    yield from find_tables(inner)


def name_at(following: list[Token], *, altered: bool) -> Iterator[NamedTable]:
    """The table's name, with its schema if it has one; nothing if there is no name."""
    rest = list(dropwhile(lambda token: token.keyword in ("IF", "EXISTS", "ONLY"), following))[:3]
    names = [stored_name(token) for token in rest]
    if len(rest) == 3 and rest[1].text == "." and names[0] and names[2]:
        yield NamedTable(names[0], names[2], altered)
    elif rest and names[0]:
        yield NamedTable(None, names[0], altered)


def read_directives(found: list[Token]) -> tuple[list[Expectation], dict[str, str], str | None]:
    """The expectations, what is allowed, and the SQL of the revert lines. All of them must stand before the first
    statement."""
    expectations: list[Expectation] = []
    allowed: dict[str, str] = {}
    revert: list[str] = []
    statement_seen = False
    for token in found:
        statement_seen = statement_seen or token.kind not in ("space", "comment")
        comment = token.text.strip()
        directive = DIRECTIVE.fullmatch(comment) if token.kind == "comment" else None
        if directive and statement_seen:
            word = directive[1].lower()
            article = "a" if word == "revert" else "an"
            raise Unreadable(f"has {article} {word} line after its first statement", "Move it to the head of the file.")
        if directive and directive[1].lower() == "allow":
            what, reason = read_allowed(directive[2], comment)
            allowed[what] = reason
        elif directive and directive[1].lower() == "revert":
            revert.append(directive[2])
        elif directive:
            try:
                expectations.append(parse_expectation(directive[2]))
            except Unreadable as error:
                what = f"has an expect line that cannot be read ({error.what}): {comment}"
                raise Unreadable(what, error.advice) from None
        elif token.kind == "comment" and MISSPELT.match(comment):
            what = f"has a line that looks like an expect line but is not one: {comment}"
            raise Unreadable(what, "Write  -- expect: column ...")
        elif token.kind == "comment" and MISSPELT_REVERT.match(comment):
            what = f"has a line that looks like a revert line but is not one: {comment}"
            raise Unreadable(what, "Write  -- revert: ALTER TABLE ...")
    return expectations, allowed, "\n".join(revert) if revert else None


def read_revert(sql: str, expectations: Sequence[Expectation], file: Iterable[list[Token]]) -> Revert:
    """The SQL of the revert lines. What a file may not do they may not do either, and they drop only the expected
    columns and what the statements of the `file` make.

    Raises:
        Unreadable: they do more.
    """
    try:
        found = cut_tokens(sql.encode())[1]
        if not list(statements(iter(found))):
            raise Unreadable("contains no statement", "Write  -- revert: ALTER TABLE ...")
        cut = cut_statements(found)
        made = [one for statement in file for one in find_made(statement)]
        dropped = [one for statement in cut for one in list_dropped(statement, expectations, made)]
    except Unreadable as error:
        raise Unreadable(f"has revert lines with an error: the SQL {error.what}", error.advice) from None
    return Revert(sql, len(cut), name_tables(cut), tuple(dropped))


def list_dropped(
    statement: list[Token], expectations: Sequence[Expectation], made: Sequence[Named]
) -> tuple[Named, ...]:
    """What the statement drops beside the expected columns. A revert checks only the rows of these columns, so the
    statement may drop nothing else that holds data.

    Raises:
        Unreadable: it does more.
    """
    words = [token.keyword or token.text for token in statement]
    schemas = {one.schema for one in expectations}
    dropped = find_dropped(statement)
    if dropped is not None and all(
        one.kind not in WITHOUT_DATA or any(one.is_made_by(other, schemas) for other in made) for one in dropped
    ):
        return dropped
    if words[:2] == ["ALTER", "TABLE"] and "DROP" in words and "CASCADE" not in words:
        first = words.index("DROP")
        tables = list(find_tables(statement[:first]))
        columns = {column for action in split_at_commas(statement[first:]) for column in [dropped_column(action)]}
        expected = {
            one.column
            for one in expectations
            for table in tables
            if one.table == table.name and table.schema in (None, one.schema)
        }
        if columns <= expected:
            return ()
    raise Unreadable(
        f"does more than drop the expected columns ({' '.join(words[:6])} ...)",
        "Write  -- revert: ALTER TABLE ... DROP COLUMN IF EXISTS ...;  It may also drop types, domains and indexes, and"
        " the triggers, functions, procedures, policies and views that the file itself creates: each without CASCADE,"
        " and a function with its arguments as the file has them. Drop everything else by a migration.",
    )


def dropped_column(action: list[Token]) -> str | None:
    """The name in `DROP [COLUMN] [IF EXISTS] name [RESTRICT]`; None if it is another action."""
    rest = list(dropwhile(lambda token: token.keyword in ("DROP", "COLUMN", "IF", "EXISTS"), action))
    is_drop = (
        action[:1] != [] and action[0].keyword == "DROP" and [token.keyword for token in rest[1:]] in ([], ["RESTRICT"])
    )
    return stored_name(rest[0]) if is_drop and rest else None


def read_allowed(text: str, comment: str) -> tuple[str, str]:
    allowed = ALLOWED.fullmatch(text)
    if allowed is None:
        raise Unreadable(
            f"has an allow line with an unknown rule: {comment}",
            "Write  -- allow: rewrite <reason>  or  -- allow: scan <reason>",
        )
    if not allowed[2]:
        raise Unreadable(
            f"allows a {allowed[1].lower()} without a reason: {comment}",
            "Write on the same line why it is safe here, such as  -- allow: rewrite the table has 300 rows",
        )
    return allowed[1].lower(), allowed[2]
