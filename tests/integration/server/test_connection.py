"""From the secret to a verified login, and what the operator sees where it breaks."""

from __future__ import annotations

import http.server
import json
import logging
import os
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trustme

from laptop.postgres import running_server
from pg_hotfix.server import connect, credentials
from pg_hotfix.server import session as database_module
from pg_hotfix.server.limits import derive_limits
from pg_hotfix.settings import read_settings
from tests.conftest import HOTFIX, PASSWORDS, PATIENCE_SECONDS, new_password, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from laptop.postgres import Server
    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    Store = Callable[..., str]


# The shapes of the secret


def url_of(database: Database, scheme: str = "postgresql", query: str = "") -> str:
    address = f"{database.server.host}:{database.server.port}/{quote(database.name)}"
    return f"{scheme}://{quote(database.user, safe='')}:{quote(database.password, safe='')}@{address}{query}"


SHAPES: dict[str, Callable[[Database], str | dict[str, Any]]] = {
    "the JSON of RDS": lambda database: database.secret(),
    "the JSON of RDS with the port as text": lambda database: database.secret(port=str(database.server.port)),
    "a postgresql:// URL": url_of,
    "a postgres:// URL": lambda database: url_of(database, "postgres"),
    "a URL of Prisma": lambda database: url_of(database, query="?schema=public&sslmode=disable&connection_limit=5"),
    "JSON with a URL": lambda database: {"DATABASE_URL": url_of(database), "OTHER": "x"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_secret_logs_in(invoke: Invoke, database: Database, secrets_manager: Store, shape: str) -> None:
    secrets_manager(SHAPES[shape](database))
    outcome = invoke("check")
    assert (outcome.error, outcome.result) == (None, "ready")
    assert outcome.response["database"]["tls"] == "TLSv1.3"


def test_an_rds_managed_secret_is_filled_from_the_environment(
    invoke: Invoke, database: Database, secrets_manager: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets_manager({"username": database.user, "password": database.password})
    monkeypatch.setenv("DB_HOST", database.server.host)
    monkeypatch.setenv("DB_PORT", str(database.server.port))
    monkeypatch.setenv("DB_NAME", database.name)
    assert invoke("check").result == "ready"


def test_special_characters_of_a_password_survive_a_url(
    invoke: Invoke, database: Database, secrets_manager: Store
) -> None:
    password = "p@ss/w:rd#100%?&=ü " + new_password()
    PASSWORDS.add(password)
    database.run(f"ALTER ROLE {database.user} PASSWORD '{password}'")
    secrets_manager(
        f"postgresql://{database.user}:{quote(password, safe='')}@localhost:{database.server.port}/{database.name}"
    )
    assert invoke("check").result == "ready"


def test_a_secret_without_host_names_the_setting(invoke: Invoke, database: Database, secrets_manager: Store) -> None:
    arn = secrets_manager({"username": database.user, "password": database.password})
    outcome = invoke("check")
    assert outcome.error_name == "SecretError"
    assert outcome.text == (
        f"The secret {arn} has no host, and the stack's parameter DatabaseHost is empty. Nothing was changed: the"
        " database was not contacted. Set that parameter, and deploy."
    )


@pytest.mark.parametrize(
    "value",
    [
        "not a secret",
        "{",
        "[1]",
        '{"username": "x"}',
        "postgresql://u@h:1/d",
        "mysql://u:p@h/d",
        "postgres://u:p@h:port/d",
        '{"DATABASE_URL": 5}',
    ],
)
def test_a_malformed_secret_is_named_and_never_shown(invoke: Invoke, secrets_manager: Store, value: str) -> None:
    outcome = invoke("check")
    arn = secrets_manager(value)
    credentials.secrets_provider.cache_clear()
    outcome = invoke("check")
    assert outcome.error_name == "SecretError"
    assert outcome.text.startswith(f"The secret {arn} ")
    assert "Nothing was changed: the database was not contacted." in outcome.text


def test_a_debug_log_level_does_not_show_the_secret(invoke: Invoke, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)  # As Lambda's JSON log format would set it; the password is looked for at the end.
    credentials.secrets_provider.cache_clear()
    assert invoke("check").result == "ready"


def test_a_missing_secret_is_named(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_SECRET_ARN", "arn:aws:secretsmanager:sa-east-1:123456789012:secret:nowhere-AbCdEf")
    outcome = invoke("check")
    assert outcome.error_name == "SecretError"
    assert outcome.text == (
        "Secrets Manager refused to return arn:aws:secretsmanager:sa-east-1:123456789012:secret:nowhere-AbCdEf"
        " (ResourceNotFoundException). Nothing was changed: the database was not contacted. The secret does not exist"
        " in this region: correct the stack's parameter DatabaseSecretArn, and deploy."
    )


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """An endpoint in place of Secrets Manager that refuses every request, since moto can't. Yields its URL."""

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"__type": code, "message": "no"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ARN = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:kaviar-AbCdEf"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the endpoint of Secrets Manager, without moto in between."""
    credentials.secrets_provider.cache_clear()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "sa-east-1")
    monkeypatch.setenv("DB_SECRET_ARN", ARN)
    monkeypatch.setenv("SQL_DIR", "sql")
    yield lambda url: monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    credentials.secrets_provider.cache_clear()


def test_a_denied_secret_names_the_permission(call: Callable[..., Outcome], endpoint: Callable[[str], None]) -> None:
    with answering(400, "AccessDeniedException") as url:
        endpoint(url)
        outcome = call({"action": "check"})
    assert outcome.error_name == "SecretError"
    assert outcome.text == (
        f"Secrets Manager refused to return {ARN} (AccessDeniedException). Nothing was changed: the database was not"
        " contacted. Allow the function's role secretsmanager:GetSecretValue in the secret's own policy, and"
        f" kms:Decrypt in the policy of its key:  aws secretsmanager describe-secret --query KmsKeyId --secret-id {ARN}"
    )


def test_a_throttled_secret_is_worth_a_retry(call: Callable[..., Outcome], endpoint: Callable[[str], None]) -> None:
    with answering(400, "ThrottlingException") as url:
        endpoint(url)
        outcome = call({"action": "check"})
    assert outcome.error_name == "SecretUnavailableError"
    assert outcome.line["retryable"] is True


def test_an_unreachable_secrets_manager_names_the_missing_endpoint(
    call: Callable[..., Outcome], endpoint: Callable[[str], None]
) -> None:
    endpoint(f"http://127.0.0.1:{closed_port()}")
    outcome = call({"action": "check"})
    assert outcome.error_name == "SecretUnavailableError"
    assert outcome.text == (
        f"Secrets Manager did not answer for {ARN} (EndpointConnectionError). Nothing was changed: the database was"
        " not contacted. From a VPC the function reaches it only through an interface endpoint or a NAT gateway. If"
        " the VPC has neither, deploy with CreateSecretsManagerEndpoint=true."
    )


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_secrets_manager_in_trouble_is_worth_a_retry(
    call: Callable[..., Outcome], endpoint: Callable[[str], None]
) -> None:
    with answering(503, "ServiceUnavailableException") as url:
        endpoint(url)
        assert call({"action": "check"}).error_name == "SecretUnavailableError"


# The server and its certificate


def test_an_unreachable_database_is_named(invoke: Invoke, database: Database, secrets_manager: Store) -> None:
    port = closed_port()
    secrets_manager(database.secret(port=port))
    outcome = invoke("apply")
    assert outcome.error_name == "DatabaseUnavailableError"
    assert outcome.text == (
        f"Cannot connect to the database {database.name} at localhost:{port} (Connection refused). Nothing was"
        " changed. If it keeps failing, check that the instance is available and that its security group lets the"
        " function in."
    )


def test_a_host_that_does_not_resolve_is_named(invoke: Invoke, database: Database, secrets_manager: Store) -> None:
    secrets_manager(database.secret(host="db.invalid"))
    outcome = invoke("apply")
    assert outcome.error_name == "DatabaseUnavailableError"
    assert f"{database.name} at db.invalid:{database.server.port} (" in outcome.text


def test_a_certificate_of_another_authority_is_refused(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "other-ca.pem"
    trustme.CA().cert_pem.write_to_path(bundle)
    monkeypatch.setenv("DB_CA_BUNDLE", str(bundle))
    outcome = invoke("apply")
    assert outcome.error_name == "TlsError"
    assert outcome.text == (
        f"The certificate of localhost:{database.server.port} does not verify: unable to get local issuer"
        " certificate. No credentials were sent. Nothing was changed. If RDS has a new root certificate, fetch it,"
        " and deploy:  make update-ca-bundle  Otherwise find out who answers at this address."
    )


def test_a_bundle_without_certificates_is_refused_before_anything_is_contacted(
    call: Callable[..., Outcome], endpoint: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    endpoint(f"http://127.0.0.1:{closed_port()}")  # Asking for the secret would be another error.
    bundle = tmp_path / "empty.pem"
    bundle.write_text("no certificate\n")
    monkeypatch.setenv("DB_CA_BUNDLE", str(bundle))
    outcome = call({"action": "check"})
    assert outcome.error_name == "ConfigurationError"
    assert outcome.text == (
        f"DB_CA_BUNDLE has no readable certificates ({bundle}). Nothing was contacted and nothing was changed. Remove"
        " this setting to use the packaged bundle of RDS."
    )


def test_a_server_that_refuses_the_limits_is_not_asked_again(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database_module.SESSION_PARAMETERS, "no_such_limit", "1")  # As an older server would.
    outcome = invoke("check")
    assert outcome.error_name == "ConfigurationError"
    assert '(42704: unrecognized configuration parameter "no_such_limit")' in outcome.text


def test_the_packaged_bundle_is_the_default_and_refuses_a_stranger(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DB_CA_BUNDLE")
    assert invoke("check").error_name == "TlsError"


def test_a_certificate_of_another_name_is_refused(invoke: Invoke, database: Database, secrets_manager: Store) -> None:
    secrets_manager(database.secret(host="127.0.0.1"))
    outcome = invoke("apply")
    assert outcome.error_name == "TlsError"
    assert outcome.text == (
        f"The server at 127.0.0.1:{database.server.port} presents a certificate for another name: IP address"
        " mismatch, certificate is not valid for '127.0.0.1'. No credentials were sent. Nothing was changed. An IP"
        " address or an alias is not in the certificate. Put the instance's own endpoint into the secret or the"
        " stack's parameter DatabaseHost:"
        "  aws rds describe-db-instances --query 'DBInstances[].Endpoint.Address'"
    )


@pytest.fixture(scope="module")
def server_without_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    version = os.environ.get("PG_VERSION")
    directory = tmp_path_factory.mktemp("without-tls")
    with running_server(directory, version=int(version) if version else None, settings={"ssl": "off"}) as server:
        PASSWORDS.add(server.admin_password)
        yield server


@pytest.mark.parametrize("sslmode", ["require", "prefer", "disable"])
def test_a_server_without_tls_is_never_spoken_to_in_plaintext(
    invoke: Invoke, secrets_manager: Store, server_without_tls: Server, sslmode: str
) -> None:
    port = server_without_tls.port
    secrets_manager(
        f"postgres://postgres:{server_without_tls.admin_password}@localhost:{port}/postgres?sslmode={sslmode}"
    )
    outcome = invoke("apply")
    assert outcome.error_name == "TlsError"
    assert outcome.text == (
        f"The server at localhost:{port} offers no TLS, and pg-hotfix never connects without it. No credentials were"
        " sent. Nothing was changed. Turn TLS on at the server; RDS always offers it, so the address in the secret or"
        " in the stack's parameter DatabaseHost may be wrong."
    )


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"N", "TlsError"),
        (b"Sgarbage that is no TLS at all", "TlsError"),
        # As during a failover, behind a load balancer, or when the server can't start a process.
        (b"", "DatabaseUnavailableError"),
        (b"S", "DatabaseUnavailableError"),
        (b"E", "DatabaseUnavailableError"),
        (b"\xff", "DatabaseUnavailableError"),
    ],
)
def test_not_one_byte_of_a_login_reaches_a_server_without_tls(
    invoke: Invoke, secrets_manager: Store, database: Database, answer: bytes, error: str
) -> None:
    received = b""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            nonlocal received
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE_SECONDS)
                received += connection.recv(8)
                connection.sendall(answer)
                if answer[:1] != b"S" and answer:
                    received += connection.recv(65_536)

        thread = threading.Thread(target=talk)
        thread.start()
        secrets_manager(database.secret(port=listener.getsockname()[1]))
        outcome = invoke("apply")
        thread.join(PATIENCE_SECONDS)
    assert outcome.error_name == error
    assert received == bytes.fromhex("0000000804d2162f")  # SSLRequest, and nothing after it.


# The login


def test_a_wrong_password_is_refused_after_one_fresh_read(
    invoke: Invoke, database: Database, secrets_manager: Store
) -> None:
    arn = secrets_manager(database.secret(password=new_password()))
    outcome = invoke("apply")
    assert outcome.error_name == "LoginError"
    assert outcome.text == (
        f"The database {database.name} at localhost:{database.server.port} refused the login of {database.user}"
        f' (28P01: password authentication failed for user "{database.user}"), also after the secret was read again.'
        " Nothing was changed. The role does not exist, has another password, or its password has expired:  SELECT"
        f" rolvaliduntil FROM pg_catalog.pg_roles WHERE rolname = '{database.user}';  Compare its password with the"
        f" secret:  aws secretsmanager describe-secret --secret-id {arn}"
    )


def test_a_rotated_password_is_read_afresh(invoke: Invoke, database: Database, secrets_manager: Store) -> None:
    assert invoke("check").result == "ready"
    rotated = new_password()
    database.run(f"ALTER ROLE {database.user} PASSWORD '{rotated}'")
    assert invoke("check").error_name == "LoginError"
    secrets_manager(database.secret(password=rotated))
    assert invoke("apply").result == "applied"


def test_a_warm_function_does_not_read_the_secret_again(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Outcome]
) -> None:
    assert invoke("check").result == "ready"
    # Secrets Manager is out of reach from here on.
    client = credentials.secrets_provider().client
    monkeypatch.setattr(
        client.meta.events, "emit_until_response", lambda *_, **__: pytest.fail("the secret was read again")
    )
    assert invoke("check").result == "ready"


def test_a_database_that_does_not_exist_is_named(invoke: Invoke, database: Database, secrets_manager: Store) -> None:
    secrets_manager(database.secret(dbname="nowhere"))
    outcome = invoke("check")
    assert outcome.error_name == "LoginError"
    assert outcome.text == (
        f"{database.user} cannot connect to the database nowhere at localhost:{database.server.port} (3D000: database"
        ' "nowhere" does not exist). Nothing was changed. Correct dbname in the secret, or the stack\'s parameter'
        " DatabaseName. These databases exist:  SELECT datname FROM pg_catalog.pg_database;"
    )


def test_a_role_that_may_not_connect_gets_the_grant(invoke: Invoke, database: Database) -> None:
    database.run(f"REVOKE CONNECT ON DATABASE {database.name} FROM PUBLIC, {database.user}")
    outcome = invoke("check")
    assert outcome.error_name == "LoginError"
    assert outcome.text == (
        f"{database.user} may not connect to the database {database.name} at localhost:{database.server.port}"
        f' (42501: permission denied for database "{database.name}"). Nothing was changed. Grant it: '
        f' GRANT CONNECT ON DATABASE "{database.name}" TO "{database.user}";'
    )
    paste(database, outcome.text)
    assert invoke("check").result == "ready"


def test_a_database_that_is_closed_gets_the_line_that_opens_it(invoke: Invoke, database: Database) -> None:
    as_admin(database, f"ALTER DATABASE {database.name} WITH ALLOW_CONNECTIONS false")
    outcome = invoke("check")
    assert outcome.error_name == "LoginError"
    assert outcome.text == (
        f"The database {database.name} at localhost:{database.server.port} accepts no connections (55000: database"
        f' "{database.name}" is not currently accepting connections). Nothing was changed. Find out who closed it; a'
        f' database whose DROP was interrupted can only be dropped. To open it:  ALTER DATABASE "{database.name}"'
        " WITH ALLOW_CONNECTIONS true;"
    )
    paste(database, outcome.text)
    assert invoke("check").result == "ready"


def as_admin(database: Database, sql: str) -> None:
    with database.server.connect() as admin:
        admin.run(sql)


def paste(database: Database, text: str) -> None:
    """The administrator runs the text's last line of SQL."""
    as_admin(database, text.rpartition("  ")[2])


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("ALTER ROLE {user} CONNECTION LIMIT 0", 'too many connections for role "{user}"'),
        ("ALTER DATABASE {name} CONNECTION LIMIT 0", 'too many connections for database "{name}"'),
    ],
    ids=["role", "database"],
)
def test_too_many_connections_are_worth_a_retry_and_get_the_line_that_allows_more(
    invoke: Invoke, database: Database, limit: str, message: str
) -> None:
    names = {"user": database.user, "name": database.name}
    as_admin(database, limit.format(**names))
    outcome = invoke("apply")
    of_whom = "database" if "DATABASE" in limit else "role"
    name = database.name if "DATABASE" in limit else database.user
    assert outcome.error_name == "DatabaseUnavailableError"
    assert outcome.line["retryable"] is True
    assert outcome.text == (
        f"The database {database.name} at localhost:{database.server.port} has no connection left for {database.user}"
        f" (53300: {message.format(**names)}). Nothing was changed. If it keeps failing, raise the {of_whom}'s limit:"
        f'  ALTER {of_whom.upper()} "{name}" CONNECTION LIMIT -1;'
    )
    paste(database, outcome.text)
    assert invoke("check").result == "ready"


