"""What operators read, whole. The texts that a server or a file causes are in the tests of these."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from pg_hotfix import errors
from pg_hotfix.change.blocker import Blocker, name_blockers
from pg_hotfix.errors import HotfixError
from pg_hotfix.quoting import quoted
from tests.samples import BLOCKER, FOUND_BLOCKER

HOTFIX = "20260212092000_add_drivers_active_since"
ADDRESS = "kaviar at db.example:5432"

# State machines, alarms and scripts match these names: a change breaks them.
NEVER_RETRIED = {
    "RequestError",
    "UnknownHotfixError",
    "HotfixFileError",
    "ConfigurationError",
    "SecretError",
    "TlsError",
    "LoginError",
    "NotOwnerError",
    "ReadOnlyDatabaseError",
    "StatementTimeoutError",
    "SqlRefusedError",
    "MismatchError",
    "RelationError",
    "PlanChangedError",
    "RevertRefusedError",
    "InternalError",
}
RETRIED = {"SecretUnavailableError", "DatabaseUnavailableError", "LockBusyError", "OutcomeUnknownError"}


def blocker(**fields: Any) -> Blocker:
    return replace(FOUND_BLOCKER, **fields)


def lock_busy(
    *blockers: Blocker, waited_ms: int = 30_000, stalled_ms: int = 0, count: int | None = None, further: bool = False
) -> HotfixError:
    return errors.lock_busy(
        HOTFIX,
        "public.drivers",
        "applied",
        name_blockers(blockers, len(blockers) if count is None else count),
        elsewhere=True,
        further=further,
        blockers=[blocker.describe() for blocker in blockers],
        attempts=7,
        lock_wait_ms=waited_ms,
        longest_stall_ms=stalled_ms,
    )


BUSY = f"public.drivers stayed locked for 30 s, so {HOTFIX} was not applied."
NOBODY_WAITED = "Nothing was changed, and nobody waited behind this run."


def column(name: str, expected: str, actual: str) -> dict[str, Any]:
    return {"name": name, "expected": expected, "actual": actual}


def test_the_names_are_the_contract_and_only_some_may_be_retried() -> None:
    assert {error.__name__ for error in HotfixError.__subclasses__()} == NEVER_RETRIED | RETRIED
    assert {error.__name__ for error in HotfixError.__subclasses__() if error.retryable} == RETRIED


def test_no_error_has_a_subclass_that_a_state_machine_would_not_match() -> None:
    assert [error for error in HotfixError.__subclasses__() if error.__subclasses__()] == []


def test_an_error_carries_its_text_and_the_same_as_data() -> None:
    error = lock_busy(blocker(), stalled_ms=12)
    assert str(error) == error.message
    assert error.facts == {
        "blockers": [BLOCKER],
        "attempts": 7,
        "lock_wait_ms": 30_000,
        "longest_stall_ms": 12,
    }


TEXTS: list[tuple[HotfixError, str]] = [
    (
        errors.unknown_hotfix(HOTFIX, []),
        (
            f"The function has no hotfix {HOTFIX}. Nothing was contacted and nothing was changed. It has these:\n"
            "  (none)\n"
            f"Add sql/{HOTFIX}.sql, have it reviewed, and deploy it."
        ),
    ),
    (
        errors.server_not_ready(ADDRESS, "57P03: the database system is starting up"),
        (
            f"The server of the database {ADDRESS} takes no connections now (57P03: the database system is starting"
            " up). Nothing was changed. If it keeps failing, look at the instance's events:  aws rds describe-events"
            " --source-type db-instance"
        ),
    ),
    (
        errors.login_refused(ADDRESS, "app", "28000", 'PAM authentication failed for user "app"', "arn:x"),
        (
            f'The database {ADDRESS} refused the login of app (28000: PAM authentication failed for user "app"), also'
            " after the secret was read again. Nothing was changed. RDS uses PAM for a role with rds_iam: it logs in"
            " with an IAM token, not with a password. To log in with the secret's password:  REVOKE rds_iam FROM"
            ' "app";'
        ),
    ),
    (
        errors.login_refused(ADDRESS, "app", "28000", 'LDAP authentication failed for user "app"', "arn:x"),
        (
            f'The database {ADDRESS} refused the login of app (28000: LDAP authentication failed for user "app"),'
            " also after the secret was read again. Nothing was changed. The server's pg_hba.conf chooses how this"
            " role logs in. pg-hotfix sends the secret's password, and has no client certificate. Compare its"
            " password with the secret:  aws secretsmanager describe-secret --secret-id arn:x"
        ),
    ),
    (
        errors.login_refused(ADDRESS, "app", "28000", 'role "app" does not exist', "arn:x"),
        (
            f'The database {ADDRESS} refused the login of app (28000: role "app" does not exist), also after the'
            " secret was read again. Nothing was changed. Correct username in the secret, or create the role:  CREATE"
            " ROLE \"app\" LOGIN PASSWORD '...';"
        ),
    ),
    (
        errors.no_connection_left(ADDRESS, "kaviar", "app", "53300", "remaining connection slots are reserved", None),
        (
            f"The database {ADDRESS} has no connection left for app (53300: remaining connection slots are reserved)."
            " Nothing was changed. If it keeps failing, see who holds the connections:  SELECT usename,"
            " application_name, state, count(*) FROM pg_catalog.pg_stat_activity GROUP BY 1, 2, 3 ORDER BY 4 DESC;"
        ),
    ),
    (
        errors.pooler_in_front(ADDRESS),
        (
            f"A pooler such as PgBouncer stands between pg-hotfix and the database {ADDRESS}. Then the"
            " server ignores the time limits, or keeps them for another client. Nothing was changed. Put the"
            " instance's own endpoint into the secret or the stack's parameter DatabaseHost:  aws rds"
            " describe-db-instances --query"
            " 'DBInstances[].Endpoint.Address'"
        ),
    ),
    (
        errors.server_in_trouble(ADDRESS, "53100: could not extend file: No space left on device"),
        (
            f"The server of the database {ADDRESS} failed (53100: could not extend file: No space left on device)."
            " Nothing was changed: the server rolls back. If it keeps failing, look at the instance's storage, memory"
            " and log."
        ),
    ),
    (
        errors.arrived_late(ADDRESS),
        (
            f"Every message to the database {ADDRESS} arrived more than 0.5 s late, so the server refused each of"
            " them until the run had no time left. Nothing was changed, and no lock was held. If it keeps failing,"
            " the network or the server is too slow: look at the instance's CPU and connections."
        ),
    ),
    (
        errors.connection_lost(ADDRESS, "Connection reset by peer"),
        (
            f"The connection to the database {ADDRESS} was lost before COMMIT (Connection reset by peer). Nothing was"
            " changed: the server rolls back."
        ),
    ),
    (
        lock_busy(blocker(), blocker(pid=4712, application_name=None), waited_ms=30_100),
        (
            f"{BUSY} {NOBODY_WAITED}\n"
            "In the way: pid 4711 (billing, nightly-report), in a transaction for 340 s (idle in transaction), ACCESS"
            " SHARE on public.drivers.\n"
            "In the way: pid 4712 (billing), in a transaction for 340 s (idle in transaction), ACCESS SHARE on"
            " public.drivers.\n"
            "Wait until they end, or end them now (their transactions are rolled back):  SELECT"
            " pg_terminate_backend(4711);  SELECT"
            " pg_terminate_backend(4712);"
        ),
    ),
    (
        lock_busy(
            blocker(user=None, application_name=None, state=None, transaction_seconds=None),
            blocker(pid=4712, waiting=True, waits_for=(4711, 0, *range(1, 200))),
            stalled_ms=40,
            count=300,
        ),
        (
            f"{BUSY} Nothing was changed, and other sessions waited 40 ms at most behind this run.\n"
            "In the way: pid 4711, ACCESS SHARE on public.drivers.\n"
            "In the way: pid 4712 (billing, nightly-report), in a transaction for 340 s (idle in transaction), itself"
            " waiting for pid 4711 and a prepared transaction and pid 1 and pid 2 and pid 3 and 196 more, ACCESS"
            " SHARE on public.drivers.\n"
            "and 298 more.\n"
            "Wait until they end, or end them now (their transactions are rolled back):  SELECT"
            " pg_terminate_backend(4711);"
        ),
    ),
    (
        lock_busy(
            blocker(pid=None, application_name=None, state=None, prepared_transaction="it's 1", lock_mode="EXCLUSIVE")
        ),
        (
            f"{BUSY} {NOBODY_WAITED}\n"
            "In the way: the prepared transaction it's 1 (billing), prepared 340 s ago, EXCLUSIVE on public.drivers."
            " No session will end it: whoever prepared it must commit it or roll it back.\n"
            "Wait until it ends, or end it now (its transaction is rolled back):  ROLLBACK PREPARED 'it''s 1';"
        ),
    ),
    (
        lock_busy(
            blocker(
                user=None,
                application_name=None,
                state=None,
                autovacuum="autovacuum to prevent wraparound",
                lock_mode="SHARE UPDATE EXCLUSIVE",
            ),
            blocker(granted=False, waiting=True),
        ),
        (
            f"{BUSY} {NOBODY_WAITED}\n"
            "In the way: autovacuum to prevent wraparound pid 4711, in a transaction for 340 s, SHARE UPDATE"
            " EXCLUSIVE on public.drivers. PostgreSQL starts it again if it is ended: let it finish.\n"
            "In the way: pid 4711 (billing, nightly-report), in a transaction for 340 s (idle in transaction), itself"
            " waiting, ACCESS SHARE on public.drivers (awaited).\n"
            "Wait until they end."
        ),
    ),
    (
        lock_busy(stalled_ms=104),
        (
            f"{BUSY} Nothing was changed, and other sessions waited 104 ms at most behind this run.\n"
            "Nobody holds a lock on public.drivers now; another table that the file uses may be locked."
        ),
    ),
    (
        errors.limit_not_in_force(ADDRESS, "lock_timeout", 20, 0),
        (
            f"The server of {ADDRESS} does not use the limit that pg-hotfix set: lock_timeout is 0 ms (0 means no"
            " limit), and must be 20 ms. Nothing was changed. Without it a run could block other sessions. Put the"
            " instance's own endpoint into the secret or the stack's parameter DatabaseHost:  aws rds"
            " describe-db-instances --query"
            " 'DBInstances[].Endpoint.Address'"
        ),
    ),
    (
        errors.mismatch(
            HOTFIX,
            [
                column("public.drivers.active_since", "timestamp with time zone null", "text null default ''::text"),
                column('public.drivers."Rating"', "integer not null", "integer null"),
            ],
        ),
        (
            f"public.drivers.active_since exists but is not what {HOTFIX} expects. Nothing was changed.\n"
            "  expected  timestamp with time zone null\n"
            "  actual    text null default ''::text\n"
            f'public.drivers."Rating" exists but is not what {HOTFIX} expects.\n'
            "  expected  integer not null\n"
            "  actual    integer null\n"
            "ADD COLUMN IF NOT EXISTS keeps an existing column as it is. If the actual column is right, correct the"
            " file:\n"
            "  -- expect: column public.drivers.active_since text null default ''::text\n"
            '  -- expect: column public.drivers."Rating" integer null\n'
            "Otherwise change the column by a separate migration."
        ),
    ),
    (
        errors.mismatch(HOTFIX, [column("public.drivers.active_since", "text null", "missing")]),
        (
            f"public.drivers.active_since is missing; {HOTFIX} expects it. Nothing was changed.\n"
            "  expected  text null\n"
            "  actual    missing"
        ),
    ),
    (
        errors.plan_changed(HOTFIX, "public.drivers"),
        (
            f"The plan_hash is out of date: sql/{HOTFIX}.sql, the database or public.drivers has changed since that"
            " plan. Nothing was changed. Read a new plan, and apply with its plan_hash."
        ),
    ),
    (
        errors.sql_refused(HOTFIX, "25001", "CREATE INDEX CONCURRENTLY cannot run inside a transaction block", ""),
        (
            f"PostgreSQL refused {HOTFIX} (25001: CREATE INDEX CONCURRENTLY cannot run inside a transaction block)."
            f" Nothing was changed. Correct sql/{HOTFIX}.sql, and have it reviewed."
        ),
    ),
    (
        errors.limit_not_in_force(ADDRESS, "lock_timeout", 20, 5000),
        (
            f"The server of {ADDRESS} does not use the limit that pg-hotfix set: lock_timeout is 5000 ms, and must be"
            " 20 ms. Nothing was changed. Without it a run could block other sessions. Put the instance's own endpoint"
            " into the secret or the stack's parameter DatabaseHost:  aws rds describe-db-instances --query"
            " 'DBInstances[].Endpoint.Address'"
        ),
    ),
    (
        errors.outcome_unknown(HOTFIX, ADDRESS, "timed out", reverting=True),
        (
            f"The connection to the database {ADDRESS} was lost while {HOTFIX} was under way (timed out). The change"
            " was reverted completely or not at all. Run it again; it is safe. reverted or already_reverted means that"
            " the revert took place."
        ),
    ),
    (
        errors.outcome_unknown(HOTFIX, ADDRESS, "timed out"),
        (
            f"The connection to the database {ADDRESS} was lost while {HOTFIX} was under way (timed out). The change"
            " was applied completely or not at all. Run it again; it is safe. applied or already_applied means that"
            " the change is there."
        ),
    ),
]


@pytest.mark.parametrize(
    ("error", "text"), TEXTS, ids=[f"{type(error).__name__}-{i}" for i, (error, _) in enumerate(TEXTS)]
)
def test_a_text_says_what_happened_what_is_and_what_to_do(error: HotfixError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("error", [error for error, _ in TEXTS])
def test_a_text_has_no_please_and_no_vague_words(error: HotfixError) -> None:
    assert not re.search(r"\b(please|sorry|oops|something went wrong|failed to|unable to)\b", str(error), re.IGNORECASE)
    assert not re.search(r"[^.:;\n] {2,}\S", re.sub(r"^  \S+ +", "", str(error), flags=re.MULTILINE))


def test_an_error_is_run_again_as_it_is_only_where_another_run_may_succeed() -> None:
    plain = {error.__name__ for error in HotfixError.__subclasses__() if error.then == errors.AGAIN}
    repaired = {error.__name__ for error in HotfixError.__subclasses__() if error.then == errors.REPAIRED}
    assert plain == RETRIED
    assert repaired == NEVER_RETRIED - {"RequestError", "PlanChangedError", "RevertRefusedError", "InternalError"}


def test_a_refused_revert_whose_cause_passes_does_not_end_in_a_command_that_drops_data() -> None:
    passing = [
        errors.rows_not_seen(HOTFIX, "public.drivers", 300, 200),
        errors.history_not_seen(HOTFIX, "public._prisma_migrations", "Another session holds it locked."),
        errors.dependents_changed(HOTFIX, "public.drivers.rating"),
    ]
    assert {error.then for error in passing} == {errors.AGAIN}


@pytest.mark.parametrize(("name", "sql"), [("app", '"app"'), ("App", '"App"'), ('a"b', '"a""b"'), ("", '""')])
def test_a_quoted_name_is_one_identifier(name: str, sql: str) -> None:
    assert quoted(name) == sql
