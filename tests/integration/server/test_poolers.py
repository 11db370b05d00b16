"""A real PgBouncer stands in front of the database: it is refused by name, in every mode, and what it refuses itself
has the name of what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from laptop.postgres import free_port
from pg_hotfix.server.limits import derive_limits
from pg_hotfix.server.session import SESSION_PARAMETERS
from pg_hotfix.settings import read_settings
from tests.conftest import new_password
from tests.integration.bouncer import running_bouncer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome
    from tests.integration.bouncer import Bouncer

    Call = Callable[..., Outcome]
    Store = Callable[..., str]

pytestmark = pytest.mark.long_too

MODES = ("session", "transaction", "statement")
# Without these PgBouncer refuses every session of ours, with them it drops the limits in silence.
LIMITS = derive_limits(read_settings({"DB_SECRET_ARN": "arn", "SQL_DIR": "sql"}), 55_000)
IGNORED = ", ".join(SESSION_PARAMETERS | LIMITS.startup_parameters())
ENDPOINT = (
    "Put the instance's own endpoint into the secret or the stack's parameter DatabaseHost: "
    " aws rds describe-db-instances --query 'DBInstances[].Endpoint.Address'"
)
POOLER = f"A pooler such as PgBouncer answers at this address, not PostgreSQL. {ENDPOINT}"


@pytest.fixture
def check(call: Call, secrets_manager: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """The outcome of `check`, or of another action, through the pooler."""
    monkeypatch.setenv("SQL_DIR", "sql")

    def check(bouncer: Bouncer, action: str = "check", **fields: str | int) -> Outcome:
        secrets_manager(bouncer.secret(**fields))
        monkeypatch.setenv("DB_CA_BUNDLE", str(bouncer.ca_bundle))
        event = {"action": action, "hotfix": "20260212092000_add_drivers_active_since"}
        return call(event)

    return check


def in_front(bouncer: Bouncer, said: str = "") -> str:
    return (
        "A pooler such as PgBouncer stands between pg-hotfix and the database"
        f" {bouncer.database.name} at localhost:{bouncer.port}{said}. Then the server ignores the time limits, or"
        f" keeps them for another client. Nothing was changed. {ENDPOINT}"
    )


@pytest.mark.parametrize("action", ["check", "apply"])
@pytest.mark.parametrize("mode", MODES)
def test_a_pooler_is_refused_by_name_in_every_mode(
    check: Callable[..., Outcome], database: Database, mode: str, action: str
) -> None:
    with running_bouncer(database, pool_mode=mode) as bouncer:
        outcome = check(bouncer, action)
        said = outcome.text.partition("(08P01: ")[2].partition(")")[0]
    assert outcome.error_name == "ConfigurationError"
    assert said.startswith("unsupported startup parameter: ") or not said
    assert outcome.text == in_front(bouncer, f" (08P01: {said})" if said else "")


@pytest.mark.parametrize("action", ["check", "apply"])
@pytest.mark.parametrize("mode", MODES)
def test_a_pooler_that_drops_the_limits_is_refused_by_name_and_keeps_nothing_of_ours(
    check: Callable[..., Outcome], database: Database, mode: str, action: str
) -> None:
    with running_bouncer(
        database, pool_mode=mode, ignore_startup_parameters=IGNORED, server_reset_query="", default_pool_size=1
    ) as bouncer:
        outcome = check(bouncer, action)
        database.line.close()
        with database.server.connect() as admin:
            ((pid,),) = admin.run(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database.name}'")
        settings = settings_of_the_next_client(bouncer)
    assert outcome.error_name == "ConfigurationError"
    assert outcome.text == in_front(bouncer)
    assert settings == [pid, '"$user", public', "0", "0"]


def settings_of_the_next_client(bouncer: Bouncer) -> list[object]:
    """What the application's next session meets, in the same session of the server."""
    shown = ", ".join(
        f"coalesce(current_setting('{name}', true), '0')"
        for name in ("search_path", "lock_timeout", "statement_timeout")
    )
    with bouncer.connect() as connection:
        return list(connection.run(f"SELECT pg_backend_pid(), {shown}")[0])


def test_a_wrong_password_is_a_login_error_that_names_the_pooler(
    check: Callable[..., Outcome], database: Database
) -> None:
    with running_bouncer(database, ignore_startup_parameters=IGNORED) as bouncer:
        outcome = check(bouncer, password=new_password())
    assert outcome.error_name == "LoginError"
    assert outcome.text == (
        f"The database {database.name} at localhost:{bouncer.port} refused the login of {database.user} (08P01: SASL"
        " authentication failed), also after the secret was read again. Nothing was changed. " + POOLER
    )


def test_a_password_that_only_the_server_refuses_is_a_login_error(
    check: Callable[..., Outcome], database: Database
) -> None:
    stale = new_password()
    with running_bouncer(database, password=stale, ignore_startup_parameters=IGNORED) as bouncer:
        outcome = check(bouncer, password=stale)
    assert outcome.error_name == "LoginError"
    assert outcome.text == (
        f"The database {database.name} at localhost:{bouncer.port} refused the login of {database.user} (08P01:"
        f' password authentication failed for user "{database.user}"), also after the secret was read again. Nothing'
        f" was changed. {POOLER}"
    )


def test_a_database_that_the_pooler_does_not_know_is_a_login_error(
    check: Callable[..., Outcome], database: Database
) -> None:
    with running_bouncer(database, ignore_startup_parameters=IGNORED) as bouncer:
        outcome = check(bouncer, dbname="nowhere")
    assert outcome.error_name == "LoginError"
    assert outcome.text == (
        f"{database.user} cannot connect to the database nowhere at localhost:{bouncer.port} (08P01: no such"
        f" database: nowhere). Nothing was changed. {POOLER}"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_client_conn": 1}, "no more connections allowed (max_client_conn)"),
        ({"default_pool_size": 1, "query_wait_timeout": 1}, "query_wait_timeout"),
    ],
    ids=["too many clients", "no connection in the pool"],
)
def test_a_full_pooler_is_worth_a_retry(
    check: Callable[..., Outcome], database: Database, settings: dict[str, Any], said: str
) -> None:
    with (
        running_bouncer(database, ignore_startup_parameters=IGNORED, **settings) as bouncer,
        bouncer.connect() as other,
    ):
        other.run("BEGIN; SELECT 1")
        outcome = check(bouncer)
    assert outcome.error_name == "DatabaseUnavailableError"
    assert outcome.text == (
        f"The pooler in front of the database {database.name} at localhost:{bouncer.port} gave no connection"
        f" (08P01: {said}). Nothing was changed. {POOLER}"
    )


def test_a_server_that_is_down_behind_the_pooler_is_worth_a_retry(
    check: Callable[..., Outcome], database: Database
) -> None:
    with running_bouncer(
        database, server_port=free_port(), ignore_startup_parameters=IGNORED, query_wait_timeout=1
    ) as bouncer:
        outcome = check(bouncer)
    assert outcome.error_name == "DatabaseUnavailableError"
    assert outcome.text == (
        f"The pooler in front of the database {database.name} at localhost:{bouncer.port} gave no connection"
        f" (08P01: query_wait_timeout). Nothing was changed. {POOLER}"
    )