def test_a_role_that_may_not_log_in_gets_the_line_that_lets_it(invoke: Invoke, database: Database) -> None:
    as_admin(database, f"ALTER ROLE {database.user} NOLOGIN")
    outcome = invoke("check")
    assert outcome.error_name == "LoginError"
    assert outcome.text == (
        f"The database {database.name} at localhost:{database.server.port} refused the login of {database.user}"
        f' (28000: role "{database.user}" is not permitted to log in), also after the secret was read again. Nothing'
        f' was changed. Let the role log in:  ALTER ROLE "{database.user}" LOGIN;'
    )
    paste(database, outcome.text)
    assert invoke("check").result == "ready"


def test_a_password_that_has_expired_is_among_what_to_look_at(invoke: Invoke, database: Database) -> None:
    as_admin(database, f"ALTER ROLE {database.user} VALID UNTIL '2020-01-01'")
    outcome = invoke("check")
    assert outcome.error_name == "LoginError"
    assert f'(28P01: password authentication failed for user "{database.user}")' in outcome.text
    line = f"SELECT rolvaliduntil FROM pg_catalog.pg_roles WHERE rolname = '{database.user}';"
    assert f"or its password has expired:  {line}" in outcome.text
    assert str(database.run(line)[0][0]).startswith("2020-01-01")


