"""The Lambda function that calls the endpoint which failed in the incident, and tells how it answered.

A function and not an HTTP task of Step Functions: that ends the whole execution, without a report of a fix that is
there, when the endpoint answers a picture or what is no text (States.Runtime, which nothing catches).

https://docs.aws.amazon.com/step-functions/latest/dg/call-https-apis.html#unsupported-http-task-responses
"""

from __future__ import annotations

import http.client
import os
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

# For the connection and for the answer, each: an endpoint that takes longer does not work for its users either.
SECONDS = 10.0
# What may be otherwise in a moment. After any ADD COLUMN a prepared SELECT * fails once: "cached plan must not change
# result type" (docs/safety.md).
PASSING = {429, 500, 502, 503, 504}
USER_AGENT = "pg-hotfix"


class EndpointUnavailableError(Exception):
    """No answer, or one that may be otherwise in a moment. Whether it was called is not known; a HEAD or GET may be
    repeated."""


class EndpointRefusedError(Exception):
    """An answer that no further try will change."""


def lambda_handler(_event: object, _context: object) -> dict[str, int]:
    """The endpoint has answered with success, 200 to 299. Returns {"status": its status}; what else it answered is
    people's data, and was not read. A redirection is not followed: the token is for this host.

    Raises:
        EndpointUnavailableError, EndpointRefusedError: the text goes on after "HEAD https://...".
    """
    url, method = os.environ["ENDPOINT_URL"], os.environ["ENDPOINT_METHOD"]
    return {"status": call(url, method, read_token(os.environ["ENDPOINT_TOKEN_SECRET_ARN"]))}


def call(url: str, method: str, token: str, connect: Callable[..., http.client.HTTPConnection] | None = None) -> int:
    """The status of a success. `connect` makes the connection, if not one by HTTPS with a verified certificate."""
    asked = urlsplit(url)
    connection = (connect or http.client.HTTPSConnection)(asked.hostname or "", asked.port, timeout=SECONDS)
    path = (asked.path or "/") + (f"?{asked.query}" if asked.query else "")
    try:
        connection.request(method, path, headers={"Authorization": token, "User-Agent": USER_AGENT})
        status = connection.getresponse().status
    except ssl.SSLCertVerificationError as error:
        raise EndpointRefusedError(f"has no certificate for {asked.hostname} ({error.verify_message})") from error
    except (OSError, http.client.HTTPException) as error:
        raise EndpointUnavailableError(f"could not be called ({type(error).__name__})") from error
    except ValueError:
        # Its text would quote the token.
        raise EndpointRefusedError("could not be called: the token holds what no header may hold") from None
    finally:
        connection.close()
    if 200 <= status <= 299:
        return status
    raise (EndpointUnavailableError if status in PASSING else EndpointRefusedError)(
        f"answered {status} instead of 200 to 299"
    )


def read_token(secret_arn: str) -> str:
    """The whole value of the secret, read at each call: a new token counts at once.

    Raises:
        EndpointUnavailableError: Secrets Manager did not answer; the endpoint was not called.
        EndpointRefusedError: it refused, or the secret is no text.
    """
    try:
        token = boto3.client("secretsmanager").get_secret_value(SecretId=secret_arn).get("SecretString", "")
    except ClientError as error:
        raise EndpointRefusedError(f"was not called: {error.response['Error']['Code']} for its token") from error
    except BotoCoreError as error:
        raise EndpointUnavailableError(f"was not called: {type(error).__name__} for its token") from error
    if not token.strip():
        raise EndpointRefusedError("was not called: the secret of its token holds no text")
    return str(token.strip())
