"""The lexer cuts where PostgreSQL's own does (pglast holds that one), so that no COMMIT hides from us."""

from __future__ import annotations

import pglast.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_hotfix.file.lexer import Unended, statements, tokens

# PostgreSQL sees a COMMIT of its own in each; a hasty reader sees something else.

pytestmark = pytest.mark.long_too
HIDDEN = {
    "after a parameter that is named atomic": "CREATE FUNCTION f(atomic int) LANGUAGE sql AS $$SELECT 1$$; COMMIT",
    "after a parameter that is named begin": "CREATE FUNCTION f(begin atomic) LANGUAGE sql AS $$SELECT 1$$; COMMIT",
    "after a table that is named function": "CREATE TABLE function (atomic int); COMMIT",
    "after a name that ends like a dollar quote": "SELECT 1 AS €$x$; COMMIT; SELECT 1 AS b$x$",
    "after a no-break space": "SELECT 1 AS a\u00a0$x$; COMMIT; SELECT 1 AS b$x$",
    "after a number with letters": "SELECT 1a$x$; COMMIT; SELECT 1 AS b$x$",
    "after an escape string that goes on in the next line": "SELECT E'a'\n'\\''; COMMIT; SELECT 'b'; --'",
    "after an escape string that goes on behind a comment": "SELECT E'a' -- x\n -- y\n '\\''; COMMIT; SELECT 'b'; --'",
    "after a parameter number": "SELECT $1$x$ ; $x$; COMMIT",
    "after an operator that holds a comment": "SELECT 1 +-- ' \n 2; COMMIT; SELECT '",
}

PIECES = st.sampled_from(
    ["'", "''", '"', '""', "$", "$$", "$a$", "$1", "E'", "e'", "U&'", 'U&"', "N'", "x'", "/*", "*/", "--", "+", "\n",
     "\r", " ", "\t", ";", ";", "\\", "\\'", "é", "€", "\u00a0", "\u2003", "a", "_", "1", ".5", "COMMIT"]
)  # fmt: skip


def words(sql: str) -> list[str]:
    return [statement[0].keyword for statement in statements(tokens(sql))]


@pytest.mark.parametrize("sql", HIDDEN.values(), ids=HIDDEN)
def test_a_hidden_commit_is_found(sql: str) -> None:
    try:
        found = words(sql)
    except Unended:
        return  # Refused as well.
    assert "COMMIT" in found


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END; SELECT 1",
        "CREATE OR REPLACE PROCEDURE p(a int) LANGUAGE sql BEGIN ATOMIC SELECT 1; END; SELECT 1",
    ],
)
def test_a_body_in_standard_sql_is_one_statement(sql: str) -> None:
    assert words(sql) == ["CREATE", "SELECT"]


@pytest.mark.parametrize("sql", ["E'\\'", "e'", "'", '"', "$$", "$a$ $b$", "/* /* */", "U&'", "x'1"])
def test_what_does_not_end_is_refused(sql: str) -> None:
    with pytest.raises(Unended):
        list(tokens(f"SELECT {sql}"))


@given(st.lists(PIECES, max_size=14).map("".join))
def test_every_semicolon_is_where_postgresql_sees_it(sql: str) -> None:
    try:
        theirs = [token.start for token in pglast.parser.scan(sql) if token.name == "ASCII_59"]
    except pglast.parser.ParseError:
        return  # PostgreSQL will refuse the file.
    try:
        ours = [token.position for token in tokens(sql) if token.text == ";"]
    except Unended:
        return  # We refuse more than need be, which loses nothing.
    assert ours == theirs


@given(st.text(max_size=60))
def test_nothing_is_lost_between_the_tokens(sql: str) -> None:
    try:
        found = list(tokens(sql))
    except Unended:
        return
    assert "".join(token.text for token in found) == sql
    assert [token.position for token in found] == [sql.index(token.text, token.position) for token in found]
