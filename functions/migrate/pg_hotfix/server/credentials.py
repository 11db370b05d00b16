"""The database's address and login, from Secrets Manager. The only module that knows boto3."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import boto3
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError, NoRegionError, ParamValidationError

from pg_hotfix import errors

if TYPE_CHECKING:
    from pg_hotfix.settings import Settings

# At DEBUG botocore logs the answers of Secrets Manager, with the password. No log level may do that.
for noisy in ("botocore", "urllib3"):
    logging.getLogger(noisy).setLevel(logging.WARNING)

# An endpoint that cannot be reached must be reported long before the function's time is up: 2 tries of at most 2 + 3 s.
AWS_CONFIG = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2, "mode": "standard"})
# After a rotation the server answers 28P01, and the secret is read again. A changed host causes no error, and no apply
# may go to the old database.
SECRET_MAX_AGE_SECONDS = 60

# Keys of a URL in JSON, in upper or lower case. The database's own address comes before DATABASE_URL, which may be a
# pooler's. Prisma and Supabase, Vercel, and Neon use these names.
# https://www.prisma.io/docs/orm/reference/prisma-schema-reference#fields
URL_KEYS = ("DIRECT_URL", "POSTGRES_URL_NON_POOLING", "DATABASE_URL_UNPOOLED", "DATABASE_URL")
# SQLAlchemy names its driver in the scheme: postgresql+psycopg2.
SCHEME = re.compile(r"postgres(ql)?(\+(psycopg|psycopg2|asyncpg|pg8000))?", re.IGNORECASE)
# Parameters by which libpq overrides the part before the "?".
# https://www.postgresql.org/docs/current/libpq-connect.html
MISPLACED = {"dbname", "host", "hostaddr", "password", "passfile", "port", "service", "user"}

NO_ANSWER = {
    "InternalFailure",
    "InternalServiceError",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
ADVICE = {
    "ResourceNotFoundException": "The secret does not exist in this region: correct the stack's "
    "parameter DatabaseSecretArn, and deploy.",
    "AccessDeniedException": "Allow the function's role secretsmanager:GetSecretValue in the secret's own policy, and "
    "kms:Decrypt in the policy of its key:  aws secretsmanager describe-secret --query KmsKeyId --secret-id {arn}",
    "DecryptionFailure": "Its key is disabled, or the key's policy does not allow the function's role kms:Decrypt. See "
    "which key it is:  aws secretsmanager describe-secret --query KmsKeyId --secret-id {arn}",
    "InvalidRequestException": "It may be scheduled for deletion:  aws secretsmanager restore-secret --secret-id {arn}",
}


@dataclass(frozen=True)
class Target:
    """Where to connect and as whom. The password is in no representation of it."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)

    @property
    def address(self) -> str:
        return f"{self.database} at {self.host}:{self.port}"


def read_target(settings: Settings, *, again: bool = False) -> Target:
    """The target that the secret names, from the cache of a warm function unless `again`.

    Raises:
        SecretError: missing, denied or unreadable. SecretUnavailableError: no answer. The database was not contacted.
    """
    try:
        value = secrets_provider().get(settings.secret_arn, max_age=SECRET_MAX_AGE_SECONDS, force_fetch=again)
    except GetParameterError as error:
        raise translate(settings.secret_arn, error.__context__ or error) from error
    except NoRegionError as error:
        raise errors.bad_setting("AWS_REGION", "is not set", "Lambda sets it; elsewhere set it yourself.") from error
    return parse_secret(value, settings)


@cache
def secrets_provider() -> SecretsProvider:
    return SecretsProvider(boto3_client=boto3.client("secretsmanager", config=AWS_CONFIG))


def translate(arn: str, error: BaseException) -> errors.HotfixError:
    """https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html#API_GetSecretValue_Errors"""
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if code in NO_ANSWER or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            return errors.secret_unavailable(arn, code)
        advice = ADVICE.get(code, "See its state and policy:  aws secretsmanager describe-secret --secret-id {arn}")
        return errors.secret_refused(arn, code, advice.format(arn=arn))
    if isinstance(error, NoCredentialsError):
        return errors.bad_setting("The AWS credentials", "are missing", "Give the function an execution role.")
    if isinstance(error, ParamValidationError):
        return errors.bad_setting(
            "DB_SECRET_ARN",
            "is not the ARN of a secret",
            "Copy the secret's whole ARN into the stack's parameter DatabaseSecretArn, and deploy.",
        )
    return errors.secret_unavailable(arn, type(error).__name__)


