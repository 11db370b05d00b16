"""One reviewed file of sql/: its SQL, and what it promises, read without a database.

psql can run a file as it is. What is checked here is only what must hold before anything connects; PostgreSQL itself
judges the SQL.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# PostgreSQL cuts longer names silently, so two names could become one.
NAME_LIMIT_BYTES = 63

# https://www.postgresql.org/docs/current/sql-syntax-lexical.html
TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<comment>--[^\r\n]*|/\*)
    |(?P<string>[eE]'(?:[^'\\]|\\.|'')*'|(?:[uU]&|[bBxXnN])?'(?:[^']|'')*')
    |(?P<dollar>\$(?P<tag>(?:[^\W\d]\w*)?)\$)
    |(?P<quoted>(?:[uU]&)?"(?:[^"]|"")*")
    |(?P<word>[^\W\d][\w$]*)
    |(?P<number>\d[\w.]*)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
DIRECTIVE = re.compile(r"--[ \t]*expect[ \t]*:[ \t]*(.*)", re.IGNORECASE)
MISSPELT = re.compile(r"--[ \t]*exp\w*[ \t]*:?[ \t]*column\b", re.IGNORECASE)

GENERATED = re.compile(
    r"generated\s+(?P<when>always|by\s+default)\s+as\s+identity"
    r"|generated\s+always\s+as\s*\((?P<expression>.*)\)\s*(?P<kind>stored|virtual)",
    re.IGNORECASE | re.DOTALL,
)

TRANSACTION_CONTROL = "BEGIN|START TRANSACTION|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE TRANSACTION"
TIME_LIMITS = (
    "(?:LOCK_TIMEOUT|STATEMENT_TIMEOUT|TRANSACTION_TIMEOUT|IDLE_IN_TRANSACTION_SESSION_TIMEOUT"
    "|CLIENT_CONNECTION_CHECK_INTERVAL|ALL)"
)
REFUSED = (
    (
        re.compile(rf"(?:{TRANSACTION_CONTROL})\b"),
        "holds transaction control ({})",
        "Leave it out: the whole file runs in one transaction, which is committed only after the proof.",
    ),
    (
        re.compile(rf"(?:SET (?:SESSION |LOCAL )?{TIME_LIMITS}|RESET {TIME_LIMITS}|DISCARD)\b"),
        "changes the session's limits ({})",
        "Leave it out: LOCK_WAIT_SECONDS and STATEMENT_TIMEOUT_MS limit every run.",
    ),
    (re.compile(r"COPY\b"), "moves data ({})", "A hotfix changes the schema: move data by other means."),
)


@dataclass(frozen=True)
class Expectation:
    """What one column must be afterwards. Names as PostgreSQL stores them; `type`, `collation`, `default` and
    `generated` as written."""

    schema: str
    table: str
    column: str
    type: str
    collation: str | None = None
    not_null: bool = False
    default: str | None = None
    generated: str | None = None

    @property
    def qualified_table(self) -> str:
        return f"{written(self.schema)}.{written(self.table)}"

    @property
    def name(self) -> str:
        return f"{self.qualified_table}.{written(self.column)}"


@dataclass(frozen=True)
class Hotfix:
    """A file that may be run. `sha256` is of its bytes, so a Prisma migration of the same bytes has the same
    checksum."""

    id: str
    sql: str
    sha256: str
    expectations: tuple[Expectation, ...]

    @property
    def tables(self) -> str:
        return " and ".join(dict.fromkeys(expectation.qualified_table for expectation in self.expectations))


class Unreadable(Exception):  # noqa: N818 - never leaves this module
    """What is wrong with a file, and what to do."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.what, self.advice = what, advice


def list_hotfixes(sql_dir: Path) -> list[str]:
    return sorted(path.stem for path in sql_dir.glob("*.sql"))


def load_hotfix(sql_dir: Path, hotfix_id: str) -> Hotfix:
    """The file, checked. `hotfix_id` has the form of an id, so that it names nothing outside `sql_dir`.

    Raises:
        UnknownHotfixError, HotfixFileError: nothing was contacted.
    """
    path = sql_dir / f"{hotfix_id}.sql"
    if not path.is_file():
        raise errors.unknown_hotfix(hotfix_id, list_hotfixes(sql_dir))
    try:
        return parse_hotfix(hotfix_id, path.read_bytes())
    except Unreadable as error:
        raise errors.bad_file(hotfix_id, error.what, error.advice) from None


