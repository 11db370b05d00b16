"""The function's settings, read from its environment and checked before anything is contacted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pg_hotfix import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CERTIFICATES = Path(__file__).parent / "certificates"
AMAZON_ROOTS = CERTIFICATES / "amazon-roots.pem"

# 0 would turn the server's limit off, so it is out of bounds. A Lambda function runs for 900 s at most.
LOCK_WAIT_BOUNDS_SECONDS = (1, 840)
STATEMENT_TIMEOUT_BOUNDS_MS = (100, 840_000)
# Where the template sets the numbers.
SET_IN = {
    "DB_PORT": "the stack's parameter DatabasePort",
    "LOCK_WAIT_SECONDS": "the stack's parameter LockWaitSeconds",
    "STATEMENT_TIMEOUT_MS": "it at MigrateFunction in template.yaml",
}


@dataclass(frozen=True)
class Settings:
    """What the environment says. `db_*` may be unset; they fill what the secret lacks."""

    secret_arn: str
    db_host: str | None
    db_port: int | None
    db_name: str | None
    ca_bundle: Path
    sql_dir: Path
    lock_wait_seconds: int
    statement_timeout_ms: int


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings, all within their bounds. An empty value counts as not set: a template cannot leave a variable out.

    Raises:
        ConfigurationError: a setting is missing or out of bounds; nothing was contacted.
    """
    secret_arn = environment.get("DB_SECRET_ARN", "").strip()
    if not secret_arn:
        raise errors.bad_setting(
            "DB_SECRET_ARN",
            "is not set",
            "Set the stack's parameter DatabaseSecretArn to the ARN of the secret with the database's credentials.",
        )
    ca_bundle = Path(environment.get("DB_CA_BUNDLE") or CERTIFICATES / "rds-ca-bundle.pem")
    if not is_there(ca_bundle.is_file):
        raise errors.bad_setting(
            "DB_CA_BUNDLE", f"names no file ({ca_bundle})", "Remove this setting to use the packaged bundle of RDS."
        )
    sql_dir = Path(environment.get("SQL_DIR") or "/opt")
    if not is_there(sql_dir.is_dir):
        raise errors.bad_setting(
            "SQL_DIR", f"names no folder ({sql_dir})", "Attach the ReviewedSql layer, which is mounted at /opt."
        )
    return Settings(
        secret_arn=secret_arn,
        db_host=environment.get("DB_HOST", "").strip() or None,
        db_port=read_number(environment, "DB_PORT", None, (1, 65_535)),
        db_name=environment.get("DB_NAME", "").strip() or None,
        ca_bundle=ca_bundle,
        sql_dir=sql_dir,
        lock_wait_seconds=read_number(environment, "LOCK_WAIT_SECONDS", 30, LOCK_WAIT_BOUNDS_SECONDS),
        statement_timeout_ms=read_number(environment, "STATEMENT_TIMEOUT_MS", 5000, STATEMENT_TIMEOUT_BOUNDS_MS),
    )


def read_stack_name(environment: Mapping[str, str]) -> str | None:
    """The name that CloudFormation knows this function's stack by; None on a laptop."""
    return environment.get("STACK_NAME", "").strip() or None


def is_there(exists: Callable[[], bool]) -> bool:
    """A path that the system refuses to look up, such as one that is too long, counts as not there."""
    try:
        return exists()
    except OSError:
        return False


def read_number[Default: int | None](
    environment: Mapping[str, str], name: str, default: Default, bounds: tuple[int, int]
) -> int | Default:
    text = environment.get(name, "").strip()
    if not text:
        return default
    low, high = bounds
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise errors.bad_setting(
            name,
            f"is {text[:40]!r}, not a whole number from {low} to {high}",
            f"Correct {SET_IN[name]}, and deploy.",
        )
    return int(text)
