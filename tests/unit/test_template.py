"""The template holds what the README and SECURITY.md promise; the checks run on what SAM makes of it too."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import boto3
import pytest
from samcli.yamlhelper import yaml_parse  # type: ignore[import-untyped]
from samtranslator.parser.parser import Parser  # type: ignore[import-untyped]
from samtranslator.translator.translator import Translator  # type: ignore[import-untyped]

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "template.yaml").read_text()
SAMCONFIG_TEXT = (PROJECT / "samconfig.toml").read_text()
SAMCONFIG = tomllib.loads(SAMCONFIG_TEXT)

TEMPLATE: dict[str, Any] = yaml_parse(TEXT)
PARAMETERS: dict[str, Any] = TEMPLATE["Parameters"]
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
INTERFACE: dict[str, Any] = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]

# AWS offers no resource for these: https://docs.aws.amazon.com/service-authorization/latest/reference/
ACTIONS_WITHOUT_RESOURCE = {
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
ENVIRONMENT = {
    "DB_SECRET_ARN",
    "DB_HOST",
    "DB_PORT",
    "DB_NAME",
    "LOCK_WAIT_SECONDS",
    "STATEMENT_TIMEOUT_MS",
    "ENVIRONMENT",
    "POWERTOOLS_SERVICE_NAME",
    "POWERTOOLS_METRICS_NAMESPACE",
    "POWERTOOLS_LOG_LEVEL",
}
# The name that boto3 reads; set only with the endpoint of the stack.
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_SECRETS_MANAGER"
# `sam remote invoke` invokes a second time after about this long without an answer.
REINVOKED_AFTER_SECONDS = 60
LONGEST_STACK_NAME = 64 - len("-migrate")


def transform() -> dict[str, Any]:
    """What CloudFormation gets: the template after SAM's transform, as if its code were uploaded."""
    template = yaml_parse(TEXT)
    template["Resources"]["MigrateFunction"]["Properties"]["CodeUri"] = "s3://bucket/function"
    template["Resources"]["ReviewedSql"]["Properties"]["ContentUri"] = "s3://bucket/layer"
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name="sa-east-1"))
    values = {name: parameter["Default"] for name, parameter in PARAMETERS.items() if "Default" in parameter}
    transformed: dict[str, Any] = translator.translate(template, values)
    return transformed


TRANSFORMED = transform()["Resources"]


def of_type(name: str) -> dict[str, Any]:
    return {key: resource for key, resource in TRANSFORMED.items() if resource["Type"] == name}


def properties(name: str) -> dict[str, Any]:
    found: dict[str, Any] = TRANSFORMED[name]["Properties"]
    return found


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def branches(value: Any) -> list[Any]:
    """The value, or both of what a condition may choose, without what it leaves out."""
    if isinstance(value, dict) and set(value) == {"Fn::If"}:
        return [found for branch in value["Fn::If"][1:] for found in branches(branch)]
    return [] if value == {"Ref": "AWS::NoValue"} else [value]


def statements(policy: dict[str, Any]) -> list[dict[str, Any]]:
    return [found for entry in policy["Statement"] for found in branches(entry)]


def role_statements() -> list[dict[str, Any]]:
    return [
        statement
        for policy in properties("MigrateRole")["Policies"]
        for statement in statements(policy["PolicyDocument"])
    ]


def all_statements() -> list[dict[str, Any]]:
    return [
        *role_statements(),
        *statements(properties("MigrateRole")["AssumeRolePolicyDocument"]),
        *statements(properties("SecretsManagerEndpoint")["PolicyDocument"]),
    ]


def allowing(prefix: str) -> list[dict[str, Any]]:
    return [
        statement
        for statement in role_statements()
        if statement["Effect"] == "Allow" and any(action.startswith(prefix) for action in as_list(statement["Action"]))
    ]


def egress() -> list[dict[str, Any]]:
    rules = properties("MigrateSecurityGroup")["SecurityGroupEgress"]
    return [found for rule in rules for found in branches(rule)]


# The whole


def test_sections_stand_in_reading_order() -> None:
    assert list(TEMPLATE) == [
        "AWSTemplateFormatVersion",
        "Transform",
        "Description",
        "Metadata",
        "Parameters",
        "Rules",
        "Conditions",
        "Globals",
        "Resources",
        "Outputs",
    ]


def test_no_arn_is_bound_to_one_partition_account_or_region() -> None:
    code = json.dumps({section: TEMPLATE[section] for section in ("Conditions", "Globals", "Resources")})
    assert "arn:aws" not in code
    assert not re.search(r"\d{12}", code)
    assert not re.search(r"\b[a-z]{2}-[a-z]+-\d\b", code)


