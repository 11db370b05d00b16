"""Which stack of which account a command is for, and what is wrong when AWS refuses, in a sentence."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from typing import Any

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError

from laptop.errors import LocalError
from laptop.places import PROJECT

SAMCONFIG = PROJECT / "samconfig.toml"
# An answer late by more than this is no answer; a lost connection is tried again.
QUICK = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 4})
LOG_IN_AGAIN = "Log in again:  aws sso login, or renew the variables AWS_ACCESS_KEY_ID, ... of this shell."
# What AWS answers when it does not accept who asks.
# https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
STALE_LOGIN = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
MISSING = {"ResourceNotFoundException", "StateMachineDoesNotExist"}
# What a call to AWS can end in. ResponseParserError: something between, such as a proxy, has answered.
FAILURES = (exceptions.BotoCoreError, exceptions.ClientError, ResponseParserError)
NO_LOGIN = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
    exceptions.LoginError,
)
NOTHING_STARTED = "Nothing was started."


@dataclass(frozen=True)
class Stack:
    """A deployed stack, as its caller sees it. `identity` is the last part of the caller's ARN: a user's name, or that
    of a role's session."""

    name: str
    partition: str
    region: str
    account: str
    identity: str
    session: boto3.Session

    @property
    def function(self) -> str:
        return f"{self.name}-migrate"

    @property
    def machine_arn(self) -> str:
        return f"arn:{self.partition}:states:{self.region}:{self.account}:stateMachine:{self.name}-hotfix"

    def __str__(self) -> str:
        return f"{self.name} ({self.account}, {self.region})"


def environments() -> dict[str, dict[str, Any]]:
    """The environments of samconfig.toml, each with the parameters of its deployment. `default` is dev.

    https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/serverless-sam-cli-config.html

    Raises:
        LocalError: the file can't be read; nothing was started.
    """
    try:
        config = tomllib.loads(SAMCONFIG.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LocalError(
            f"{SAMCONFIG} can't be read: {error}. {NOTHING_STARTED} Name the stack:  --stack NAME"
        ) from error
    found = {}
    for name, section in config.items():
        if isinstance(section, dict):
            parameters = {
                **section.get("global", {}).get("parameters", {}),
                **section.get("deploy", {}).get("parameters", {}),
            }
            if "stack_name" in parameters:
                found["dev" if name == "default" else name] = parameters
    return found


def find_stack(environment: str, name: str) -> Stack:
    """The stack of that environment, or of that name if one is given, in the account that the caller is logged in to.
    No right is needed to learn this; whether the stack exists is not looked at.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html

    Raises:
        LocalError: there is no such environment, no region or no login; nothing was started.
    """
    known = environments() if environment else {}
    if environment and environment not in known:
        raise LocalError(
            f"samconfig.toml has no environment {environment!r}. {NOTHING_STARTED} Its environments are "
            f"{', '.join(known)}. Or name the stack:  --stack pg-hotfix-prod"
        )
    parameters = known.get(environment, {})
    # SAM deployed to the region that samconfig.toml names, if it names one. boto3 itself reads no AWS_REGION.
    region = str(parameters.get("region") or "") or os.environ.get("AWS_REGION") or None
    try:
        session = boto3.Session(region_name=region)
        if not session.region_name:
            raise exceptions.NoRegionError
        me = session.client("sts", config=QUICK).get_caller_identity()
    except FAILURES as error:
        raise explain(error, "AWS does not say who you are", NOTHING_STARTED) from error
    except (OSError, ValueError) as error:
        # A credential_process that is missing or prints no JSON, or a URL that is none.
        raise LocalError(
            f"Your AWS profile can't be used ({type(error).__name__}: {error}). {NOTHING_STARTED} Correct it in"
            " ~/.aws/config, or name another:  export AWS_PROFILE=..."
        ) from error
    return Stack(
        name=name or str(parameters["stack_name"]),
        partition=me["Arn"].split(":")[1],
        region=session.region_name,
        account=me["Account"],
        identity=re.split("[/:]", me["Arn"])[-1],
        session=session,
    )


def explain(error: Exception, what: str, state: str, command: str = "") -> LocalError:
    """Says what failed and why, what state things are in, and what to do; the command to type, if there is one, is the
    last line."""
    advice = advise(error, what, state)
    return LocalError(f"{advice}\n{command}" if command else advice)


def advise(error: Exception, what: str, state: str) -> str:
    reason = str(error).rstrip(".")
    match error:
        case exceptions.NoRegionError():
            return f"No AWS region is set. {state} Set the stack's region:  export AWS_REGION=sa-east-1"
        case exceptions.ProfileNotFound():
            return f"{error}. {state} The profiles of this machine:  aws configure list-profiles"
        case exceptions.InvalidConfigError() | exceptions.ConfigParseError() | exceptions.InvalidRegionError():
            return f"Your AWS configuration can't be used ({reason}). {state} Correct ~/.aws/config."
        case _ if isinstance(error, NO_LOGIN):
            return f"There are no AWS credentials ({reason}). {state} Log in:  aws sso login, or set AWS_PROFILE."
        case exceptions.SSLError():
            return (
                f"{what} ({reason}). {state} If your company has a certificate authority of its own, name its file:"
                "  export AWS_CA_BUNDLE=/path/to/company.pem"
            )
        case exceptions.ClientError():
            return advise_refused(error, what, state)
        case ResponseParserError():
            return f"{what}: something other than AWS has answered, such as a proxy. {state} Check HTTPS_PROXY."
        case _:
            return f"{what} ({reason}). {state} Check the network and the region."


def advise_refused(error: exceptions.ClientError, what: str, state: str) -> str:
    code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "").rstrip(".")
    if message.startswith(("Signature expired", "Signature not yet current")):
        return f"This machine's clock is wrong ({message}). {state} Set it."
    if code in STALE_LOGIN:
        return f"AWS does not accept these credentials ({code}: {message}). {state} {LOG_IN_AGAIN}"
    if code in MISSING:
        where = "Check AWS_PROFILE, AWS_REGION and --stack, or deploy it first."
        return f"{what}: it does not exist ({message}). {state} {where}"
    if "AccessDenied" in code:
        return f"{what}: it is not allowed ({message}). {state} Ask whoever administers the account for it."
    return f"{what} ({code}: {message}). {state}"
