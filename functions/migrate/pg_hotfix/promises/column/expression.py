"""Whether PostgreSQL accepts the default or the generation expression of an expect line, without running any of it.

PREPARE parses the expression and plans nothing. Parsing runs code of users only to read a constant of their types:
`is_safe_to_parse` leaves such constants to `apply`.

https://www.postgresql.org/docs/current/sql-prepare.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.file.lexer import tokens
from pg_hotfix.promises.column.line import Reader, Unreadable
from pg_hotfix.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.file.lexer import Token
    from pg_hotfix.promises.column.definition import Facts
    from pg_hotfix.promises.column.line import Expectation
    from pg_hotfix.server.session import Session

KEYWORDS_OF_QUERIES = {"SELECT", "TABLE", "VALUES", "WITH"}


def refuse_expression(session: Session, hotfix: Hotfix, wanted: Expectation, about: Facts) -> None:
    """PostgreSQL accepts the expression for a column of that type, or only `apply` can find out. No lock was taken.

    In a SELECT only XMLTABLE converts an expression to a type as ADD COLUMN does. A generated column names other
    columns; a row of NULLs stands for them.

    Raises:
        HotfixFileError: PostgreSQL does not accept it. Nothing was changed.
    """
    expression = wanted.default or (wanted.generated or "").partition("(")[2].rpartition(")")[0]
    if not expression or not is_safe_to_parse(expression, about):
        return
    row = "" if wanted.default else f"(SELECT {about.row}) AS {quoted(wanted.table)}, "
    try:
        session.query(
            "PREPARE pg_hotfix_expression AS SELECT FROM"
            f" {row}XMLTABLE('/' PASSING (NULL::pg_catalog.xml) COLUMNS value {about.type_in_sql}"
            f" DEFAULT ({expression})); DEALLOCATE pg_hotfix_expression"
        )
    except errors.SqlRefusedError as error:
        reason = str(error.facts["refusal"]).partition("; hint: ")[0]
        if reason.startswith("42804"):
            reason = "42804"  # The server's words name XMLTABLE.
        what = f"to have the default {wanted.default}" if wanted.default else f"to be {wanted.generated}"
        raise errors.bad_expression(hotfix.file, wanted.name, what, str(about.type_shown), reason) from error


def is_safe_to_parse(expression: str, about: Facts) -> bool:
    """Whether parsing it calls no code of users and locks no table. A constant of a user's type may call such code: an
    array of a domain runs the domain's checks. So constants must be of an enum, or of a type without a schema, which
    is PostgreSQL's own since the search_path is empty. Only queries name tables."""
    found = [token for token in tokens(expression) if token.kind != "space"]
    if not is_balanced(found) or any(token.text == ";" or token.keyword in KEYWORDS_OF_QUERIES for token in found):
        return False
    if len(found) == 1 and is_constant(found[0]):
        return about.is_builtin or about.type_kind == "e"
    for position, token in enumerate(found):
        if not is_constant(token):
            continue
        if [sign.text for sign in found[position + 1 : position + 3]] != [":", ":"]:
            return False
        try:
            type_name = Reader(expression[found[position + 2].position + 1 :]).type_name()
        except Unreadable:
            return False
        if "." in type_name and not (about.type_kind == "e" and type_name == about.type_shown):
            return False
    return True


def is_constant(token: Token) -> bool:
    return token.kind in ("string", "dollar")


def is_balanced(found: Sequence[Token]) -> bool:
    """Whether every bracket that it opens is closed in it, and none before."""
    depth = 0
    for token in found:
        depth += (token.text == "(") - (token.text == ")")
        if depth < 0:
            return False
    return depth == 0