def parse_hotfix(hotfix_id: str, content: bytes) -> Hotfix:
    try:
        sql = content.decode()
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8", "Save it as UTF-8.") from None
    if "\0" in sql or sql.startswith("\ufeff"):
        raise Unreadable("holds a zero byte or begins with a byte order mark", "Save it as plain UTF-8.")
    expectations: list[Expectation] = []
    statements: list[list[str]] = [[]]
    for kind, text in tokens(sql):
        if kind == "comment":
            read_directive(text, expectations, first_statement_seen=any(statements))
        elif text == "\\":
            raise Unreadable("holds a psql meta-command (\\)", "Write plain SQL: the function is not psql.")
        elif text == ";" and not inside_atomic_body(statements[-1]):
            statements.append([])
        elif kind != "space":
            statements[-1].append(text.upper() if kind == "word" else text)
    for statement in filter(None, statements):
        refuse_statement(statement)
    if not any(statements):
        raise Unreadable("holds no statement", "Write the ALTER TABLE below its expect lines.")
    if not expectations:
        raise Unreadable(
            "expects no column", "Add a line such as  -- expect: column public.drivers.active_since timestamptz null"
        )
    names = [expectation.name for expectation in expectations]
    if len(set(names)) < len(names):
        raise Unreadable("expects the same column twice", "Keep one line for each column.")
    return Hotfix(hotfix_id, sql, hashlib.sha256(content).hexdigest(), tuple(expectations))


def tokens(sql: str) -> Iterator[tuple[str, str]]:
    """Kind and text of each token, with nested comments and dollar-quoted strings taken whole.

    Raises:
        Unreadable: a string, a quoted name or a comment does not end.
    """
    position = 0
    while position < len(sql):
        match = TOKEN.match(sql, position)
        assert match is not None  # "other" matches any character
        kind, end = str(match.lastgroup if match.lastgroup != "tag" else "dollar"), match.end()
        if match["comment"] == "/*":
            end = end_of_comment(sql, end)
        elif kind == "dollar":
            closing = sql.find(match["dollar"], end)
            end = closing + len(match["dollar"]) if closing >= 0 else -1
        elif match["other"] in ("'", '"'):
            end = -1
        if end < 0:
            line = sql.count("\n", 0, position) + 1
            raise Unreadable(f"holds a string, name or comment that does not end (line {line})", "Close it.")
        yield kind, sql[position:end]
        position = end