@contextmanager
def host_based_access(database: Database, line: str, *, first: bool = True) -> Iterator[None]:
    """The server's pg_hba.conf begins with the line, or holds nothing else."""
    file = database.server.ca_bundle.parent / "pg_hba.conf"
    before = file.read_text()
    try:
        file.write_text(f"{line}\n{before if first else ''}")
        as_admin(database, "SELECT pg_reload_conf()")
        yield
    finally:
        file.write_text(before)
        as_admin(database, "SELECT pg_reload_conf()")


NO_LINE = (
    "No line of the server's pg_hba.conf lets this role in from this host with TLS and a password. Correct the file,"
    " and load it:  SELECT * FROM pg_catalog.pg_hba_file_rules;  SELECT pg_catalog.pg_reload_conf();"
)
ADDRESS_AND_ROLE = 'for host "127.0.0.1", user "{user}", database "{name}", SSL encryption'


@pytest.mark.parametrize(
    ("line", "first", "message", "advice"),
    [
        (
            "hostssl all {user} 127.0.0.1/32 reject",
            True,
            f"pg_hba.conf rejects connection {ADDRESS_AND_ROLE}",
            NO_LINE,
        ),
        (
            "hostssl all postgres 127.0.0.1/32 scram-sha-256",
            False,
            f"no pg_hba.conf entry {ADDRESS_AND_ROLE}",
            NO_LINE,
        ),
        (
            "hostssl all {user} 127.0.0.1/32 ident",
            True,
            'Ident authentication failed for user "{user}"',
            (
                "The server's pg_hba.conf chooses how this role logs in. pg-hotfix sends the secret's password, and"
                " has no client certificate. Compare its password with the secret:  aws secretsmanager"
                " describe-secret --secret-id {arn}"
            ),
        ),
    ],
    ids=["rejected", "no entry", "another method"],
)
def test_what_pg_hba_says_is_shown_with_its_own_advice(
    invoke: Invoke, database: Database, secrets_manager: Store, line: str, first: bool, message: str, advice: str
) -> None:
    arn = secrets_manager(database.secret())
    names = {"user": database.user, "name": database.name, "arn": arn}
    with host_based_access(database, line.format(**names), first=first):
        outcome = invoke("check")
    assert outcome.error_name == "LoginError"
    assert outcome.text == (
        f"The database {database.name} at localhost:{database.server.port} refused the login of {database.user}"
        f" (28000: {message.format(**names)}), also after the secret was read again. Nothing was changed."
        f" {advice.format(**names)}"
    )


