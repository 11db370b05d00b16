"""The template holds what the README and SECURITY.md promise; the checks run on what SAM makes of it too."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from samcli.yamlhelper import yaml_parse  # type: ignore[import-untyped]

from laptop.scan import fill_in
from pg_hotfix.file.hotfix_file import ExpectedSchema
from pg_hotfix.request import parse_request
from pg_hotfix.results import RESULTS
from pg_hotfix_report.settings import Settings, read_settings
from tests.cloudformation import WHOLE

PROJECT = Path(__file__).parents[3]
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
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
    "ssm:CreateOpsItem",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
# What each role may do, beside logs and traces of its own and, for the function, what Lambda needs to reach the VPC.
MACHINE = "HotfixStateMachine"
EXECUTIONS = "execution:pg-hotfix-hotfix:*"
RIGHTS = {
    "MigrateRole": {
        ("secretsmanager:GetSecretValue", "DatabaseSecretArn"),
        # Whichever encrypts that secret: the conditions bind it.
        ("kms:Decrypt", "key/*"),
    },
    "StateMachineRole": {
        ("lambda:InvokeFunction", "MigrateFunction"),
        ("lambda:InvokeFunction", "ReportFunction"),
        ("sns:Publish", "HotfixTopic"),
        ("lambda:InvokeFunction", "EndpointFunction"),
    },
    "EndpointRole": {
        ("secretsmanager:GetSecretValue", "EndpointTokenSecretArn"),
        ("kms:Decrypt", "key/*"),
    },
    "ReportRole": {("logs:FilterLogEvents", "log-group:name:*")},
    "EventsRole": {("states:StartExecution", MACHINE)},
    "ReadinessRole": {("lambda:InvokeFunction", "MigrateFunction"), ("sqs:SendMessage", "DeadLetterQueue")},
    "GitHubRole": {
        ("states:StartExecution", MACHINE),
        ("states:ListExecutions", MACHINE),
        ("states:DescribeExecution", EXECUTIONS),
        ("states:GetExecutionHistory", EXECUTIONS),
        ("lambda:InvokeFunction", "MigrateFunction"),
    },
    "RunbookRole": {
        ("sns:Publish", "HotfixTopic"),
        ("states:StartExecution", MACHINE),
        ("states:DescribeExecution", EXECUTIONS),
        ("states:StopExecution", EXECUTIONS),
    },
    "OpsItemRole": set(),
    "ButtonRole": {
        ("states:StartExecution", MACHINE),
        ("states:ListExecutions", MACHINE),
        ("states:DescribeExecution", EXECUTIONS),
        ("states:GetExecutionHistory", EXECUTIONS),
    },
}
ENVIRONMENT = {
    "DB_SECRET_ARN",
    "DB_HOST",
    "DB_PORT",
    "DB_NAME",
    "LOCK_WAIT_SECONDS",
    "STATEMENT_TIMEOUT_MS",
    "ENVIRONMENT",
    "STACK_NAME",
    "POWERTOOLS_SERVICE_NAME",
    "POWERTOOLS_METRICS_NAMESPACE",
    "POWERTOOLS_LOG_LEVEL",
}
# The name that boto3 reads; set only with the endpoint of the stack.
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_SECRETS_MANAGER"
# `sam remote invoke` invokes a second time after about this long without an answer.
REINVOKED_AFTER_SECONDS = 60
LONGEST_STACK_NAME = 64 - len("-migrate")
# arn:aws:cloudformation:REGION:ACCOUNT:stack/NAME/ID
STACKS_OWN_ID = {"Fn::Select": [2, {"Fn::Split": ["/", {"Ref": "AWS::StackId"}]}]}


TRANSFORMED: dict[str, Any] = WHOLE["Resources"]


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


def role_statements(role: str) -> list[dict[str, Any]]:
    return [statement for policy in properties(role)["Policies"] for statement in statements(policy["PolicyDocument"])]


ROLES = list(of_type("AWS::IAM::Role"))


def all_statements() -> list[dict[str, Any]]:
    return [
        *(statement for role in ROLES for statement in role_statements(role)),
        *(found for role in ROLES for found in statements(properties(role)["AssumeRolePolicyDocument"])),
        *statements(properties("SecretsManagerEndpoint")["PolicyDocument"]),
        *statements(properties("DeadLetterPolicy")["PolicyDocument"]),
    ]


def allowing(prefix: str, role: str = "MigrateRole") -> list[dict[str, Any]]:
    return [
        statement
        for statement in role_statements(role)
        if statement["Effect"] == "Allow" and any(action.startswith(prefix) for action in as_list(statement["Action"]))
    ]


def names_of(value: Any) -> set[str]:
    """The logical names that the value refers to."""
    if isinstance(value, list):
        return {name for item in value for name in names_of(item)}
    if not isinstance(value, dict):
        return set()
    if "Ref" in value:
        return {value["Ref"]}
    if "Fn::GetAtt" in value:
        return {as_list(value["Fn::GetAtt"])[0].split(".")[0]}
    if "Fn::Sub" in value:
        return set(re.findall(r"\$\{(\w+)", json.dumps(value["Fn::Sub"])))
    return {name for item in value.values() for name in names_of(item)}


def filled(value: Any) -> Any:
    """The value with samples in the place of what only a stack knows."""
    return fill_in(value, WHOLE)


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
    assert not re.search(r"\b(?!0{12})\d{12}\b", code)
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
    function, lock = properties("MigrateFunction"), PARAMETERS["LockWaitSeconds"]
    statement_seconds = int(function["Environment"]["Variables"]["STATEMENT_TIMEOUT_MS"]) / 1000
    assert lock["MaxValue"] + statement_seconds < function["Timeout"] < REINVOKED_AFTER_SECONDS


def test_no_safety_limit_can_be_turned_off_by_0() -> None:
    assert PARAMETERS["LockWaitSeconds"]["MinValue"] > 0


def test_environment_has_exactly_the_names_of_the_contract() -> None:
    assert set(properties("MigrateFunction")["Environment"]["Variables"]) == ENVIRONMENT | {ENDPOINT_VARIABLE}


def test_safety_limits_have_the_defaults_of_the_contract() -> None:
    assert PARAMETERS["LockWaitSeconds"]["Default"] == 30
    assert properties("MigrateFunction")["Environment"]["Variables"]["STATEMENT_TIMEOUT_MS"] == "5000"


def test_environment_carries_no_secret() -> None:
    variables = properties("MigrateFunction")["Environment"]["Variables"]
    assert not [name for name in variables if re.search("PASS|TOKEN|CREDENTIAL|DATABASE_URL|USER|_KEY", name)]
    # CloudFormation reads none: each function reads its own.
    assert "{{resolve:" not in TEXT
    assert not [name for name, parameter in PARAMETERS.items() if "NoEcho" in parameter]
    for name in ENVIRONMENT:
        assert isinstance(variables[name], str) or set(variables[name]) == {"Ref"}, name


def test_forgotten_asynchronous_requests_do_not_run_later() -> None:
    (config,) = of_type("AWS::Lambda::EventInvokeConfig").values()
    assert config["Properties"]["MaximumEventAgeInSeconds"] <= 300
    assert config["Properties"]["MaximumRetryAttempts"] <= 2


def test_nothing_is_reserved_unless_asked_for_because_a_new_account_has_too_little() -> None:
    assert PARAMETERS["ReservedConcurrency"]["Default"] == 0
    assert "still 10" in PARAMETERS["ReservedConcurrency"]["Description"]
    others = {name for name, function in of_type("AWS::Lambda::Function").items() if name != "MigrateFunction"}
    assert not [name for name in others if "ReservedConcurrentExecutions" in properties(name)]
    assert not [name for name in others if "ProvisionedConcurrencyConfig" in json.dumps(RESOURCES[name])]


def test_reservation_of_0_means_none_because_lambda_would_take_it_for_off() -> None:
    reserved = properties("MigrateFunction")["ReservedConcurrentExecutions"]
    assert reserved == {"Fn::If": ["ReserveConcurrency", {"Ref": "ReservedConcurrency"}, {"Ref": "AWS::NoValue"}]}
    assert TEMPLATE["Conditions"]["ReserveConcurrency"] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "ReservedConcurrency"}, "0"]}]
    }
    assert 2 <= PARAMETERS["ReservedConcurrency"]["MaxValue"] <= 5


def test_layer_is_the_folder_of_reviewed_sql_and_nothing_else() -> None:
    layer = RESOURCES["ReviewedSql"]["Properties"]
    assert layer["ContentUri"] == "sql/"
    assert layer["RetentionPolicy"] == "Delete"
    others = {path.name for path in (PROJECT / "sql").iterdir() if path.suffix != ".sql"}
    assert others <= {ExpectedSchema.file}
    (name,) = of_type("AWS::Lambda::LayerVersion")
    assert properties("MigrateFunction")["Layers"] == [{"Ref": name}]


# Logs


@pytest.mark.parametrize("name", of_type("AWS::Logs::LogGroup"))
def test_log_group_is_kept_for_a_stated_time_and_outlives_the_stack(name: str) -> None:
    assert properties(name)["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    assert PARAMETERS["LogRetentionDays"]["Default"] >= 365
    assert TRANSFORMED[name]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert TRANSFORMED[name]["UpdateReplacePolicy"] == "Retain"
    # A new stack finds none in its way: a name is left to CloudFormation, or ends with the stack's own id.
    given = properties(name).get("LogGroupName")
    assert given is None or (given["Fn::Sub"][0].endswith("-${Id}") and given["Fn::Sub"][1] == {"Id": STACKS_OWN_ID})


def test_log_that_a_service_delivers_takes_no_room_in_the_accounts_resource_policy() -> None:
    delivered = {
        name
        for machine in of_type("AWS::StepFunctions::StateMachine").values()
        for name in names_of(machine["Properties"]["LoggingConfiguration"]["Destinations"])
    }
    assert delivered == {"StateMachineLogGroup"}
    for name in delivered:
        assert properties(name)["LogGroupName"]["Fn::Sub"][0].startswith("/aws/vendedlogs/states/${AWS::StackName}-")
    # What writes to its group by its own role needs no such policy: Lambda's functions do, and nothing else logs here.
    others = set(of_type("AWS::Logs::LogGroup")) - delivered
    functions = of_type("AWS::Lambda::Function").values()
    assert others == {function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"] for function in functions}
    assert not of_type("AWS::Logs::ResourcePolicy")


def test_everything_that_logs_has_a_log_group_of_its_own() -> None:
    assert properties("MigrateFunction")["LoggingConfig"]["LogGroup"] == {"Ref": "MigrateLogGroup"}
    assert properties("ButtonFunction")["LoggingConfig"]["LogGroup"] == {"Ref": "ButtonLogGroup"}
    assert properties("ReportFunction")["LoggingConfig"]["LogGroup"] == {"Ref": "ReportLogGroup"}
    assert properties("EndpointFunction")["LoggingConfig"]["LogGroup"] == {"Ref": "EndpointLogGroup"}
    logging = properties("HotfixStateMachine")["LoggingConfiguration"]
    assert names_of(logging) == {"StateMachineLogGroup"}
    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ALL", False)


def test_logs_show_the_proof_and_no_setting_makes_boto3_log_the_secret() -> None:
    config = properties("MigrateFunction")["LoggingConfig"]
    assert config["LogFormat"] == "Text"
    assert "ApplicationLogLevel" not in config
    assert properties("MigrateFunction")["Environment"]["Variables"]["POWERTOOLS_LOG_LEVEL"] == "INFO"


# Rights


def test_everything_has_a_role_of_its_own_and_sam_adds_no_managed_policy() -> None:
    assert set(ROLES) == set(RIGHTS)
    assert not of_type("AWS::IAM::ManagedPolicy")
    assert not of_type("AWS::IAM::Policy")
    assert not [role for role in ROLES if "ManagedPolicyArns" in properties(role)]
    assert properties("MigrateFunction")["Role"] == {"Fn::GetAtt": ["MigrateRole", "Arn"]}
    assert properties("ButtonFunction")["Role"] == {"Fn::GetAtt": ["ButtonRole", "Arn"]}
    assert properties("ReportFunction")["Role"] == {"Fn::GetAtt": ["ReportRole", "Arn"]}
    assert properties("EndpointFunction")["Role"] == {"Fn::GetAtt": ["EndpointRole", "Arn"]}
    assert properties("HotfixStateMachine")["RoleArn"] == {"Fn::GetAtt": ["StateMachineRole", "Arn"]}


@pytest.mark.parametrize("role", RIGHTS)
def test_role_may_do_exactly_this(role: str) -> None:
    found = {
        (action, next(iter(names_of(resource) & {name for _, name in RIGHTS[role]}), None) or resource_tail(resource))
        for statement in role_statements(role)
        if statement["Effect"] == "Allow" and statement["Resource"] != "*"
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }
    logs = {(action, resource) for action, resource in found if action in ("logs:CreateLogStream", "logs:PutLogEvents")}
    network = {(action, resource) for action, resource in found if action.startswith("ec2:")}
    assert found - logs - network == RIGHTS[role]
    assert bool(logs) == (role in ("MigrateRole", "ReportRole", "ButtonRole", "EndpointRole"))
    assert bool(network) == (role == "MigrateRole")


def resource_tail(resource: Any) -> str:
    arn: str = filled(resource)
    return arn.split(":", 5)[5]


@pytest.mark.parametrize("role", [role for role in RIGHTS if role != "GitHubRole"])
def test_role_is_assumed_by_one_service_and_only_for_this_account(role: str) -> None:
    (statement,) = statements(properties(role)["AssumeRolePolicyDocument"])
    (service,) = statement["Principal"].values()
    assert service.endswith(".amazonaws.com")
    # Lambda assumes a role only for the functions that were given it.
    if service != "lambda.amazonaws.com":
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_only_that_url_is_called_and_only_in_that_way() -> None:
    assert properties("EndpointFunction")["Environment"]["Variables"] == {
        "ENDPOINT_URL": {"Ref": "EndpointUrl"},
        "ENDPOINT_TOKEN_SECRET_ARN": {"Ref": "EndpointTokenSecretArn"},
    }
    # The machine hands over nothing that could be another URL, and no task of it calls one itself.
    definition = yaml_parse((PROJECT / "statemachine" / "hotfix.asl.yaml").read_text())
    assert definition["States"]["CallEndpoint"]["Parameters"]["Payload"] == {}
    assert not [name for name, state in definition["States"].items() if "http:invoke" in state.get("Resource", "")]


@pytest.mark.parametrize(
    ("role", "secret"), [("MigrateRole", "DatabaseSecretArn"), ("EndpointRole", "EndpointTokenSecretArn")]
)
def test_any_key_decrypts_that_secret_only_and_only_through_secrets_manager(role: str, secret: str) -> None:
    (statement,) = allowing("kms:", role)
    assert statement["Action"] == "kms:Decrypt"
    # Of any account: a secret may have a key that another account shares.
    assert statement["Resource"] == {"Fn::Sub": "arn:${AWS::Partition}:kms:${AWS::Region}:*:key/*"}
    assert statement["Condition"] == {
        "StringEquals": {
            "kms:ViaService": {"Fn::Sub": "secretsmanager.${AWS::Region}.amazonaws.com"},
            "kms:EncryptionContext:SecretARN": {"Ref": secret},
        }
    }


def test_the_endpoint_is_called_from_outside_the_vpc() -> None:
    assert "VpcConfig" not in properties("EndpointFunction")


def test_no_statement_allows_an_action_by_wildcard() -> None:
    for statement in all_statements():
        if statement["Effect"] == "Allow":
            assert not [action for action in as_list(statement["Action"]) if "*" in action], statement["Sid"]


def test_every_resource_is_named_except_where_aws_has_none() -> None:
    everywhere = {
        action
        for role in ROLES
        for statement in role_statements(role)
        if statement["Effect"] == "Allow" and "*" in as_list(statement["Resource"])
        for action in as_list(statement["Action"])
    }
    assert everywhere == ACTIONS_WITHOUT_RESOURCE


def test_function_reads_exactly_one_secret() -> None:
    (statement,) = allowing("secretsmanager:")
    assert statement["Action"] == "secretsmanager:GetSecretValue"
    assert statement["Resource"] == {"Ref": "DatabaseSecretArn"}


def test_function_writes_only_its_own_logs() -> None:
    (statement,) = allowing("logs:")
    assert set(statement["Action"]) == {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert statement["Resource"] == {"Fn::GetAtt": ["MigrateLogGroup", "Arn"]}


def test_code_of_the_function_may_not_touch_the_network() -> None:
    (statement,) = [statement for statement in role_statements("MigrateRole") if statement["Effect"] == "Deny"]
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


# The state machine and who starts it


def test_machine_and_function_have_the_names_that_the_command_line_derives() -> None:
    assert properties("HotfixStateMachine")["StateMachineName"] == {"Fn::Sub": "${AWS::StackName}-hotfix"}
    assert properties("MigrateFunction")["FunctionName"] == {"Fn::Sub": "${AWS::StackName}-migrate"}


def test_machine_gets_every_value_that_its_definition_names_and_no_other() -> None:
    names = set(re.findall(r"\$\{(\w+)\}", (PROJECT / "statemachine" / "hotfix.asl.yaml").read_text()))
    assert set(RESOURCES["HotfixStateMachine"]["Properties"]["DefinitionSubstitutions"]) == names


def test_no_parameters_text_is_put_into_the_definition() -> None:
    """One could hold quotes."""
    for name, value in RESOURCES["HotfixStateMachine"]["Properties"]["DefinitionSubstitutions"].items():
        assert not names_of(value) & set(PARAMETERS), name


def test_the_applications_log_is_read_by_the_report_function_only_if_there_is_one() -> None:
    searching = [entry for entry in report_statements() if "ReportSearchesApplicationLog" in json.dumps(entry)]
    ((condition, statement, otherwise),) = [entry["Fn::If"] for entry in searching]
    assert (condition, otherwise) == ("WatchLog", {"Ref": "AWS::NoValue"})
    assert statement["Action"] == "logs:FilterLogEvents"
    assert statement["Resource"]["Fn::Sub"].endswith(":log-group:${ApplicationLogGroup}:*")
    assert {role for role in ROLES if "FilterLogEvents" in json.dumps(properties(role))} == {"ReportRole"}


def report_statements() -> list[dict[str, Any]]:
    (policy,) = properties("ReportRole")["Policies"]
    found: list[dict[str, Any]] = policy["PolicyDocument"]["Statement"]
    return found


def test_checks_after_the_fix_are_there_only_if_asked_for() -> None:
    for name in ("EndpointFunction", "EndpointRole", "EndpointLogGroup"):
        assert TRANSFORMED[name]["Condition"] == "CallEndpoint"
    assert TRANSFORMED["ApplicationErrorFilter"]["Condition"] == "WatchLog"
    assert PARAMETERS["EndpointUrl"]["Default"] == PARAMETERS["ApplicationLogGroup"]["Default"] == ""


def test_no_event_starts_a_hotfix_by_default() -> None:
    assert properties("RequestRule")["State"] == {"Fn::If": ["AcceptRequests", "ENABLED", "DISABLED"]}
    assert PARAMETERS["AcceptEvents"]["Default"] == "false"


def test_late_event_is_not_run() -> None:
    (target,) = properties("RequestRule")["Targets"]
    assert target["Arn"] == {"Ref": "HotfixStateMachine"}
    assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] <= 300
    assert target["RetryPolicy"]["MaximumRetryAttempts"] <= 5


@pytest.mark.parametrize("name", of_type("AWS::Events::Rule"))
def test_undelivered_event_is_kept_for_a_person(name: str) -> None:
    (target,) = properties(name)["Targets"]
    assert names_of(target["DeadLetterConfig"]) == {"DeadLetterQueue"}
    assert {"MaximumEventAgeInSeconds", "MaximumRetryAttempts"} == set(target["RetryPolicy"])
    (allowed,) = statements(properties("DeadLetterPolicy")["PolicyDocument"])
    sources = allowed["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert name in {found for source in sources for branch in branches(source) for found in names_of(branch)}


def test_event_of_the_rule_is_the_one_in_the_events_folder() -> None:
    event = json.loads((PROJECT / "events" / "eventbridge.json").read_text())
    assert properties("RequestRule")["EventPattern"]["source"] == [event["source"]]
    assert properties("RequestRule")["Targets"][0]["InputPath"] == "$.detail"


def test_readiness_is_asked_more_often_than_its_silence_is_an_alarm() -> None:
    schedule = properties("ReadinessSchedule")
    assert schedule["ScheduleExpression"] == "rate(6 hours)"
    assert names_of(schedule["Target"]["Arn"]) == {"MigrateFunction"}
    assert names_of(schedule["Target"]["DeadLetterConfig"]) == {"DeadLetterQueue"}
    assert parse_request(json.loads(schedule["Target"]["Input"])).action == "check"
    alarm = properties("ReadinessAlarm")
    filled_up, ready = alarm["Metrics"]
    # CloudWatch looks further back than the alarm for what is merely missing.
    assert filled_up["Expression"] == f"FILL({ready['Id']}, 0)"
    assert ready["MetricStat"]["Metric"]["MetricName"] == "Ready"
    assert alarm["TreatMissingData"] == "breaching"
    assert ready["MetricStat"]["Period"] * alarm["EvaluationPeriods"] > 6 * 3600
    assert alarm["DatapointsToAlarm"] == alarm["EvaluationPeriods"]


# Alarms, dashboard, runbook

ALARMS = of_type("AWS::CloudWatch::Alarm")


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_tells_the_topic_and_says_what_to_do(name: str) -> None:
    alarm = properties(name)
    assert alarm["AlarmActions"] == [{"Ref": "HotfixTopic"}]
    assert filled(alarm["AlarmName"]).startswith("pg-hotfix-")
    assert filled(alarm["AlarmDescription"]).endswith(".")
    assert name == "ReadinessAlarm" or alarm["TreatMissingData"] == "notBreaching"


def test_there_is_an_alarm_for_each_way_to_fail() -> None:
    watched = {filled(properties(name).get("MetricName", name)) for name in ALARMS}
    assert len(watched) == len(ALARMS) == 6
    assert {"ReadinessAlarm", "Errors", "ExecutionAlarm", "LockBusy"} <= watched
    metrics = [item["MetricStat"]["Metric"] for item in properties("ExecutionAlarm")["Metrics"] if "MetricStat" in item]
    assert {metric["MetricName"] for metric in metrics} == {
        "ExecutionsFailed",
        "ExecutionsTimedOut",
        "ExecutionsAborted",
    }


@pytest.mark.parametrize("name", ["ReadinessAlarm", "LockBusyAlarm"])
def test_alarm_looks_at_a_metric_that_the_function_writes(name: str) -> None:
    alarm = properties(name)
    metric = next((one["MetricStat"]["Metric"] for one in alarm.get("Metrics", []) if "MetricStat" in one), alarm)
    code = (PROJECT / "functions" / "migrate" / "app.py").read_text()
    counted = {result.metric for result in RESULTS.values()}
    assert f'"{metric["MetricName"]}"' in code or metric["MetricName"] in counted
    assert f'namespace="{metric["Namespace"]}"' in code
    dimensions = {item["Name"]: item["Value"] for item in metric["Dimensions"]}
    assert dimensions == {"service": "pg-hotfix", "environment": {"Ref": "EnvironmentName"}}
    assert properties("MigrateFunction")["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == "pg-hotfix"


def test_no_alarms_description_can_be_too_long() -> None:
    longest = {"ErrorPattern": 512, "ApplicationLogGroup": 512, "AWS::StackName": LONGEST_STACK_NAME}
    for name in ALARMS:
        text = json.dumps(properties(name)["AlarmDescription"])
        assert len(text) + sum(longest[found] for found in re.findall(r"\$\{([\w:]+)\}", text)) <= 1024, name


def dashboard() -> dict[str, Any]:
    text, values = properties("HotfixDashboard")["DashboardBody"]["Fn::Sub"]
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", filled(value))
    body: dict[str, Any] = json.loads(filled({"Fn::Sub": text}))
    return body


def test_dashboard_shows_the_button_and_every_metric_of_the_function() -> None:
    button, *others = dashboard()["widgets"]
    assert button["type"] == "custom"
    assert button["properties"]["params"] == {}
    assert ":function:" in button["properties"]["endpoint"]
    shown = {metric[1] for widget in others for metric in widget["properties"].get("metrics", [])}
    code = (PROJECT / "functions" / "migrate" / "app.py").read_text()
    counted = {result.metric for result in RESULTS.values() if result.metric}
    written = counted | set(re.findall(r'"([A-Z][A-Za-z]+)"', code)) - {"ENVIRONMENT"}
    assert counted | {"Failed", "LockBusy"} <= shown
    assert {"LockWaitMs", "LockHeldMs", "DurationMs"} <= shown
    assert {name for name in shown if not name.startswith("Executions")} <= written


def test_widgets_of_the_dashboard_do_not_overlap() -> None:
    fields = [
        (widget["x"] + x, widget["y"] + y)
        for widget in dashboard()["widgets"]
        for x in range(widget["width"])
        for y in range(widget["height"])
    ]
    assert len(fields) == len(set(fields))
    assert max(x for x, _ in fields) < 24


def test_alarms_without_a_condition_are_on_the_dashboard() -> None:
    (widget,) = [widget for widget in dashboard()["widgets"] if widget["type"] == "alarm"]
    always = [name for name in ALARMS if "Condition" not in TRANSFORMED[name]]
    assert len(widget["properties"]["alarms"]) == len(always)
    assert all(f"${{{name}.Arn}}" in json.dumps(properties("HotfixDashboard")) for name in always)


def test_button_is_outside_the_vpc_and_is_told_one_machine() -> None:
    button = properties("ButtonFunction")
    assert "VpcConfig" not in button
    assert button["Environment"]["Variables"]["STATE_MACHINE_ARN"] == {"Ref": "HotfixStateMachine"}
    assert button["Timeout"] < REINVOKED_AFTER_SECONDS
    assert button["Layers"] == properties("MigrateFunction")["Layers"]


def test_report_is_written_outside_the_vpc_by_a_function_that_is_told_how_the_stack_is_set() -> None:
    function = properties("ReportFunction")
    assert not {"VpcConfig", "Layers"} & set(function)
    assert function["Handler"] == "pg_hotfix_report.app.lambda_handler"
    assert function["Environment"]["Variables"] == {
        "ENVIRONMENT": {"Ref": "EnvironmentName"},
        "ENDPOINT_URL": {"Fn::If": ["CallEndpoint", {"Ref": "EndpointUrl"}, ""]},
        "APPLICATION_LOG_GROUP": {"Ref": "ApplicationLogGroup"},
        "ERROR_PATTERN": {"Ref": "ErrorPattern"},
    }
    # It asks for no other: test_log_search.py has all of them.
    assert read_settings(dict.fromkeys(function["Environment"]["Variables"], "")) == Settings("")


def test_runbook_is_the_file_in_runbooks() -> None:
    content = TEMPLATE["Resources"]["ApplyHotfixRunbook"]["Properties"]["Content"]
    location = content["Fn::Transform"]["Parameters"]["Location"]
    assert (PROJECT / location).is_file()
    assert content["Fn::Transform"]["Name"] == "AWS::Include"


def test_missing_column_opens_an_ops_item_that_offers_the_runbook() -> None:
    rule = properties("OpsItemRule")
    assert names_of(rule["EventPattern"]["resources"]) == {"ApplicationErrorAlarm"}
    assert rule["EventPattern"]["detail"]["state"]["value"] == ["ALARM"]
    transformer = rule["Targets"][0]["InputTransformer"]
    text = filled(transformer["InputTemplate"])
    assert set(re.findall(r"<(\w+)>", text)) == set(transformer["InputPathsMap"])
    # EventBridge puts a text between quotation marks, and a list as JSON.
    item = json.loads(text.replace("<resources>", '["arn"]'))
    assert (item["severity"], item["resources"]) == ("1", ["arn"])
    (automation,) = json.loads(item["operationalData"]["/aws/automations"]["value"])
    assert automation == {"automationType": "AWS:SSM:Automation", "automationId": "name"}
    assert "${ApplyHotfixRunbook}" in json.dumps(transformer["InputTemplate"])
    assert json.loads(item["operationalData"]["/aws/dedup"]["value"]) == {"dedupString": "pg-hotfix-missing-column"}
    assert len(item["title"]) <= 1024
    assert len(item["description"]) <= 1024
    # It may hold quotation marks.
    assert "ErrorPattern" not in json.dumps(transformer)


# What an operator reads


def test_nothing_invites_the_host_of_a_proxy() -> None:
    texts = {name: parameter["Description"] for name, parameter in PARAMETERS.items()}
    proxied = {name for name, text in texts.items() if re.search("proxy|pooler", text, re.IGNORECASE)}
    assert proxied == {"DatabaseHost", "DatabaseSecurityGroupId"}
    assert "not that of an RDS Proxy or of another pooler" in texts["DatabaseHost"]
    assert "not of a proxy" in texts["DatabaseSecurityGroupId"]
    readme = (PROJECT / "README.md").read_text()
    assert "- No RDS Proxy, pgbouncer or other pooler: " in readme


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_is_described_bounded_and_explains_its_bounds(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter["Description"].endswith(".")
    assert parameter["ConstraintDescription"].startswith("must be ")
    kind = parameter["Type"]
    if kind == "Number":
        assert "AllowedValues" in parameter or {"MinValue", "MaxValue"} <= set(parameter)
    elif kind in ("String", "CommaDelimitedList"):
        assert "AllowedValues" in parameter or parameter["AllowedPattern"].startswith("^")
    else:
        assert kind.removeprefix("List<").startswith("AWS::EC2::")


def test_there_are_at_most_20_parameters_because_somebody_has_to_read_them() -> None:
    assert len(PARAMETERS) <= 20


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


def test_tags_are_the_stacks_own_and_stand_in_samconfig() -> None:
    """CloudFormation gives them to each resource that takes tags.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-resource-tags.html
    """
    assert not [name for name, resource in RESOURCES.items() if "Tags" in resource["Properties"]]
    for environment, name in ENVIRONMENTS.items():
        tags = SAMCONFIG[environment]["deploy"]["parameters"]["tags"]
        assert tags == f"Application=pg-hotfix Environment={name}"


# samconfig.toml


ENVIRONMENTS = {"default": "dev", "staging": "staging", "prod": "prod"}
environments = pytest.mark.parametrize("environment", ENVIRONMENTS)


def overrides(environment: str) -> dict[str, str]:
    pairs = SAMCONFIG[environment]["deploy"]["parameters"]["parameter_overrides"]
    return dict(pair.split("=", 1) for pair in pairs)


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
    assert RESOURCES["MigrateFunction"]["Metadata"] == {"BuildMethod": "makefile", "WorkingDirectory": "."}


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
