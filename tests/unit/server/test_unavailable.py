"""What is told of a refused statement and of a lost connection. All else of server/session.py needs a server."""

from __future__ import annotations

import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pg8000.exceptions import InterfaceError

from pg_hotfix.server.session import is_over
from pg_hotfix.server.sqlstates import excerpt, reason_of

pytestmark = pytest.mark.long_too
SQL = "-- a note\r\nALTER TABLE drivers\n\tADD COLUMN note txt;\n"


@pytest.mark.parametrize(
    ("position", "text"),
    [
        (1, "LINE 1: -- a note\n        ^"),
        (12, "LINE 2: ALTER TABLE drivers\n        ^"),
        (SQL.index("txt") + 1, "LINE 3:  ADD COLUMN note txt;\n                         ^"),
        (len(SQL), "LINE 3:  ADD COLUMN note txt;\n                             ^"),
        (len(SQL) + 1, "LINE 4: \n        ^"),
    ],
)
def test_a_refused_statement_is_shown_with_a_caret_below_its_place(position: int, text: str) -> None:
    assert excerpt(SQL, position) == text


@pytest.mark.parametrize("position", [-5, 0, len(SQL) + 2])
def test_a_place_outside_of_the_file_is_not_shown(position: int) -> None:
    assert excerpt(SQL, position) == ""


def test_a_line_with_a_two_digit_number_keeps_its_caret_in_place() -> None:
    assert excerpt("\n" * 9 + "SELEC 1", 10) == "LINE 10: SELEC 1\n         ^"


@given(st.text(alphabet="ab é€漢\n\r\t;", max_size=60), st.data())
def test_the_caret_is_always_below_the_right_character(sql: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(1, len(sql) + 1))
    line, caret = excerpt(sql, position).split("\n")
    column = len(caret) - 1
    assert caret == " " * column + "^"
    assert line.startswith(f"LINE {sql[: position - 1].count('\n') + 1}: ")
    shown, meant = line[column : column + 1], sql[position - 1 : position]
    assert shown == meant.replace("\t", " ") or (shown == "" and meant in ("\r", "\n", ""))


def raised_by_pg8000(cause: Exception) -> InterfaceError:
    error = InterfaceError("network error")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError("timed out"), "timed out"),
        (TimeoutError(), "timed out"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (raised_by_pg8000(ConnectionResetError(104, "Connection reset by peer")), "Connection reset by peer"),
        (raised_by_pg8000(TimeoutError("The read operation timed out")), "timed out"),
        (raised_by_pg8000(OSError("cannot read from timed out object")), "cannot read from timed out object"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:1020)"), "the server closed it"),
        (InterfaceError("network error"), "the server closed it"),
        (InterfaceError("Authentication method 7 not supported."), "Authentication method 7 not supported"),
        (OSError(), "OSError"),
    ],
)
def test_a_lost_connection_is_explained_in_the_words_of_the_system(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


@pytest.mark.parametrize(
    ("took_ms", "limit_ms", "over"),
    [(132.0, 132, True), (131.6, 132, True), (833.2, 833, True), (4_990.0, 5_000, True), (120.0, 132, False)],
)
def test_a_limit_may_have_ended_what_ended_a_moment_before_it_by_our_clock(
    took_ms: float, limit_ms: int, over: bool
) -> None:
    assert is_over(took_ms, limit_ms) is over
