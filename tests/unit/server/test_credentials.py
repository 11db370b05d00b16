"""Every shape of secret gives the same target; none that can't be read gives anything of its value away."""

from __future__ import annotations

import json
import string
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
)
from hypothesis import example, given
from hypothesis import strategies as st

from pg_hotfix.errors import ConfigurationError, HotfixError, SecretError, SecretUnavailableError
from pg_hotfix.server import credentials
from pg_hotfix.server.credentials import AWS_CONFIG, SECRET_MAX_AGE_SECONDS, Target, parse_secret, read_target
from pg_hotfix.settings import Settings

pytestmark = pytest.mark.long_too
ARN = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:kaviar/database-AbCdEf"
SETTINGS = Settings(ARN, None, None, None, Path(__file__), Path(__file__).parent, 30, 5000)
PASSWORD = "Kq7-tr0ub4dor&3/@:?#[]%é"
WHOLE: dict[str, Any] = {
    "username": "app",
    "password": PASSWORD,
    "host": "db.example",
    "port": 6432,
    "dbname": "kaviar",
    "engine": "postgres",
}
TARGET = Target("db.example", 6432, "kaviar", "app", PASSWORD)
URL = f"postgresql://app:{quote(PASSWORD, safe='')}@db.example:6432/kaviar"
POOLED = "postgres://app:x@pooler.example:6543/other?pgbouncer=true"

STORE = (
    "Nothing was changed: the database was not contacted. Store the JSON that RDS writes (username, password, host,"
    " port, dbname), or a URL postgresql://user:password@host:5432/name with %XX for special characters, or"
    ' {"DATABASE_URL": "<that URL>"}.'
)


def without(*names: str) -> str:
    return json.dumps({name: value for name, value in WHOLE.items() if name not in names})


def refuse(value: object, settings: Settings = SETTINGS) -> str:
    """What the operator reads, after it was made sure that no log of it holds the password."""
    with pytest.raises(SecretError) as caught:
        parse_secret(value, settings)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


# What is accepted


@pytest.mark.parametrize(
    "value",
    [
        json.dumps(WHOLE),
        json.dumps(WHOLE | {"port": "6432", "dbInstanceIdentifier": "kaviar", "masterarn": None}),
        json.dumps(WHOLE).encode(),
        f"  {URL}\n",
        URL.replace("postgresql://", "postgres://"),
        f"{URL}?schema=public&sslmode=disable&connection_limit=5",
        json.dumps({"DATABASE_URL": URL}),
        json.dumps({"DATABASE_URL": f"{URL}?sslmode=no-verify", "username": "other", "host": "evil.example"}),
        json.dumps({"DATABASE_URL": POOLED, "DIRECT_URL": URL}),
        json.dumps({"POSTGRES_URL_NON_POOLING": URL, "DATABASE_URL": POOLED, "POSTGRES_URL": POOLED}),
        json.dumps({"DATABASE_URL": POOLED, "DATABASE_URL_UNPOOLED": URL}),
        json.dumps({"database_url": POOLED, "direct_url": f" {URL} "}),
        json.dumps({"DATABASE_URL": "prisma+postgres://accelerate.example/?api_key=x", "DIRECT_URL": URL}),
        json.dumps({"DATABASE_URL": URL, "DIRECT_URL": " "}),
        json.dumps({"DATABASE_URL": URL, "DIRECT_URL": None}),
        URL.replace("postgresql://", "postgresql+psycopg2://"),
        URL.replace("postgresql://", "POSTGRESQL+asyncpg://"),
    ],
    ids=[
        "RDS",
        "RDS, port as text",
        "binary",
        "URL",
        "postgres://",
        "Prisma's parameters",
        "DATABASE_URL",
        "URL first",
        "Prisma's DIRECT_URL before a pooler's address",
        "Vercel's",
        "Neon's",
        "keys in lower case",
        "DIRECT_URL beside Prisma's proxy",
        "an empty DIRECT_URL",
        "a DIRECT_URL of null",
        "SQLAlchemy's",
        "a scheme in upper case",
    ],
)
def test_each_shape_of_secret_names_the_target(value: object) -> None:
    assert parse_secret(value, SETTINGS) == TARGET


def test_a_secret_managed_by_rds_is_completed_by_the_settings() -> None:
    settings = replace(SETTINGS, db_host="db.example", db_port=6432, db_name="kaviar")
    assert parse_secret(json.dumps({"username": "app", "password": PASSWORD}), settings) == TARGET


def test_the_settings_only_fill_what_the_secret_lacks() -> None:
    settings = replace(SETTINGS, db_host="other.example", db_port=1, db_name="other")
    assert parse_secret(json.dumps(WHOLE), settings) == TARGET
    assert parse_secret(URL, settings) == TARGET


