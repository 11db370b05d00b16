"""The socket, the roots and the client that a run relies on."""

from __future__ import annotations

import socket
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pg_hotfix.file.hotfix_file import load_hotfix
from pg_hotfix.look import Seen, hash_plan
from pg_hotfix.server import credentials, transport
from pg_hotfix.server.credentials import Target
from pg_hotfix.server.limits import derive_limits
from pg_hotfix.settings import CERTIFICATES, read_settings

if TYPE_CHECKING:
    from pg_hotfix.server.session import Session

SETTINGS = read_settings({"DB_SECRET_ARN": "arn", "SQL_DIR": "sql"})
LIMITS = derive_limits(SETTINGS, 55_000)


def test_a_vanished_peer_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = Target("127.0.0.1", listener.getsockname()[1], "kaviar", "app", "secret")
        with transport.connect_socket(target, LIMITS) as plain:
            options = {
                name: plain.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_NODELAY", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            }
            assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert plain.gettimeout() == LIMITS.socket_timeout_ms / 1000
    expected = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
    assert options == expected | {"TCP_USER_TIMEOUT": LIMITS.socket_timeout_ms}


def test_the_roots_of_rds_and_of_amazon_are_trusted_and_nobody_else() -> None:
    context = transport.tls_context(CERTIFICATES / "rds-ca-bundle.pem")
    names = [str(certificate["subject"]) for certificate in context.get_ca_certs()]
    assert len(names) == 92
    assert len([name for name in names if "Amazon RDS" in name]) == 87
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_secrets_manager_is_given_up_long_before_the_function_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "sa-east-1")
    credentials.secrets_provider.cache_clear()
    config: Any = credentials.secrets_provider().client.meta.config
    credentials.secrets_provider.cache_clear()
    attempts = config.retries["total_max_attempts"]
    assert attempts * (config.connect_timeout + config.read_timeout) <= 10


@pytest.mark.parametrize("change", ["host", "port", "name", "database_oid"])
def test_a_plan_is_bound_to_its_database(change: str) -> None:
    hotfix = load_hotfix(SETTINGS.sql_dir, "20260212092000_add_drivers_active_since")

    def hash_with(**facts: Any) -> str:
        known = {"host": "db", "port": 5432, "name": "kaviar", "database_oid": 5} | facts
        return hash_plan(cast("Session", SimpleNamespace(facts=SimpleNamespace(**known))), hotfix, Seen((), ()))

    assert hash_with() == hash_with()
    assert hash_with(**{change: "another"}) != hash_with()
