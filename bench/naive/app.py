"""Adds the column as tutorials on Lambda and PostgreSQL write it: what pg-hotfix's cold start is compared with.

Not to be used: it waits for the lock without a limit, proves nothing, and any column of that name will do.
"""

import json
import os
import ssl
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from pg8000.native import Connection

ALTER = 'ALTER TABLE "drivers" ADD COLUMN IF NOT EXISTS "active_since" TIMESTAMPTZ NULL'
COLUMN = (
    "SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns"
    " WHERE table_schema = 'public' AND table_name = 'drivers' AND column_name = 'active_since'"
)

logger = Logger(service="naive")
metrics = Metrics(namespace="Naive", service="naive")
secrets_manager = boto3.client("secretsmanager")


@logger.inject_lambda_context
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001 - Lambda passes it
    secret = json.loads(secrets_manager.get_secret_value(SecretId=os.environ["DB_SECRET_ARN"])["SecretString"])
    with Connection(
        secret["username"],
        host=secret["host"],
        port=secret["port"],
        database=secret["dbname"],
        password=secret["password"],
        ssl_context=ssl.create_default_context(cafile=os.environ["DB_CA_BUNDLE"]),
    ) as connection:
        if event["action"] == "apply":
            connection.run(ALTER)
        columns = connection.run(COLUMN) if event["action"] != "check" else []
    logger.info("done", columns=columns)
    metrics.add_metric("Done", MetricUnit.Count, 1)
    return {"result": "done", "columns": columns}