def test_description_states_how_long_the_name_of_a_stack_may_be() -> None:
    assert f"at most {LONGEST_STACK_NAME} characters" in TEMPLATE["Description"]
    assert properties("MigrateFunction")["FunctionName"] == {"Fn::Sub": "${AWS::StackName}-migrate"}


# The function


def test_function_runs_on_python_3_13_and_arm64_with_active_tracing() -> None:
    function = properties("MigrateFunction")
    assert function["Runtime"] == "python3.13"
    assert function["Architectures"] == ["arm64"]
    assert function["Handler"] == "app.lambda_handler"
    assert function["TracingConfig"] == {"Mode": "Active"}


def test_time_limits_nest_and_end_before_a_second_invocation() -> None:
    timeout_seconds = properties("MigrateFunction")["Timeout"]
    lock, statement = PARAMETERS["LockWaitSeconds"], PARAMETERS["StatementTimeoutMs"]
    assert lock["MaxValue"] + statement["MaxValue"] / 1000 < timeout_seconds < REINVOKED_AFTER_SECONDS


def test_no_safety_limit_can_be_turned_off_by_0() -> None:
    assert PARAMETERS["LockWaitSeconds"]["MinValue"] > 0
    assert PARAMETERS["StatementTimeoutMs"]["MinValue"] > 0


def test_environment_has_exactly_the_names_of_the_contract() -> None:
    assert set(properties("MigrateFunction")["Environment"]["Variables"]) == ENVIRONMENT | {ENDPOINT_VARIABLE}


def test_safety_limits_have_the_defaults_of_the_contract() -> None:
    assert PARAMETERS["LockWaitSeconds"]["Default"] == 30
    assert PARAMETERS["StatementTimeoutMs"]["Default"] == 5000


def test_environment_carries_no_secret() -> None:
    variables = properties("MigrateFunction")["Environment"]["Variables"]
    assert not [name for name in variables if re.search("PASS|TOKEN|CREDENTIAL|DATABASE_URL|USER|_KEY", name)]
    assert "{{resolve:" not in TEXT
    assert not [name for name, parameter in PARAMETERS.items() if "NoEcho" in parameter]
    for name in ENVIRONMENT:
        assert isinstance(variables[name], str) or set(variables[name]) == {"Ref"}, name


def test_forgotten_asynchronous_requests_do_not_run_later() -> None:
    (config,) = of_type("AWS::Lambda::EventInvokeConfig").values()
    assert config["Properties"]["MaximumEventAgeInSeconds"] <= 300
    assert config["Properties"]["MaximumRetryAttempts"] <= 2


def test_reservation_of_0_means_none_because_lambda_would_take_it_for_off() -> None:
    reserved = properties("MigrateFunction")["ReservedConcurrentExecutions"]
    assert reserved == {"Fn::If": ["ReserveConcurrency", {"Ref": "ReservedConcurrency"}, {"Ref": "AWS::NoValue"}]}
    assert 2 <= PARAMETERS["ReservedConcurrency"]["Default"] <= PARAMETERS["ReservedConcurrency"]["MaxValue"] <= 5


def test_layer_is_the_folder_of_reviewed_sql_and_nothing_else() -> None:
    layer = RESOURCES["ReviewedSql"]["Properties"]
    assert layer["ContentUri"] == "sql/"
    assert layer["RetentionPolicy"] == "Delete"
    assert {path.suffix for path in (PROJECT / "sql").iterdir()} == {".sql"}
    (name,) = of_type("AWS::Lambda::LayerVersion")
    assert properties("MigrateFunction")["Layers"] == [{"Ref": name}]


# Logs


