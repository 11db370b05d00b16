"""Whether the database's encoding has the characters of a file. The server is asked before anything runs.

Only the server knows its conversions: Python has no codec for some of its encodings, and converts others differently.
https://www.postgresql.org/docs/current/multibyte.html
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.file.hotfix_file import DIRECTIVE, ExpectedSchema
from pg_hotfix.file.lexer import Unended, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.server.session import Session

# UTF8 has every character. SQL_ASCII stores any bytes: those of the file, as psql sends them.
TAKES_ALL = ("UTF8", "SQL_ASCII")
BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
NO_EQUIVALENT = "22P05"


def fit_hotfix(session: Session, hotfix: Hotfix) -> Hotfix:
    """The hotfix as it can be sent. In a database with another encoding than UTF8 a question mark replaces each
    character of a comment that is not ASCII, so that the positions in errors stay right.

    Raises:
        HotfixFileError: the encoding lacks a character of a statement, an expect line or a revert line. Nothing was
            changed.
    """
    if session.encoding in TAKES_ALL:
        return hotfix
    refuse_missing(session, hotfix.file, hotfix.sql)
    revert = hotfix.revert and replace(hotfix.revert, sql=without_comments(hotfix.revert.sql))
    return replace(hotfix, sql=without_comments(hotfix.sql), revert=revert)


def fit_schema(session: Session, schema: ExpectedSchema) -> None:
    """The encoding has every character of the list.

    Raises:
        HotfixFileError: it lacks one, so no column can have such a name, type or default. Nothing was changed.
    """
    if session.encoding not in TAKES_ALL:
        refuse_missing(session, schema.file, schema.text)


def refuse_missing(session: Session, file: str, text: str) -> None:
    sent: dict[str, int] = {}
    for start, part in parts_to_send(text):
        for match in BEYOND_ASCII.finditer(part):
            sent.setdefault(match[0], start + match.start())
    if not sent:
        return
    hexadecimal = "".join(sent).encode().hex()
    try:
        session.query(
            f"SELECT pg_catalog.octet_length(pg_catalog.convert_from('\\x{hexadecimal}'::pg_catalog.bytea, 'UTF8'))"
        )
    except errors.SqlRefusedError as error:
        reason = error.facts["refusal"]
        if not reason.startswith(NO_EQUIVALENT):
            raise
        # The message may be translated, but its sequence of bytes is not.
        sequence = bytes.fromhex("".join(re.findall("0x([0-9a-f]{2})", reason)))
        sign = next((one for one in sent if sequence.startswith(one.encode())), next(iter(sent)))
        line = text.count("\n", 0, sent[sign]) + 1
        raise errors.character_missing(file, sign, line, session.facts.name, session.encoding) from error


def parts_to_send(text: str) -> Iterator[tuple[int, str]]:
    """The parts of the file that are sent to the server, with their positions: all but comments, and of the comments
    the expect lines and the revert lines."""
    for token in tokens(text):
        directive = DIRECTIVE.match(token.text) if token.kind == "comment" else None
        if token.kind != "comment":
            yield token.position, token.text
        elif directive and directive[1].lower() == "expect":
            yield token.position + directive.start(2), directive[2]
        elif directive and directive[1].lower() == "revert":
            for start, part in parts_of_line(directive[2]):
                yield token.position + directive.start(2) + start, part


def parts_of_line(line: str) -> list[tuple[int, str]]:
    """The parts of a line that are not comments; the whole line if a string or name goes on in the next line."""
    try:
        return [(token.position, token.text) for token in tokens(line) if token.kind != "comment"]
    except Unended:
        return [(0, line)]


def without_comments(sql: str) -> str:
    """The same SQL, with the same length. In comments question marks replace characters beyond ASCII, except in expect
    lines, whose characters were checked."""
    return "".join(
        BEYOND_ASCII.sub("?", token.text) if token.kind == "comment" and not is_promise(token.text) else token.text
        for token in tokens(sql)
    )


def is_promise(comment: str) -> bool:
    directive = DIRECTIVE.match(comment)
    return directive is not None and directive[1].lower() == "expect"