def parse_secret(value: object, settings: Settings) -> Target:
    """The target, from any of the forms that a secret may have; the settings fill what it lacks. Parameters of a URL
    such as `schema`, `sslmode` or `connection_limit` are for other clients and are ignored: TLS is always verified.

    Raises:
        SecretError: it cannot be read. The text and the chained exceptions hold nothing of its value.
    """
    arn = settings.secret_arn
    fields = read_fields(value, arn)
    host = fields.get("host") or settings.db_host
    if not host:
        raise errors.secret_lacks(arn, "host", "DatabaseHost")
    refuse_other_addresses(fields.get("host", ""), arn)
    database = fields.get("dbname") or settings.db_name
    if not database:
        raise errors.secret_lacks(arn, "dbname", "DatabaseName")
    for name in ("username", "password"):
        if not fields.get(name):
            raise errors.secret_unreadable(arn, f"has no {name}")
    if not fields.get("engine", "postgres").startswith(("postgres", "aurora-postgres")):
        raise errors.secret_unreadable(arn, "is for another database engine than PostgreSQL")
    if any("\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text) for text in fields.values()):
        raise errors.secret_unreadable(arn, "contains characters that no PostgreSQL login can have")
    return Target(host, read_port(fields.get("port"), settings), database, fields["username"], fields["password"])


def refuse_other_addresses(host: str, arn: str) -> None:
    """The secret names one host, over TCP. Otherwise there is no certificate to verify, or not one server to change."""
    if "," in host:
        raise errors.secret_unreadable(arn, "names several hosts; pg-hotfix needs one, the writer's endpoint")
    if host.startswith(("/", "@")):
        raise errors.secret_unreadable(arn, "names a Unix socket; pg-hotfix needs TCP with TLS")


def read_port(text: str | None, settings: Settings) -> int:
    if not text:
        return settings.db_port or 5432
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65_536):
        raise errors.secret_unreadable(settings.secret_arn, "has a port that is not a number from 1 to 65535")
    return int(text)


def read_fields(value: object, arn: str) -> dict[str, str]:
    """The secret's fields under the names of the RDS JSON, as texts. The errors chain no exception, since its text
    could quote the secret."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise errors.secret_unreadable(arn, "is binary") from None
    if not isinstance(value, str):
        raise errors.secret_unreadable(arn, "is empty")
    text = value.strip()
    scheme, colon, _ = text.partition("://")
    if colon and (SCHEME.fullmatch(scheme) or scheme.startswith("prisma")):
        return read_url(text, arn)
    document = load_json(text)
    if document is None:
        raise errors.secret_unreadable(arn, "is neither JSON nor a postgresql:// URL")
    if not isinstance(document, dict):
        raise errors.secret_unreadable(arn, "is JSON, but not an object")
    if found := find_url(document):
        key, url = found
        return read_url(url, arn, key)
    fields = {
        name: document[name]
        for name in ("username", "password", "host", "port", "dbname", "engine")
        if document.get(name) is not None
    }
    if any(isinstance(field, bool) or not isinstance(field, str | int) for field in fields.values()):
        raise errors.secret_unreadable(arn, "has a field that is neither text nor number")
    return {name: str(field) for name, field in fields.items()}


def find_url(document: dict[str, Any]) -> tuple[str, str] | None:
    """The first URL that is not empty, with its key as the secret writes it."""
    found = {key.upper(): (key, url.strip()) for key, url in document.items() if isinstance(url, str) and url.strip()}
    return next((found[key] for key in URL_KEYS if key in found), None)


def load_json(text: str) -> Any:
    """The parsed text; None instead of an exception, whose context would quote the secret."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_url(text: str, arn: str, key: str = "URL") -> dict[str, str]:
    """https://www.prisma.io/docs/orm/overview/databases/postgresql#connection-url"""
    scheme = text.partition("://")[0].lower()
    if scheme.startswith("prisma"):
        raise errors.secret_unreadable(arn, f"has a {key} of Prisma's proxy ({scheme}://), not of a database")
    if not SCHEME.fullmatch(scheme):
        raise errors.secret_unreadable(arn, f"has a {key} that is not postgresql://")
    fields = split_url(text)
    if fields is None:
        raise errors.secret_unreadable(arn, "has a URL that cannot be read")
    if fields.pop("cut", ""):
        raise errors.secret_unreadable(arn, "has a URL with a bare #, /, ? or @ (write %23, %2F, %3F, %40)")
    if misplaced := fields.pop("misplaced", ""):
        what = f'has a URL that names its {misplaced} after the "?": write it before'
        raise errors.secret_unreadable(arn, what)
    return fields


def split_url(text: str) -> dict[str, str] | None:
    """The parts of the URL, decoded. `cut` is there if a character that was not encoded has cut the password in two,
    `misplaced` is the name of a parameter that would override a part, and `host` has all hosts if there are several.
    None instead of an exception, whose text and context would quote the URL."""
    if not text.isprintable():  # urlsplit would silently drop a line break in a password.
        return None
    try:
        several = re.fullmatch(r"([^/?#]*@)?([^/?#@]*,[^/?#@]*)(.*)", text.partition("://")[2])
        url = urlsplit(f"postgresql://{several[1] or ''}several{several[3]}" if several else text)
        named = [name.lower() for name, _ in parse_qsl(url.query, keep_blank_values=True)]
        parts = {
            "username": url.username,
            "password": url.password,
            "host": several[2] if several else url.hostname,
            "port": "" if url.port is None else str(url.port),
            "dbname": url.path.removeprefix("/"),
            "cut": url.fragment or "".join(re.findall("@|(?<=.)/", url.path) + re.findall("@", url.query)),
            "misplaced": next((name for name in named if name in MISPLACED), ""),
        }
        return {name: unquote(part, errors="strict") for name, part in parts.items() if part}
    except ValueError:
        return None