def test_the_port_is_the_usual_one_when_nobody_names_it() -> None:
    assert parse_secret(without("port"), SETTINGS).port == 5432
    assert parse_secret("postgres://app:x@db.example/kaviar", SETTINGS).port == 5432
    assert parse_secret(without("port"), replace(SETTINGS, db_port=6432)).port == 6432


@pytest.mark.parametrize("engine", ["postgres", "postgresql", "aurora-postgresql"])
def test_any_name_of_postgresql_is_its_engine(engine: str) -> None:
    assert parse_secret(json.dumps(WHOLE | {"engine": engine}), SETTINGS) == TARGET


def test_an_address_in_brackets_is_an_ipv6_address() -> None:
    assert parse_secret("postgres://app:x@[fd00::1]:6432/kaviar", SETTINGS).host == "fd00::1"


logins = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)


@example(user="a@b", password="p@ss:w/rd?#[%40]", database="a/b c")
@given(user=logins, password=logins, database=logins)
def test_any_login_survives_a_percent_encoded_url(user: str, password: str, database: str) -> None:
    parts = [quote(part, safe="") for part in (user, password, database)]
    target = parse_secret("postgresql://{}:{}@db.example:6432/{}".format(*parts), SETTINGS)
    assert target == Target("db.example", 6432, database, user, password)


def test_no_representation_of_the_target_shows_the_password() -> None:
    assert repr(TARGET) == "Target(host='db.example', port=6432, database='kaviar', user='app')"
    assert TARGET.address == "kaviar at db.example:6432"


# What is refused

SEVERAL = "names several hosts; pg-hotfix needs one, the writer's endpoint"
SOCKET = "names a Unix socket; pg-hotfix needs TCP with TLS"


def behind(name: str) -> str:
    return f'has a URL that names its {name} after the "?": write it before'


BARE = "has a URL with a bare #, /, ? or @ (write %23, %2F, %3F, %40)"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "is empty"),
        ("", "is neither JSON nor a postgresql:// URL"),
        (PASSWORD, "is neither JSON nor a postgresql:// URL"),
        (json.dumps(WHOLE)[:-1], "is neither JSON nor a postgresql:// URL"),
        ("[" * 100_000, "is neither JSON nor a postgresql:// URL"),
        (f"mysql://app:{PASSWORD}@db.example/kaviar", "is neither JSON nor a postgresql:// URL"),
        (b"\xff\xfe" + PASSWORD.encode(), "is binary"),
        (json.dumps([WHOLE]), "is JSON, but not an object"),
        (json.dumps(PASSWORD), "is JSON, but not an object"),
        (without("username"), "has no username"),
        (without("password"), "has no password"),
        (json.dumps(WHOLE | {"password": ""}), "has no password"),
        ("postgres://app@db.example/kaviar", "has no password"),
        (json.dumps(WHOLE | {"engine": "mysql"}), "is for another database engine than PostgreSQL"),
        (json.dumps(WHOLE | {"password": [PASSWORD]}), "has a field that is neither text nor number"),
        (json.dumps(WHOLE | {"port": True}), "has a field that is neither text nor number"),
        (json.dumps(WHOLE | {"port": "five"}), "has a port that is not a number from 1 to 65535"),
        (json.dumps(WHOLE | {"port": 65_536}), "has a port that is not a number from 1 to 65535"),
        (json.dumps(WHOLE | {"port": "٩"}), "has a port that is not a number from 1 to 65535"),
        (json.dumps(WHOLE | {"password": f"{PASSWORD}\0"}), "contains characters that no PostgreSQL login can have"),
        (json.dumps(WHOLE | {"username": "\ud800"}), "contains characters that no PostgreSQL login can have"),
        (f"postgres://app:{PASSWORD}@db.example/kaviar", "has a URL that cannot be read"),
        ("postgres://app:%ff@db.example/kaviar", "has a URL that cannot be read"),
        ("postgres://app:x@db.example:65536/kaviar", "has a URL that cannot be read"),
        ("postgres://app:x@db\u2100.example/kaviar", "has a URL that cannot be read"),
        ("postgres://app:1#2@db.example/kaviar", BARE),
        ("postgres://app:1/2@db.example/kaviar", BARE),
        ("postgres://app:1?2@db.example/kaviar", BARE),
        ("postgres://app:x@1/2@db.example/kaviar", BARE),
        ("postgres://app:x@y?2@db.example/kaviar", BARE),
        ("postgres://app:x@db.example/kaviar/", BARE),
        (
            json.dumps({"DATABASE_URL": f"mysql://app:x{PASSWORD[:4]}@db.example/kaviar"}),
            "has a DATABASE_URL that is not postgresql://",
        ),
        (
            json.dumps({"DIRECT_URL": "file:./dev.db", "DATABASE_URL": URL}),
            "has a DIRECT_URL that is not postgresql://",
        ),
        (
            f"prisma+postgres://accelerate.example/?api_key={quote(PASSWORD)}",
            "has a URL of Prisma's proxy (prisma+postgres://), not of a database",
        ),
        (
            json.dumps({"direct_url": f"prisma://accelerate.example/?api_key={quote(PASSWORD)}"}),
            "has a direct_url of Prisma's proxy (prisma://), not of a database",
        ),
        (f"jdbc:postgresql://db.example/kaviar?password={PASSWORD}", "is neither JSON nor a postgresql:// URL"),
        (URL.replace(":6432", ",b.example"), SEVERAL),
        (URL.replace(":6432", ":6432,b.example:6432"), SEVERAL),
        (URL.replace("db.example:6432", "[fd00::1]:6432,[fd00::2]:6432"), SEVERAL),
        ("postgres://a.example,b.example/kaviar?target_session_attrs=read-write", SEVERAL),
        (json.dumps(WHOLE | {"host": "a.example,b.example"}), SEVERAL),
        (URL.replace("db.example:6432", "%2Fvar%2Frun"), SOCKET),
        (json.dumps(WHOLE | {"host": "/cloudsql/kaviar"}), SOCKET),
        (f"{URL}?host=a.example,b.example", behind("host")),
        (URL.replace("db.example:6432", "") + "?sslmode=require&HOST=/var/run", behind("host")),
        (f"{URL}?dbname=other", behind("dbname")),
        (f"postgres://db.example/kaviar?user=app&password={quote(PASSWORD)}", behind("user")),
    ],
)
def test_a_secret_that_cannot_be_read_is_refused_without_its_value(value: object, what: str) -> None:
    assert refuse(value) == f"The secret {ARN} {what}. {STORE}"