def test_log_group_is_named_to_the_function_kept_for_a_stated_time_and_outlives_the_stack() -> None:
    (name,) = of_type("AWS::Logs::LogGroup")
    assert properties("MigrateFunction")["LoggingConfig"]["LogGroup"] == {"Ref": name}
    assert properties(name)["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    assert PARAMETERS["LogRetentionDays"]["Default"] >= 365
    assert TRANSFORMED[name]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert TRANSFORMED[name]["UpdateReplacePolicy"] == "Retain"


def test_kept_log_group_stands_in_no_new_stacks_way() -> None:
    assert "LogGroupName" not in properties("MigrateLogGroup")


def test_logs_show_the_proof_and_no_setting_makes_boto3_log_the_secret() -> None:
    config = properties("MigrateFunction")["LoggingConfig"]
    assert config["LogFormat"] == "Text"
    assert "ApplicationLogLevel" not in config
    assert properties("MigrateFunction")["Environment"]["Variables"]["POWERTOOLS_LOG_LEVEL"] == "INFO"


# Rights


def test_there_is_one_role_and_sam_adds_no_managed_policy() -> None:
    assert list(of_type("AWS::IAM::Role")) == ["MigrateRole"]
    assert not of_type("AWS::IAM::ManagedPolicy")
    assert not of_type("AWS::IAM::Policy")
    assert "ManagedPolicyArns" not in properties("MigrateRole")
    assert properties("MigrateFunction")["Role"] == {"Fn::GetAtt": ["MigrateRole", "Arn"]}


def test_no_statement_allows_an_action_by_wildcard() -> None:
    for statement in all_statements():
        if statement["Effect"] == "Allow":
            assert not [action for action in as_list(statement["Action"]) if "*" in action], statement["Sid"]


def test_every_resource_is_named_except_where_aws_has_none() -> None:
    everywhere = {
        action
        for statement in role_statements()
        if statement["Effect"] == "Allow" and "*" in as_list(statement["Resource"])
        for action in as_list(statement["Action"])
    }
    assert everywhere == ACTIONS_WITHOUT_RESOURCE


def test_function_reads_exactly_one_secret() -> None:
    (statement,) = allowing("secretsmanager:")
    assert statement["Action"] == "secretsmanager:GetSecretValue"
    assert statement["Resource"] == {"Ref": "DatabaseSecretArn"}
    assert re.fullmatch(PARAMETERS["DatabaseSecretArn"]["AllowedPattern"], secret_arn("prod/drivers-Ab12Cd"))
    assert not re.fullmatch(PARAMETERS["DatabaseSecretArn"]["AllowedPattern"], secret_arn("prod/*"))
    assert not re.fullmatch(PARAMETERS["DatabaseSecretArn"]["AllowedPattern"], secret_arn("prod/drivers"))


def test_key_decrypts_only_that_secret_and_only_by_secrets_manager() -> None:
    (statement,) = allowing("kms:")
    assert statement["Action"] == "kms:Decrypt"
    assert statement["Resource"] == {"Ref": "SecretKmsKeyArn"}
    assert statement["Condition"] == {
        "StringEquals": {
            "kms:ViaService": {"Fn::Sub": "secretsmanager.${AWS::Region}.amazonaws.com"},
            "kms:EncryptionContext:SecretARN": {"Ref": "DatabaseSecretArn"},
        }
    }


def test_function_writes_only_its_own_logs() -> None:
    (statement,) = allowing("logs:")
    assert set(statement["Action"]) == {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert statement["Resource"] == {"Fn::GetAtt": ["MigrateLogGroup", "Arn"]}


def test_code_of_the_function_may_not_touch_the_network() -> None:
    (statement,) = [statement for statement in role_statements() if statement["Effect"] == "Deny"]
    assert statement["Action"] == "ec2:*"
    arn = statement["Condition"]["ArnEquals"]["lambda:SourceFunctionArn"]["Fn::Sub"]
    assert arn.endswith(":function:${AWS::StackName}-migrate")


def test_every_statement_says_its_reason() -> None:
    reasons = dict(re.findall(r"- Sid: (\w+) # (.+)$", TEXT, re.MULTILINE))
    assert set(reasons) == {statement["Sid"] for statement in all_statements()}
    assert not [sid for sid, reason in reasons.items() if len(reason.split()) < 3]


# Network


def test_function_reaches_only_the_database_and_secrets_manager() -> None:
    database, *secrets_manager = egress()
    assert database["DestinationSecurityGroupId"] == {"Ref": "DatabaseSecurityGroupId"}
    assert database["FromPort"] == database["ToPort"] == {"Ref": "DatabasePort"}
    assert [(rule["FromPort"], rule["ToPort"]) for rule in secrets_manager] == [(443, 443), (443, 443)]
    by_endpoint, by_nat = secrets_manager
    assert by_endpoint["DestinationSecurityGroupId"] == {"Fn::GetAtt": ["EndpointSecurityGroup", "GroupId"]}
    assert by_nat["CidrIp"] == "0.0.0.0/0"
    assert all(rule["IpProtocol"] == "tcp" for rule in egress())


def test_nothing_reaches_the_function() -> None:
    assert "SecurityGroupIngress" not in properties("MigrateSecurityGroup")
    targets = [rule["Properties"]["GroupId"] for rule in of_type("AWS::EC2::SecurityGroupIngress").values()]
    assert {"Fn::GetAtt": ["MigrateSecurityGroup", "GroupId"]} not in targets
    assert not of_type("AWS::Lambda::Url")
    assert not of_type("AWS::Lambda::Permission")


def test_database_lets_in_only_the_function_and_only_if_asked() -> None:
    assert TRANSFORMED["DatabaseIngress"]["Condition"] == "AddIngressRule"
    rule = properties("DatabaseIngress")
    assert rule["GroupId"] == {"Ref": "DatabaseSecurityGroupId"}
    assert rule["SourceSecurityGroupId"] == {"Fn::GetAtt": ["MigrateSecurityGroup", "GroupId"]}
    assert rule["FromPort"] == rule["ToPort"] == {"Ref": "DatabasePort"}


def test_everything_of_the_endpoint_is_created_only_if_asked() -> None:
    for name in ("SecretsManagerEndpoint", "EndpointSecurityGroup", "EndpointIngress"):
        assert TRANSFORMED[name]["Condition"] == "CreateEndpoint", name
    assert PARAMETERS["CreateSecretsManagerEndpoint"]["Default"] == "false"


def test_endpoint_takes_no_other_program_of_the_vpc_off_its_way_to_secrets_manager() -> None:
    assert properties("SecretsManagerEndpoint")["PrivateDnsEnabled"] is False
    variable = properties("MigrateFunction")["Environment"]["Variables"][ENDPOINT_VARIABLE]
    condition, name, otherwise = variable["Fn::If"]
    assert (condition, otherwise) == ("CreateEndpoint", {"Ref": "AWS::NoValue"})
    assert name["Fn::Sub"][0] == "https://${Name}"


def test_endpoint_serves_only_the_function_and_its_secret() -> None:
    (statement,) = statements(properties("SecretsManagerEndpoint")["PolicyDocument"])
    assert statement["Action"] == "secretsmanager:GetSecretValue"
    assert statement["Resource"] == {"Ref": "DatabaseSecretArn"}
    assert statement["Condition"] == {"ArnEquals": {"aws:PrincipalArn": {"Fn::GetAtt": ["MigrateRole", "Arn"]}}}
    (rule,) = [
        rule["Properties"]
        for rule in of_type("AWS::EC2::SecurityGroupIngress").values()
        if rule["Properties"]["GroupId"] == {"Fn::GetAtt": ["EndpointSecurityGroup", "GroupId"]}
    ]
    assert rule["SourceSecurityGroupId"] == {"Fn::GetAtt": ["MigrateSecurityGroup", "GroupId"]}
    assert rule["FromPort"] == rule["ToPort"] == 443


def test_every_security_group_states_its_egress_because_ec2_would_allow_everything() -> None:
    for name, group in of_type("AWS::EC2::SecurityGroup").items():
        assert group["Properties"]["SecurityGroupEgress"], name


# What an operator reads


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_is_described_bounded_and_explains_its_bounds(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter["Description"].endswith(".")
    assert parameter["ConstraintDescription"].startswith("must be ")
    kind = parameter["Type"]
    if kind == "Number":
        assert "AllowedValues" in parameter or {"MinValue", "MaxValue"} <= set(parameter)
    elif kind == "String":
        assert "AllowedValues" in parameter or parameter["AllowedPattern"].startswith("^")
    else:
        assert kind.removeprefix("List<").startswith("AWS::EC2::")


@pytest.mark.parametrize("name", [name for name in PARAMETERS if "Default" in PARAMETERS[name]])
def test_default_is_within_its_bounds(name: str) -> None:
    parameter = PARAMETERS[name]
    default = parameter["Default"]
    assert default in parameter.get("AllowedValues", [default])
    assert re.fullmatch(parameter.get("AllowedPattern", ".*"), str(default))
    if "MinValue" in parameter:
        assert parameter["MinValue"] <= default <= parameter["MaxValue"]


def test_every_parameter_stands_in_one_group_and_has_a_question_for_its_label() -> None:
    grouped = [name for group in INTERFACE["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(PARAMETERS)
    assert sorted(INTERFACE["ParameterLabels"]) == sorted(PARAMETERS)
    assert all(label["default"].endswith("?") for label in INTERFACE["ParameterLabels"].values())


def test_parameters_stand_in_the_order_of_their_groups_because_sam_asks_in_it() -> None:
    assert [name for group in INTERFACE["ParameterGroups"] for name in group["Parameters"]] == list(PARAMETERS)


def test_every_output_is_described() -> None:
    assert all(output["Description"].endswith(".") for output in TEMPLATE["Outputs"].values())


@pytest.mark.parametrize(
    ("output", "action"), [("CheckCommand", "check"), ("PlanCommand", "plan"), ("ApplyCommand", "apply")]
)
def test_command_in_the_outputs_sends_a_request_of_the_contract(output: str, action: str) -> None:
    words = shlex.split(TEMPLATE["Outputs"][output]["Value"]["Fn::Sub"])
    assert words[:3] == ["aws", "lambda", "invoke"]
    assert words[words.index("--cli-binary-format") + 1] == "raw-in-base64-out"
    request = json.loads(words[words.index("--payload") + 1])
    assert request["action"] == action
    assert set(request) <= {"hotfix", "action", "reason", "requested_by"}
    assert action == "check" or (PROJECT / "sql" / f"{request['hotfix']}.sql").is_file()


def test_commands_that_exit_0_on_failure_say_so() -> None:
    for output in ("CheckCommand", "SamCommand"):
        assert "exits 0" in TEMPLATE["Outputs"][output]["Description"]


def test_sam_command_sends_a_packaged_event() -> None:
    words = shlex.split(TEMPLATE["Outputs"]["SamCommand"]["Value"]["Fn::Sub"])
    assert words[:4] == ["sam", "remote", "invoke", "MigrateFunction"]
    assert (PROJECT / words[words.index("--event-file") + 1]).is_file()


def test_everything_that_takes_tags_says_whose_it_is() -> None:
    types = {"AWS::Lambda::Function", "AWS::IAM::Role", "AWS::Logs::LogGroup"}
    types |= {"AWS::EC2::SecurityGroup", "AWS::EC2::VPCEndpoint"}
    for name, resource in TRANSFORMED.items():
        if resource["Type"] in types:
            tags = {tag["Key"]: tag["Value"] for tag in resource["Properties"]["Tags"]}
            assert tags["Application"] == "pg-hotfix", name
            assert tags["Environment"] == {"Ref": "EnvironmentName"}, name


# samconfig.toml


ENVIRONMENTS = {"default": "dev", "staging": "staging", "prod": "prod"}
environments = pytest.mark.parametrize("environment", ENVIRONMENTS)


def overrides(environment: str) -> dict[str, str]:
    pairs = SAMCONFIG[environment]["deploy"]["parameters"]["parameter_overrides"]
    return dict(pair.split("=", 1) for pair in pairs)


def secret_arn(name: str) -> str:
    return f"arn:aws:secretsmanager:sa-east-1:123456789012:secret:{name}"


def test_samconfig_knows_three_environments() -> None:
    assert set(SAMCONFIG) == {"version", *ENVIRONMENTS}


@environments
def test_deployment_shows_its_changes_and_asks(environment: str) -> None:
    deploy = SAMCONFIG[environment]["deploy"]["parameters"]
    assert deploy["confirm_changeset"] is True
    assert deploy["capabilities"] == "CAPABILITY_IAM"
    assert SAMCONFIG[environment]["validate"]["parameters"]["lint"] is True


@environments
def test_every_command_of_an_environment_means_the_same_stack(environment: str) -> None:
    commands = SAMCONFIG[environment].values()
    names = {command["parameters"].get("stack_name") for command in commands} - {None}
    assert names == {f"pg-hotfix-{ENVIRONMENTS[environment]}"}
    assert len(names.pop()) <= LONGEST_STACK_NAME


def test_only_the_default_environment_can_be_synced_without_a_change_set() -> None:
    assert [environment for environment in ENVIRONMENTS if "sync" in SAMCONFIG[environment]] == ["default"]


@environments
def test_build_is_not_cached_because_the_cache_misses_changed_dependencies(environment: str) -> None:
    assert SAMCONFIG[environment]["build"]["parameters"]["cached"] is False
    assert (PROJECT / "functions/migrate/requirements.txt").read_text() == "-r ../../requirements/function.txt\n"


@environments
def test_overrides_name_every_required_parameter_and_no_unknown_one(environment: str) -> None:
    required = {name for name, parameter in PARAMETERS.items() if "Default" not in parameter}
    assert required <= set(overrides(environment)) <= set(PARAMETERS)
    assert overrides(environment)["EnvironmentName"] == ENVIRONMENTS[environment]


@environments
def test_placeholders_are_refused_before_anything_is_created(environment: str) -> None:
    values = overrides(environment)
    assert not re.fullmatch(PARAMETERS["DatabaseSecretArn"]["AllowedPattern"], values["DatabaseSecretArn"])
    for name in ("VpcId", "SubnetIds", "DatabaseSecurityGroupId"):
        assert values[name].endswith("-fill-me-in")
        assert PARAMETERS[name]["Type"].removeprefix("List<").startswith("AWS::EC2::")


def test_samconfig_names_no_account_region_or_secret() -> None:
    assert not re.search(r"\d{12}|arn:aws|region *=|profile *=|[Pp]assword", SAMCONFIG_TEXT)
