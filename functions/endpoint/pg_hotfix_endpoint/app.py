"""The Lambda function that calls the endpoint which failed in the incident, and tells how it answered.

A function and not an HTTP task of Step Functions: that ends the whole execution, without a report of a fix that is
there, when the endpoint answers a picture or what is no text (States.Runtime, which nothing catches).

https://docs.aws.amazon.com/step-functions/latest/dg/call-https-apis.html#unsupported-http-task-responses
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

# For the connection and for the answer, each: an endpoint that takes longer does not work for its users either. GET
# gets what HEAD leaves of both together.
SECONDS = 10.0
SHORTEST_SECONDS = 1.0
# Answers to HEAD after which GET is called. 405 and 501 say that the server has no HEAD
# (https://www.rfc-editor.org/rfc/rfc9110#section-9.1). Some routers say it by 404: Gin, Fastify 3, HTTP APIs of API
# Gateway; and REST APIs of API Gateway by 403
# (https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html).
WITHOUT_HEAD = {403, 404, 405, 501}
# What may be otherwise in a moment. After any ADD COLUMN a session that has prepared SELECT * fails with "cached plan
# must not change result type" until it prepares that again (docs/safety.md).
PASSING = {429, 500, 502, 503, 504}
# Secrets Manager's own words for that; so is any of its answers from 500 on.
THROTTLED = {"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"}
# The function has 30 s in all: 2 tries of at most 2 + 3 s, and 20 s for the calls.
AWS_CONFIG = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2, "mode": "standard"})
# https://www.rfc-editor.org/rfc/rfc9110#section-5.5
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
NO_HOST = "the parameter EndpointUrl holds no host and port that could be looked up"
USER_AGENT = "pg-hotfix"


class EndpointUnavailableError(Exception):
    """No answer, or one that may be otherwise in a moment. Whether it was called is not known; a HEAD or GET may be
    repeated."""


class EndpointRefusedError(Exception):
    """An answer that no further try will change."""


def lambda_handler(_event: object, _context: object) -> dict[str, Any]:
    """The endpoint has answered with success, 200 to 299. Returns {"status": its status, "method": HEAD or GET}; what
    else it answered is people's data, and was not read. A redirection is not followed: the token is for this host.

    Raises:
        EndpointUnavailableError, EndpointRefusedError: the text goes on after the URL.
    """
    return call(os.environ["ENDPOINT_URL"], read_token(os.environ["ENDPOINT_TOKEN_SECRET_ARN"]))


def call(url: str, token: str, connect: Callable[..., http.client.HTTPConnection] | None = None) -> dict[str, Any]:
    """The endpoint was called by HEAD and, if its server has no HEAD there, once more by GET, which then decides.
    `connect` makes the connection, if not one by HTTPS with a verified certificate."""
    if not HEADER_VALUE.fullmatch(token):
        raise EndpointRefusedError("was not called: the token holds what no header may hold")
    connect = connect or http.client.HTTPSConnection
    end = time.monotonic() + 2 * SECONDS
    method, status = "HEAD", read_status(url, "HEAD", token, connect, SECONDS)
    if status in WITHOUT_HEAD:
        left = max(SHORTEST_SECONDS, (end - time.monotonic()) / 2)
        method, status = "GET", read_status(url, "GET", token, connect, left)
    if 200 <= status <= 299:
        return {"status": status, "method": method}
    raise (EndpointUnavailableError if status in PASSING else EndpointRefusedError)(
        f"answered {status} to {method} instead of 200 to 299"
    )


def read_status(
    url: str, method: str, token: str, connect: Callable[..., http.client.HTTPConnection], seconds: float
) -> int:
    """The status of the answer, whatever it is. The connection and the answer took at most `seconds`, each."""
    try:
        asked = urlsplit(url)
        connection = connect(asked.hostname or "", asked.port, timeout=seconds)
    except (ValueError, http.client.InvalidURL) as error:
        raise EndpointRefusedError(f"was not called: {NO_HOST}") from error
    path = (asked.path or "/") + (f"?{asked.query}" if asked.query else "")
    try:
        connection.request(method, path, headers={"Authorization": token, "User-Agent": USER_AGENT})
        return connection.getresponse().status
    except ssl.SSLCertVerificationError as error:
        raise EndpointRefusedError(f"has no certificate for {asked.hostname} ({error.verify_message})") from error
    except (OSError, http.client.HTTPException) as error:
        raise EndpointUnavailableError(f"could not be called by {method} ({type(error).__name__})") from error
    except UnicodeError as error:  # A label of the host name is empty, or longer than 63 characters.
        raise EndpointRefusedError(f"was not called: {NO_HOST}") from error
    finally:
        connection.close()


def read_token(secret_arn: str) -> str:
    """The whole value of the secret, read at each call: a new token counts at once.

    Raises:
        EndpointUnavailableError: Secrets Manager did not answer, or is busy; the endpoint was not called.
        EndpointRefusedError: it refused, or the secret is no text.
    """
    try:
        client = boto3.client("secretsmanager", config=AWS_CONFIG)
        token = client.get_secret_value(SecretId=secret_arn).get("SecretString", "")
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        passing = code in THROTTLED or status >= 500
        raise (EndpointUnavailableError if passing else EndpointRefusedError)(
            f"was not called: {code} for its token"
        ) from error
    except BotoCoreError as error:
        raise EndpointUnavailableError(f"was not called: {type(error).__name__} for its token") from error
    if not token.strip():
        raise EndpointRefusedError("was not called: the secret of its token holds no text")
    return str(token.strip())