@pytest.mark.parametrize("name", ["host", "dbname"])
def test_an_address_that_neither_secret_nor_settings_know_is_refused(name: str) -> None:
    parameter = {"host": "DatabaseHost", "dbname": "DatabaseName"}[name]
    assert refuse(without(name)) == (
        f"The secret {ARN} has no {name}, and the stack's parameter {parameter} is empty. Nothing was changed: the"
        " database was not contacted. Set that parameter, and deploy."
    )


# Long and unlike any text of ours, so that finding it is no coincidence.
MARK = "Kq7xZv"
passwords = st.text(alphabet=string.ascii_letters + string.digits + "/@:?#[]%\\\"' {}é", max_size=20).map(
    "Kq7xZv".__add__
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*WHOLE, "DATABASE_URL"]), inner, max_size=6)
    ),
    max_leaves=6,
)


@st.composite
def secrets_that_hold(draw: st.DrawFn, password: str) -> object:
    """A secret of any shape, whole or broken, with the password somewhere in it."""
    url = f"{draw(st.sampled_from(['postgres', 'postgresql', 'mysql', 'POSTGRES']))}://app:{password}@db.example/kaviar"
    fields = WHOLE | {"password": password}
    spoilt = draw(
        st.dictionaries(st.sampled_from([*WHOLE, "DATABASE_URL"]), json_values | st.just(password) | st.just(url))
    )
    text = draw(
        st.sampled_from(
            [password, url, json.dumps(fields), json.dumps(fields | spoilt), json.dumps([spoilt, password])]
        )
    )
    cut = text[draw(st.integers(0, 3)) : len(text) - draw(st.integers(0, 3))]
    return draw(st.sampled_from([text, cut, text.encode(), cut.encode("utf-16")]))


@given(st.data(), passwords)
def test_any_secret_is_a_target_or_refused_without_its_password(data: st.DataObject, password: str) -> None:
    value = data.draw(secrets_that_hold(password) | json_values | json_values.map(json.dumps) | st.binary(max_size=50))
    try:
        target = parse_secret(value, SETTINGS)
    except SecretError as error:
        shown = "".join(traceback.format_exception(error))
    else:
        shown = repr(target.password and replace(target, user="", host="", database=""))
        assert target.host
        assert target.user
        assert target.database
        assert 0 < target.port < 65_536
    assert MARK not in shown


# Secrets Manager's refusals


def refused_by_aws(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "of no interest"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetSecretValue",
    )