# Read-only servers


@pytest.mark.parametrize("action", ["plan", "apply", "check"])
def test_a_read_only_role_is_refused(invoke: Invoke, database: Database, action: str) -> None:
    database.run(f"ALTER ROLE {database.user} SET default_transaction_read_only = on")
    outcome = invoke(action)
    assert outcome.error_name == "ReadOnlyDatabaseError"
    assert outcome.text == (
        f"The database {database.name} at localhost:{database.server.port} cannot be changed:"
        f" default_transaction_read_only is on for {database.user}. Nothing was changed. After a failover, run it"
        " again. If that fails as well, the address is not the writer's. Put the writer's endpoint into the secret or"
        " the stack's parameter DatabaseHost:  aws rds describe-db-clusters --query 'DBClusters[].Endpoint'"
    )


def test_what_is_applied_already_can_be_seen_on_a_read_only_server(invoke: Invoke, database: Database) -> None:
    invoke("apply")
    database.run(f"ALTER ROLE {database.user} SET default_transaction_read_only = on")
    assert [invoke(action).result for action in ("plan", "apply", "verify")] == [
        "already_applied",
        "already_applied",
        "verified",
    ]


def test_a_replica_is_refused(
    invoke: Invoke, secrets_manager: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = int(os.environ["PG_VERSION"]) if "PG_VERSION" in os.environ else None
    with running_server(tmp_path, version=version) as server:
        PASSWORDS.add(server.admin_password)
        with server.connect() as admin:
            admin.run("CREATE TABLE public.drivers (id int); CHECKPOINT")
        ca_bundle = server.ca_bundle
    # A cluster with this file stays in recovery and serves readers, as a replica does.
    signal = ca_bundle.parent / "standby.signal"
    signal.touch()
    os.chown(signal, *(lambda status: (status.st_uid, status.st_gid))(ca_bundle.parent.stat()))
    with running_server(tmp_path, version=version) as server:
        secrets_manager(
            {
                "username": "postgres",
                "password": server.admin_password,
                "host": "localhost",
                "port": server.port,
                "dbname": "postgres",
            }
        )
        monkeypatch.setenv("DB_CA_BUNDLE", str(server.ca_bundle))
        outcomes = {action: invoke(action) for action in ("plan", "apply", "check")}
        port = server.port
    assert {outcome.error_name for outcome in outcomes.values()} == {"ReadOnlyDatabaseError"}
    assert outcomes["apply"].text == (
        f"The database postgres at localhost:{port} cannot be changed: it is a replica, in recovery. Nothing was"
        " changed. After a failover, run it again. If that fails as well, the address is not the writer's. Put the"
        " writer's endpoint into the secret or the stack's parameter DatabaseHost:  aws rds describe-db-clusters"
        " --query 'DBClusters[].Endpoint'"
    )


# The limits in force


def test_the_server_enforces_every_limit_of_the_session(
    invoke: Invoke, database: Database, write_hotfix: Callable[..., str]
) -> None:
    names = [
        "lock_timeout",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
        "client_connection_check_interval",
    ]
    table = "CREATE TABLE seen AS SELECT name, setting, source FROM pg_settings"
    hotfix_id = write_hotfix(f"{table}; ALTER TABLE drivers ADD COLUMN note text;", "public.drivers.note text")
    assert invoke("apply", hotfix_id).result == "applied"
    seen = {name: (setting, source) for name, setting, source in database.run("SELECT * FROM public.seen")}
    assert {name: seen[name] for name in names} == {
        "lock_timeout": ("10", "session"),  # of the first attempt
        "statement_timeout": ("5000" if "transaction_timeout" in seen else "1250", "session"),
        "idle_in_transaction_session_timeout": ("1000", "client"),
        "client_connection_check_interval": ("500", "client"),
    }
    assert seen["tcp_keepalives_idle"][0] == "5"
    if "transaction_timeout" in seen:
        assert seen["transaction_timeout"] == ("5500", "session")


def test_a_server_that_answers_too_late_is_hung_up_on_and_stops_its_work(
    invoke: Invoke, database: Database, write_hotfix: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = derive_limits(read_settings(os.environ), 55_000)
    patient = {"statement_timeout_ms": 20_000, "transaction_timeout_ms": 20_000, "socket_timeout_ms": 500}
    monkeypatch.setattr(connect, "derive_limits", lambda *_: replace(limits, **patient))
    outcome = invoke("apply", write_hotfix("SELECT pg_sleep(15);", "public.drivers.note text"))
    assert "was under way (timed out)" in outcome.text  # The error is alive still, and with it its traceback.
    until(lambda: not database.run("SELECT FROM pg_stat_activity WHERE application_name = 'pg-hotfix'"))


def test_too_little_time_is_refused_before_anything_is_contacted(invoke: Invoke) -> None:
    outcome = invoke("apply", seconds=2)
    assert outcome.error_name == "ConfigurationError"
    assert "and needs at least 4000 ms to work and to report." in outcome.text


def test_a_role_whose_own_settings_change_quoting_and_encoding_is_served_all_the_same(
    invoke: Invoke, database: Database, write_hotfix: Callable[..., str]
) -> None:
    encoding = f"ALTER ROLE {database.user} SET client_encoding = 'LATIN1'"
    database.run(f"{encoding}; ALTER ROLE {database.user} SET standard_conforming_strings = off")
    hotfix_id = write_hotfix(
        r"""ALTER TABLE drivers ADD COLUMN IF NOT EXISTS "größe\ 😀" text DEFAULT 'a\b';""",
        r"""public.drivers."größe\ 😀" text default 'a\b'::text""",
    )
    assert invoke("apply", hotfix_id).result == "applied"


def test_a_role_whose_own_settings_turn_limits_off_is_limited_all_the_same(
    invoke: Invoke, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    database.run(
        f"ALTER ROLE {database.user} SET lock_timeout = 0; ALTER ROLE {database.user} SET statement_timeout = 0"
    )
    with database.connect() as other:
        other.run("BEGIN; SELECT * FROM public.drivers")
        assert invoke("apply", HOTFIX).error_name == "LockBusyError"
