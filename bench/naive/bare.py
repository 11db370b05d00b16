"""The bare calls of pg8000 that add the column and look at it: what pg-hotfix's warm runs are compared with.

Secret and certificates are remembered from the first invocation; every invocation makes its own connection.
"""

import json
import os
import socket
import ssl
from functools import cache
from typing import Any

import boto3
from pg8000.native import Connection

ALTER = 'ALTER TABLE "drivers" ADD COLUMN IF NOT EXISTS "active_since" TIMESTAMPTZ NULL'
COLUMN = (
    "SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns"
    " WHERE table_schema = 'public' AND table_name = 'drivers' AND column_name = 'active_since'"
)


@cache
def read_secret() -> dict[str, Any]:
    client = boto3.client("secretsmanager")
    secret: dict[str, Any] = json.loads(client.get_secret_value(SecretId=os.environ["DB_SECRET_ARN"])["SecretString"])
    return secret


@cache
def read_certificates() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=os.environ["DB_CA_BUNDLE"])


def connect_at_once(secret: dict[str, Any]) -> socket.socket:
    """pg8000 sends a message in two pieces, and the kernel holds the second one back until the first is acknowledged:
    40 ms on Linux. https://man7.org/linux/man-pages/man7/tcp.7.html"""
    plain = socket.create_connection((secret["host"], secret["port"]))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain


def lambda_handler(event: dict[str, Any], context: object) -> list[list[Any]]:  # noqa: ARG001 - Lambda passes it
    secret = read_secret()
    with Connection(
        secret["username"],
        host=secret["host"],
        port=secret["port"],
        database=secret["dbname"],
        password=secret["password"],
        ssl_context=read_certificates(),
        sock=connect_at_once(secret) if event["nodelay"] else None,
    ) as connection:
        connection.run(ALTER)
        columns: list[list[Any]] = connection.run(COLUMN)
    return columns