DESCRIBE_KEY = f"aws secretsmanager describe-secret --query KmsKeyId --secret-id {ARN}"


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (
            "ResourceNotFoundException",
            "The secret does not exist in this region: correct the stack's parameter DatabaseSecretArn, and deploy.",
        ),
        (
            "AccessDeniedException",
            (
                "Allow the function's role secretsmanager:GetSecretValue in the secret's own policy, and kms:Decrypt in"
                f" the policy of its key:  {DESCRIBE_KEY}"
            ),
        ),
        (
            "DecryptionFailure",
            (
                "Its key is disabled, or the key's policy does not allow the function's role kms:Decrypt. See which key"
                f" it is:  {DESCRIBE_KEY}"
            ),
        ),
        (
            "InvalidRequestException",
            f"It may be scheduled for deletion:  aws secretsmanager restore-secret --secret-id {ARN}",
        ),
        (
            "ValidationException",
            f"See its state and policy:  aws secretsmanager describe-secret --secret-id {ARN}",
        ),
    ],
)
def test_a_refusal_of_secrets_manager_comes_with_what_to_do(code: str, advice: str) -> None:
    error = credentials.translate(ARN, refused_by_aws(code))
    assert type(error) is SecretError
    assert str(error) == (
        f"Secrets Manager refused to return {ARN} ({code}). Nothing was changed: the database was not contacted."
        f" {advice}"
    )


def test_a_function_without_a_role_is_told_so() -> None:
    error = credentials.translate(ARN, NoCredentialsError())
    assert type(error) is ConfigurationError
    assert str(error) == (
        "The AWS credentials are missing. Nothing was contacted and nothing was changed. Give the function an"
        " execution role."
    )


def test_an_arn_that_boto3_refuses_is_a_setting() -> None:
    error = credentials.translate("x", ParamValidationError(report="too short"))
    assert type(error) is ConfigurationError
    assert str(error) == (
        "DB_SECRET_ARN is not the ARN of a secret. Nothing was contacted and nothing was changed. Copy the secret's"
        " whole ARN into the stack's parameter DatabaseSecretArn, and deploy."
    )


def test_a_function_without_a_region_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    credentials.secrets_provider.cache_clear()
    with pytest.raises(ConfigurationError, match="AWS_REGION is not set"):
        credentials.read_target(SETTINGS)


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (refused_by_aws("ThrottlingException"), "ThrottlingException"),
        (refused_by_aws("InternalServiceError"), "InternalServiceError"),
        (refused_by_aws("ServiceUnavailable"), "ServiceUnavailable"),
        (refused_by_aws("RequestTimeout"), "RequestTimeout"),
        (refused_by_aws("SomethingNew", status=503), "SomethingNew"),
        (ConnectTimeoutError(endpoint_url="https://secretsmanager.example"), "ConnectTimeoutError"),
        (EndpointConnectionError(endpoint_url="https://secretsmanager.example"), "EndpointConnectionError"),
    ],
)
def test_no_answer_of_secrets_manager_may_be_retried_and_names_the_likely_cause(cause: Exception, code: str) -> None:
    error = credentials.translate(ARN, cause)
    assert type(error) is SecretUnavailableError
    assert error.retryable
    assert str(error) == (
        f"Secrets Manager did not answer for {ARN} ({code}). Nothing was changed: the database was not contacted."
        " From a VPC the function reaches it only through an interface endpoint or a NAT gateway. If the VPC has"
        " neither, deploy with CreateSecretsManagerEndpoint=true."
    )


class FakeProvider:
    """Secrets Manager behind Powertools: what it would answer, and what it was asked."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int, bool]] = []

    def get(self, name: str, *, max_age: int, force_fetch: bool) -> str:
        self.asked.append((name, max_age, force_fetch))
        if isinstance(self.answer, str):
            return self.answer
        try:
            raise self.answer
        except Exception as error:  # noqa: BLE001 - as Powertools does
            raise GetParameterError(str(error))  # noqa: B904 - as Powertools does


def test_the_secret_is_remembered_unless_it_is_wanted_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = FakeProvider(json.dumps(WHOLE))
    monkeypatch.setattr(credentials, "secrets_provider", lambda: provider)
    assert read_target(SETTINGS) == read_target(SETTINGS, again=True) == TARGET
    assert provider.asked == [(ARN, SECRET_MAX_AGE_SECONDS, False), (ARN, SECRET_MAX_AGE_SECONDS, True)]


def test_the_cause_of_a_refusal_is_told_and_chained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "secrets_provider", lambda: FakeProvider(refused_by_aws("AccessDeniedException")))
    with pytest.raises(HotfixError, match=r"\(AccessDeniedException\)") as caught:
        read_target(SETTINGS)
    assert isinstance(caught.value.__cause__, GetParameterError)


def test_an_endpoint_that_cannot_be_reached_is_reported_within_seconds() -> None:
    config: Any = AWS_CONFIG
    longest_seconds = config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout)
    assert longest_seconds <= 10