def end_of_comment(sql: str, position: int) -> int:
    depth = 1
    for mark in re.finditer(r"/\*|\*/", sql[position:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return position + mark.end()
    return -1


def inside_atomic_body(statement: list[str]) -> bool:
    """Whether a semicolon here belongs to a function's body in standard SQL, BEGIN ATOMIC ... END, rather than ends
    the statement."""
    if statement[:1] != ["CREATE"] or not {"FUNCTION", "PROCEDURE"} & set(statement[:4]) or "ATOMIC" not in statement:
        return False
    body = statement[statement.index("ATOMIC") :]
    return body.count("END") < 1 + body.count("CASE")


def refuse_statement(statement: list[str]) -> None:
    start = " ".join(statement[:4])
    for form, what, advice in REFUSED:
        found = form.match(start)
        if found:
            raise Unreadable(what.format(found[0]), advice)


def read_directive(comment: str, expectations: list[Expectation], *, first_statement_seen: bool) -> None:
    directive = DIRECTIVE.fullmatch(comment.rstrip())
    if directive is None:
        if MISSPELT.match(comment):
            raise Unreadable(
                f"has a line that looks like an expectation but is none: {comment.strip()}",
                "Write  -- expect: column ...",
            )
        return
    if first_statement_seen:
        raise Unreadable("has an expect line after its first statement", "Move it to the head of the file.")
    try:
        expectations.append(parse_expectation(directive[1]))
    except Unreadable as error:
        raise Unreadable(
            f"has an expect line that can't be read ({error.what}): {comment.strip()}", error.advice
        ) from None


def parse_expectation(text: str) -> Expectation:
    """The expectation in `column <schema>.<table>.<column> <type> [collate <name>] [null | not null] [default
    <expression> | generated ...]`.

    Raises:
        Unreadable: it does not follow this form.
    """
    reader = Reader(text)
    if reader.word() != "column":
        raise Unreadable(
            "only columns can be expected", "Write  -- expect: column <schema>.<table>.<column> <type> ..."
        )
    reader.take()
    names = reader.dotted_name()
    if len(names) != 3:
        raise Unreadable(
            "the column is not named as schema.table.column", "Name all three, such as public.drivers.active_since."
        )
    for name in names:
        if not name or len(name.encode()) > NAME_LIMIT_BYTES:
            raise Unreadable(
                f"a name is empty or longer than {NAME_LIMIT_BYTES} bytes", "Use the name as PostgreSQL stores it."
            )
    column_type = reader.type_name()
    collation = None
    if reader.word() == "collate":
        reader.take()
        collation = ".".join(written(name) for name in reader.dotted_name())
    not_null = reader.word() == "not"
    if not_null:
        reader.take()
    if reader.word() == "null":
        reader.take()
    elif not_null:
        raise Unreadable("null is missing after not", "Write  not null")
    default = generated = None
    if reader.word() == "default":
        reader.take()
        default = reader.rest()
    elif reader.word() == "generated":
        generated = read_generated(reader.rest())
    elif reader.rest():
        raise Unreadable(
            f"what follows the type is not understood from {reader.rest()!r} on",
            "The order is: collate, null or not null, default or generated.",
        )
    if default == "":
        raise Unreadable("the expression is missing after default", "Write the expression as \\d shows it.")
    schema, table, column = names
    return Expectation(schema, table, column, column_type, collation, not_null, default, generated)


def read_generated(text: str) -> str:
    """The clause as PostgreSQL words it: keywords in lower case, the expression as written."""
    clause = GENERATED.fullmatch(text)
    if clause is None:
        raise Unreadable(
            f"the clause {text!r} is not PostgreSQL's",
            "Write  generated always as identity, generated by default as identity,"
            " generated always as (...) stored, or generated always as (...) virtual",
        )
    if clause["expression"] is None:
        return f"generated {' '.join(clause['when'].lower().split())} as identity"
    return f"generated always as ({clause['expression']}) {clause['kind'].lower()}"


class Reader:
    """Reads an expect line token by token."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.found: list[tuple[str, str, int]] = []
        offset = 0
        for kind, token in tokens(text):
            if kind == "comment":
                raise Unreadable("it holds a comment", "Put the comment on a line of its own.")
            if kind != "space":
                self.found.append((kind, token, offset))
            offset += len(token)

    def peek(self) -> tuple[str, str]:
        return self.found[self.position][:2] if self.position < len(self.found) else ("end", "")

    def word(self) -> str:
        kind, text = self.peek()
        return text.lower() if kind == "word" else ""

    def take(self) -> str:
        text = self.peek()[1]
        self.position += 1
        return text

    def rest(self) -> str:
        return self.text[self.found[self.position][2] :].strip() if self.position < len(self.found) else ""

    def dotted_name(self) -> list[str]:
        names = [self.name()]
        while self.peek()[1] == ".":
            self.take()
            names.append(self.name())
        return names

    def name(self) -> str:
        kind, text = self.peek()
        if kind == "word":
            return self.take().lower()
        if kind == "quoted" and text.startswith('"'):
            return self.take()[1:-1].replace('""', '"')
        raise Unreadable(
            f"a name is expected, not {text!r}",
            'Quote names with capitals or signs, such as public."Driver"."activeSince".',
        )

    def type_name(self) -> str:
        """The type as written, its parts joined by single spaces: words, dotted or quoted names, (modifiers) and [].
        Nothing else gets through, so that it is a type wherever it is put."""
        parts: list[str] = []
        closing: list[str] = []
        while True:
            kind, text = self.peek()
            if not closing and self.word() in ("collate", "not", "null", "default", "generated"):
                break
            if text in ("(", "["):
                closing.append(")" if text == "(" else "]")
            elif text in (")", "]"):
                if not closing or closing.pop() != text:
                    break
            elif not (
                kind in ("word", "number")
                or (kind == "quoted" and text.startswith('"'))
                or text == "."
                or (closing and text in (",", "-"))
            ):
                break
            parts.append(self.take())
        if not parts or closing or parts[0] in ("(", "[", ".") or parts[0][0].isdigit():
            raise Unreadable(
                "the type is missing or incomplete",
                "Write it as in CREATE TABLE, such as timestamptz, numeric(10,2) or text[].",
            )
        if re.fullmatch(r"(big|small)?serial[248]?", parts[0].lower()):
            raise Unreadable(
                f"{parts[0]} is no type of its own",
                "Write what \\d shows, such as  integer not null default nextval(...)",
            )
        return join_type(parts)


def join_type(parts: list[str]) -> str:
    text = ""
    for part in parts:
        tight = not text or part in (".", "(", ")", "[", "]", ",", "-") or text.endswith((".", "(", "[", ",", "-"))
        text += part if tight else f" {part}"
    return text


def written(name: str) -> str:
    """The name as an expect line or SQL writes it: quoted only where it must be."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) else errors.quoted(name)
