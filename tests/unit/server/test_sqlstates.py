"""Every SQLSTATE of PostgreSQL's own list has a name of the contract, at login and in a look.

What becomes of them in a file and at COMMIT needs a server."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pg8000.exceptions import DatabaseError, InterfaceError

from pg_hotfix.errors import HotfixError
from pg_hotfix.server.credentials import Target
from pg_hotfix.server.limits import derive_limits
from pg_hotfix.server.session import Session
from pg_hotfix.server.signals import LockNotAvailable
from pg_hotfix.server.sqlstates import LoginRefused, translate_login
from pg_hotfix.settings import read_settings
from tests.sqlstates import ALL, AT_LOGIN, IN_A_LOOK, name_in

HOTFIX = "20260301101500_add_drivers_note"
TARGET = Target("db.example", 5432, "kaviar", "app", "secret")
LIMITS = derive_limits(read_settings({"DB_SECRET_ARN": "arn", "SQL_DIR": "sql"}), 55_000)
# Facts that only a server knows are read by none of these.
SESSION = object.__new__(Session)
SESSION.__dict__ |= {
    "target": TARGET,
    "limits": LIMITS,
    "connection": SimpleNamespace(last_words="", parameter_statuses={}),
}


def raised(sqlstate: str, message: str = "what PostgreSQL says") -> DatabaseError:
    """As pg8000 raises it."""
    return DatabaseError({"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": message, "F": "elog.c", "L": "1", "R": "f"})


def names(errors: dict[str, Exception]) -> dict[str, str]:
    return {sqlstate: type(error).__name__ for sqlstate, error in errors.items()}


def test_the_list_is_postgresqls_own() -> None:
    assert len(ALL) > 250
    assert {"00000", "40001", "57P05", "XX002"} <= set(ALL)


def test_every_sqlstate_has_its_name_at_login() -> None:
    errors = {sqlstate: translate_login(raised(sqlstate), TARGET) for sqlstate in ALL}
    assert names(errors) == {sqlstate: name_in(AT_LOGIN, sqlstate) for sqlstate in ALL}
    for sqlstate, error in errors.items():
        if not isinstance(error, LoginRefused):
            assert f"({sqlstate}: what PostgreSQL says). Nothing was changed." in str(error)


def test_every_sqlstate_has_its_name_in_a_look() -> None:
    errors = {sqlstate: SESSION.translate(raised(sqlstate), took_ms=5_001) for sqlstate in ALL}
    assert names(errors) == {sqlstate: name_in(IN_A_LOOK, sqlstate) for sqlstate in ALL}
    for error in errors.values():
        if not isinstance(error, LockNotAvailable):
            assert "Nothing was changed" in str(error)
            assert "what PostgreSQL says" in str(error)


def test_a_query_that_is_cancelled_before_its_time_was_cancelled_by_somebody() -> None:
    error = SESSION.translate(raised("57014", "canceling statement due to user request"), took_ms=120.4)
    assert f"{type(error).__name__}: {error}" == (
        "StatementTimeoutError: Another session cancelled a catalog query of pg-hotfix after 120 ms, before its limit"
        " of 5000 ms (57014: canceling statement due to user request). Nothing was changed. Find out who calls"
        " pg_cancel_backend on this server, such as a monitor of long queries."
    )


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
@pytest.mark.parametrize("routine", ["ProcessInterrupts", "ProcessRecoveryConflictInterrupt"])
def test_a_query_that_a_replica_cancels_is_not_taken_for_a_lock(sqlstate: str, routine: str) -> None:
    fields = {"C": sqlstate, "M": "canceling statement due to conflict with recovery", "F": "postgres.c", "R": routine}
    error = SESSION.translate(DatabaseError(fields))
    assert f"{type(error).__name__}: {error}" == (
        "DatabaseUnavailableError: The replica kaviar at db.example:5432 cancelled a query to go on with what it"
        f" receives from the writer ({sqlstate}: canceling statement due to conflict with recovery). Nothing was"
        " changed. Put the writer's endpoint into the secret or the stack's parameter DatabaseHost:  aws rds"
        " describe-db-clusters --query"
        " 'DBClusters[].Endpoint'"
    )
    assert isinstance(SESSION.translate(DatabaseError(fields | {"R": "DeadLockReport"})), LockNotAvailable)


HINTS = {
    'Increase the configuration parameter "max_stack_depth" (currently 100kB), after ensuring the platform\'s'
    " stack depth limit is adequate.": True,
    "No function matches the given name and argument types. You might need to add explicit type casts.": True,
    'Perhaps you meant to reference the column "drivers.name".': False,
    "Perhaps it is 'Ana'.": False,
    "Look at row 4711.": False,
}


@pytest.mark.parametrize(("hint", "is_shown"), HINTS.items())
def test_a_hint_is_shown_if_it_holds_no_data(hint: str, is_shown: bool) -> None:
    fields = {"C": "42883", "M": "no", "F": "parse_func.c", "H": hint}
    assert (hint.rstrip(".") in str(SESSION.translate(DatabaseError(fields)))) == is_shown
    assert hint.rstrip(".") not in str(SESSION.translate(DatabaseError(fields | {"F": "pl_exec.c"})))


def test_no_sqlstate_lets_through_what_a_function_made_up() -> None:
    for sqlstate in ALL:
        made_up = {"S": "ERROR", "C": sqlstate, "M": "row of ana", "F": "pl_exec.c", "R": "exec_stmt_raise"}
        assert "ana" not in str(SESSION.translate(DatabaseError(made_up), HOTFIX, "SELECT 1"))


def test_only_what_may_converge_is_worth_a_retry() -> None:
    retried = {sqlstate for sqlstate in ALL if is_retried(SESSION.translate(raised(sqlstate), HOTFIX, "SELECT 1"))}
    assert retried == {
        *("08000", "08001", "08003", "08004", "08006", "08007", "08P01"),
        *("25P03", "40001", "40P01", "55P03"),
        *("53000", "53100", "53200", "53300"),
        *("57P01", "57P02", "57P03", "57P04", "57P05"),
        *("58000", "58030", "58P01", "58P02", "58P03", "XX000", "XX001", "XX002"),
    } & set(ALL)  # fmt: skip


def is_retried(error: Exception) -> bool:
    return isinstance(error, LockNotAvailable) or (isinstance(error, HotfixError) and error.retryable)


def test_a_lost_connection_is_no_sqlstate() -> None:
    assert str(SESSION.translate(InterfaceError("network error"))) == (
        "The connection to the database kaviar at db.example:5432 was lost before COMMIT (the server closed it)."
        " Nothing was changed: the server rolls back."
    )
