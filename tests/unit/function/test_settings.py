"""Every setting is in its bounds, or the function does not start to work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pg_hotfix.errors import ConfigurationError
from pg_hotfix.settings import (
    CERTIFICATES,
    LOCK_WAIT_BOUNDS_SECONDS,
    STATEMENT_TIMEOUT_BOUNDS_MS,
    Settings,
    read_settings,
)

if TYPE_CHECKING:
    from pathlib import Path

ARN = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:kaviar/database-AbCdEf"
UNTOUCHED = "Nothing was contacted and nothing was changed."
SET_IN = {
    "DB_PORT": "the stack's parameter DatabasePort",
    "LOCK_WAIT_SECONDS": "the stack's parameter LockWaitSeconds",
    "STATEMENT_TIMEOUT_MS": "it at MigrateFunction in template.yaml",
}


def refuse(environment: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(environment)
    return str(caught.value)


def test_only_the_secret_and_the_folder_must_be_given(tmp_path: Path) -> None:
    assert read_settings({"DB_SECRET_ARN": ARN, "SQL_DIR": str(tmp_path)}) == Settings(
        secret_arn=ARN,
        db_host=None,
        db_port=None,
        db_name=None,
        ca_bundle=CERTIFICATES / "rds-ca-bundle.pem",
        sql_dir=tmp_path,
        lock_wait_seconds=30,
        statement_timeout_ms=5000,
    )


def test_every_setting_is_read(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    environment = {
        "DB_SECRET_ARN": f" {ARN}\n",
        "DB_HOST": "db.example",
        "DB_PORT": "6432",
        "DB_NAME": "kaviar",
        "DB_CA_BUNDLE": str(bundle),
        "SQL_DIR": str(tmp_path),
        "LOCK_WAIT_SECONDS": "60",
        "STATEMENT_TIMEOUT_MS": "10000",
    }
    assert read_settings(environment) == Settings(ARN, "db.example", 6432, "kaviar", bundle, tmp_path, 60, 10_000)


def test_an_empty_setting_counts_as_not_set_since_a_template_cannot_leave_one_out(tmp_path: Path) -> None:
    names = ["DB_HOST", "DB_PORT", "DB_NAME", "DB_CA_BUNDLE", "LOCK_WAIT_SECONDS", "STATEMENT_TIMEOUT_MS"]
    given = {"DB_SECRET_ARN": ARN, "SQL_DIR": str(tmp_path)}
    assert read_settings(given | dict.fromkeys(names, "")) == read_settings(given)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_function_without_a_secret_is_refused(value: str | None) -> None:
    assert refuse({} if value is None else {"DB_SECRET_ARN": value}) == (
        f"DB_SECRET_ARN is not set. {UNTOUCHED} Set the stack's parameter DatabaseSecretArn to the ARN of the secret"
        " with"
        " the database's credentials."
    )


def test_a_bundle_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refuse({"DB_SECRET_ARN": ARN, "DB_CA_BUNDLE": str(tmp_path / "ca.pem"), "SQL_DIR": str(tmp_path)}) == (
        f"DB_CA_BUNDLE names no file ({tmp_path}/ca.pem). {UNTOUCHED} Remove this setting to use the packaged"
        " bundle of RDS."
    )


def test_a_function_without_its_layer_is_refused(tmp_path: Path) -> None:
    assert refuse({"DB_SECRET_ARN": ARN, "SQL_DIR": str(tmp_path / "opt")}) == (
        f"SQL_DIR names no folder ({tmp_path}/opt). {UNTOUCHED} Attach the ReviewedSql layer, which is mounted at /opt."
    )


@pytest.mark.parametrize("name", ["DB_CA_BUNDLE", "SQL_DIR"])
def test_a_path_that_is_too_long_to_be_looked_at_is_not_there(name: str) -> None:
    path = "x" * 300
    assert refuse({"DB_SECRET_ARN": ARN, name: path}).startswith(f"{name} names no ")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("DB_PORT", "0", "DB_PORT is '0', not a whole number from 1 to 65535"),
        ("DB_PORT", "65536", "DB_PORT is '65536', not a whole number from 1 to 65535"),
        ("DB_PORT", "5432/tcp", "DB_PORT is '5432/tcp', not a whole number from 1 to 65535"),
        ("LOCK_WAIT_SECONDS", "0", "LOCK_WAIT_SECONDS is '0', not a whole number from 1 to 840"),
        ("LOCK_WAIT_SECONDS", "-1", "LOCK_WAIT_SECONDS is '-1', not a whole number from 1 to 840"),
        ("LOCK_WAIT_SECONDS", "1.5", "LOCK_WAIT_SECONDS is '1.5', not a whole number from 1 to 840"),
        ("LOCK_WAIT_SECONDS", "841", "LOCK_WAIT_SECONDS is '841', not a whole number from 1 to 840"),
        ("LOCK_WAIT_SECONDS", "٣٠", "LOCK_WAIT_SECONDS is '٣٠', not a whole number from 1 to 840"),
        ("STATEMENT_TIMEOUT_MS", "99", "STATEMENT_TIMEOUT_MS is '99', not a whole number from 100 to 840000"),
        ("STATEMENT_TIMEOUT_MS", "5s", "STATEMENT_TIMEOUT_MS is '5s', not a whole number from 100 to 840000"),
        (
            "STATEMENT_TIMEOUT_MS",
            "9" * 5000,
            f"STATEMENT_TIMEOUT_MS is '{'9' * 40}', not a whole number from 100 to 840000",
        ),
    ],
)
def test_a_number_out_of_bounds_is_refused(tmp_path: Path, name: str, value: str, text: str) -> None:
    environment = {"DB_SECRET_ARN": ARN, "SQL_DIR": str(tmp_path), name: value}
    assert refuse(environment) == f"{text}. {UNTOUCHED} Correct {SET_IN[name]}, and deploy."


def test_no_bound_lets_zero_through_since_it_would_turn_the_limit_off() -> None:
    assert min(LOCK_WAIT_BOUNDS_SECONDS) > 0
    assert min(STATEMENT_TIMEOUT_BOUNDS_MS) > 0
