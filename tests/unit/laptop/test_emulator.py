"""What the emulator is told, and how its answers are read."""

from typing import Any

import pytest

from laptop.emulator import read_invocation, read_settings
from laptop.errors import LocalError


def template(**variables: Any) -> dict[str, Any]:
    return {
        "Parameters": {"Port": {"Default": 5432}, "SecretArn": {"Type": "String"}, "Memory": {"Default": 512}},
        "Globals": {"Function": {"Timeout": 55}},
        "Resources": {
            "MigrateFunction": {
                "Properties": {
                    "Handler": "app.lambda_handler",
                    "MemorySize": {"Ref": "Memory"},
                    "LoggingConfig": {"LogFormat": "JSON"},
                    "Environment": {"Variables": variables},
                }
            }
        },
    }


def test_settings_are_those_of_the_template_with_each_parameter_at_its_default() -> None:
    settings = read_settings(template(DB_PORT={"Ref": "Port"}, SERVICE="pg-hotfix"), {"SQL_DIR": "sql"})
    assert (settings.timeout_seconds, settings.memory_mb, settings.log_format) == (55, 512, "JSON")
    assert settings.environment == {"DB_PORT": "5432", "SERVICE": "pg-hotfix", "SQL_DIR": "sql"}


def test_a_local_value_stands_in_for_what_only_a_stack_has() -> None:
    settings = read_settings(template(DB_SECRET_ARN={"Ref": "SecretArn"}), {"DB_SECRET_ARN": "arn:local"})
    assert settings.environment == {"DB_SECRET_ARN": "arn:local"}


def test_the_endpoint_inside_the_vpc_is_left_out() -> None:
    settings = read_settings(template(AWS_ENDPOINT_URL_SECRETS_MANAGER={"Fn::If": ["A", "b", "c"]}), {})
    assert settings.environment == {}


@pytest.mark.parametrize("value", [{"Ref": "SecretArn"}, {"Fn::GetAtt": ["Topic", "Arn"]}, {"Ref": "Topic"}])
def test_a_value_that_only_a_stack_can_compute_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(LocalError) as refused:
        read_settings(template(TOPIC=value), {})
    assert str(refused.value) == (
        "template.yaml computes TOPIC of MigrateFunction in a stack only: give it a value in laptop/environment.py."
    )


def test_an_answer_comes_with_the_lines_that_were_logged_meanwhile() -> None:
    output = (
        "START RequestId: 1 Version: $LATEST\n"
        '{"level": "INFO", "message": "hotfix finished"}\n'
        '{"_aws": {}, "Applied": [1]}\n'
        "END RequestId: 1\n"
    )
    invocation = read_invocation('{"result": "applied"}', output, 0.1)
    assert (invocation.payload, invocation.error_type) == ({"result": "applied"}, None)
    assert invocation.logs == [{"level": "INFO", "message": "hotfix finished"}]
    assert invocation.metrics == [{"_aws": {}, "Applied": [1]}]


@pytest.mark.parametrize(
    ("body", "error_type", "error_message"),
    [
        ('{"errorType": "LoginError", "errorMessage": "No.\\nNo.", "stackTrace": []}', "LoginError", "No.\nNo."),
        ("Task timed out after 55.00 seconds", "Sandbox.Timedout", "Task timed out after 55.00 seconds"),
        ("RequestId: 1 Error: Runtime exited", "Runtime.ExitError", "RequestId: 1 Error: Runtime exited"),
        ("null", None, None),
    ],
)
def test_a_failure_is_told_from_an_answer(body: str, error_type: str | None, error_message: str | None) -> None:
    invocation = read_invocation(body, "", 0.1)
    assert (invocation.error_type, invocation.error_message) == (error_type, error_message)
