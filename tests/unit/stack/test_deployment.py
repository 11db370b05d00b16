"""What CloudFormation creates from the template, and refuses; and what docs/deploy.md says of it."""

from __future__ import annotations

import re
import shlex
from typing import Any

import click
import pytest
from samcli.cli.types import CfnParameterOverridesType  # type: ignore[import-untyped]
from samcli.yamlhelper import yaml_parse  # type: ignore[import-untyped]

from laptop.deploy_page import BEGIN, END, parameter_tables, with_tables
from laptop.places import PROJECT
from laptop.scan import TEMPLATE
from tests.cloudformation import WHOLE, Deployment, UnresolvedError, accepts

PAGE = (PROJECT / "docs" / "deploy.md").read_text()
PARAMETERS: dict[str, Any] = WHOLE["Parameters"]
RESOURCES: dict[str, Any] = WHOLE["Resources"]
SECRET = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:"


def quick_start() -> dict[str, str]:
    """The overrides of the first command in docs/deploy.md, as SAM reads them."""
    command = re.search(r"sam deploy --parameter-overrides (.+?)\n```", PAGE, re.DOTALL)
    assert command
    given: dict[str, str] = CfnParameterOverridesType().convert(shlex.split(command[1].replace("\\\n", "")), None, None)
    return given


FOUR = quick_start()
ENDPOINT = {"EndpointUrl": "https://api.kaviar.example/drivers/1", "EndpointTokenSecretArn": f"{SECRET}token-Ab12Cd"}
SUBJECTS = [
    "repo:octo-org/hotfixes:environment:prod",
    "repo:octo-org@123456/octo.repo_1@456789:environment:Production-2",
]
# What switches a feature on, and what it creates.
FEATURES: dict[str, tuple[dict[str, str], set[str]]] = {
    "a log": (
        {"ApplicationLogGroup": "/ecs/kaviar"},
        {"ApplicationErrorFilter", "ApplicationErrorAlarm", "OpsItemRule", "OpsItemRole"},
    ),
    "a URL": (ENDPOINT, {"EndpointFunction", "EndpointRole", "EndpointLogGroup"}),
    "an endpoint": (
        {"CreateSecretsManagerEndpoint": "true"},
        {"SecretsManagerEndpoint", "EndpointSecurityGroup", "EndpointIngress"},
    ),
    "GitHub": ({"GitHubSubjects": ",".join(SUBJECTS)}, {"GitHubRole"}),
    "mail": ({"AlarmEmail": "ana@kaviar.example"}, {"EmailSubscription"}),
    "events": ({"AcceptEvents": "true"}, set()),
    "a reservation": ({"ReservedConcurrency": "2"}, set()),
}
ALWAYS = {name for name, resource in RESOURCES.items() if "Condition" not in resource}


def deploy(**given: str) -> Deployment:
    return Deployment(WHOLE, FOUR | given)


def test_the_four_parameters_without_a_default_are_enough_to_deploy() -> None:
    assert set(FOUR) == {name for name, parameter in PARAMETERS.items() if "Default" not in parameter}
    stack = deploy()
    assert stack.refusals() == []
    assert set(stack.resources()) == ALWAYS | {"DatabaseIngress"}
    assert set(stack.outputs()) == set(WHOLE["Outputs"]) - {"GitHubRoleArn"}


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_creates_what_is_its_own(feature: str) -> None:
    given, own = FEATURES[feature]
    stack = deploy(**given)
    assert stack.refusals() == []
    assert set(stack.resources()) == ALWAYS | {"DatabaseIngress"} | own
    assert stack.outputs()


def test_all_features_together_create_everything() -> None:
    stack = deploy(**{name: value for given, _ in FEATURES.values() for name, value in given.items()})
    assert stack.refusals() == []
    assert set(stack.resources()) == set(RESOURCES)
    assert set(stack.outputs()) == set(WHOLE["Outputs"])


def test_a_rule_of_the_database_is_left_to_others() -> None:
    assert set(deploy(AddDatabaseIngressRule="false").resources()) == ALWAYS


@pytest.mark.parametrize("name", FOUR)
def test_none_of_the_four_can_be_left_out(name: str) -> None:
    with pytest.raises(UnresolvedError, match=f"^{name} has no value$"):
        Deployment(WHOLE, {other: value for other, value in FOUR.items() if other != name})


def test_a_name_of_what_is_not_created_would_be_found() -> None:
    with pytest.raises(UnresolvedError, match=r"^OpsItemRole is not created$"):
        deploy().resolve({"Fn::Sub": "${OpsItemRole.Arn}"})
    with pytest.raises(UnresolvedError, match=r"^GitHubRepository is not created$"):
        deploy().resolve({"Fn::If": ["SendEmail", "", {"Ref": "GitHubRepository"}]})


# What is refused before anything is created

OF_ANOTHER_VPC = "SubnetsInVpc: Every subnet in SubnetIds must be in the VPC given as VpcId."
WITHOUT_TOKEN = (
    "EndpointNeedsToken: EndpointUrl needs EndpointTokenSecretArn, the secret with its Authorization header."
)
OTHER_VPC, OTHER_SUBNET = "vpc-0fedcba9876543210", "subnet-0cccccccccccccccc"
REFUSED: list[tuple[dict[str, str], list[str]]] = [
    ({"SubnetIds": f"{FOUR['SubnetIds']},{OTHER_SUBNET}"}, [OF_ANOTHER_VPC]),
    ({"SubnetIds": OTHER_SUBNET}, [OF_ANOTHER_VPC]),
    ({"VpcId": OTHER_VPC}, [OF_ANOTHER_VPC]),
    ({"EndpointUrl": "https://api.example"}, [WITHOUT_TOKEN]),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
def test_what_can_not_work_together_is_refused(given: dict[str, str], said: list[str]) -> None:
    assert deploy(**given).refusals() == said


def test_a_database_in_any_vpc_is_not_refused() -> None:
    assert deploy(VpcId=OTHER_VPC, SubnetIds=OTHER_SUBNET).refusals() == []


def test_no_rule_holds_whatever_is_given() -> None:
    can_fail = {description for _, said in REFUSED for description in said}
    assert can_fail == {
        f"{name}: {assertion['AssertDescription']}"
        for name, rule in WHOLE["Rules"].items()
        for assertion in rule["Assertions"]
    }


@pytest.mark.parametrize("parameter", ["DatabaseSecretArn", "EndpointTokenSecretArn"])
def test_a_secret_is_one_secret_by_its_whole_arn(parameter: str) -> None:
    assert accepts(PARAMETERS[parameter], f"{SECRET}prod/drivers-Ab12Cd")
    assert not accepts(PARAMETERS[parameter], f"{SECRET}prod/*")
    assert not accepts(PARAMETERS[parameter], f"{SECRET}prod/drivers")


INSTANCE = "kaviar.c1a2b3.sa-east-1.rds.amazonaws.com"


@pytest.mark.parametrize(
    "host", ["", INSTANCE, "kaviar.cluster-c1a2b3.sa-east-1.rds.amazonaws.com", "proxy-less.example"]
)
def test_the_name_of_a_database_is_a_host(host: str) -> None:
    assert accepts(PARAMETERS["DatabaseHost"], host)


@pytest.mark.parametrize(
    "host",
    [
        "kaviar.proxy-c1a2b3.sa-east-1.rds.amazonaws.com",
        "kaviar-ro.endpoint.proxy-c1a2b3.sa-east-1.rds.amazonaws.com",
        f"{INSTANCE}:5432",
        f"postgres://{INSTANCE}",
    ],
)
def test_the_name_of_a_proxy_or_no_name_is_no_host(host: str) -> None:
    assert not accepts(PARAMETERS["DatabaseHost"], host)


GITHUB_SUBJECTS = {
    "": True,
    **dict.fromkeys(SUBJECTS, True),
    "octo-org/hotfixes": False,
    "repo:octo-org/hotfixes": False,
    "repo:octo-org/hotfixes:environment:": False,
    "repo:octo-org/hotfixes:ref:refs/heads/main": False,  # No environment, so nobody who approves.
    "repo:octo-org/hotfixes:pull_request": False,
    "repo:octo-org:environment:prod": False,
    "repo:octo-org/*:environment:prod": False,
    "repo:octo-org/hotfixes:environment:*": False,
    "repo:octo-org/hotfixes:environment:prod?": False,
    "repo:octo-org/octo/repo:environment:prod": False,
    "repo:octo-org@123456/octo.repo_1:environment:prod": False,  # One id alone is in no token.
    "repo:octo-org/octo.repo_1@456789:environment:prod": False,
    "repo:octo-org@/octo.repo_1@:environment:prod": False,
    "repo:octo-org@12x/octo.repo_1@456789:environment:prod": False,
}


@pytest.mark.parametrize("subject", GITHUB_SUBJECTS)
def test_a_github_subject_names_one_repository_and_one_environment(subject: str) -> None:
    assert accepts(PARAMETERS["GitHubSubjects"], subject) is GITHUB_SUBJECTS[subject]


def test_one_wrong_subject_among_others_is_refused() -> None:
    with pytest.raises(UnresolvedError, match=r"^GitHubSubjects must be empty or subjects of GitHub tokens"):
        deploy(GitHubSubjects=f"{SUBJECTS[0]},repo:octo-org/*:environment:prod")


def test_the_github_role_trusts_what_was_given_to_the_letter() -> None:
    role = deploy(GitHubSubjects=", ".join(SUBJECTS)).resources()["GitHubRole"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    # A pattern would trust whoever takes over a name, or any environment.
    assert statement["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": SUBJECTS,
        }
    }


# The page


def test_the_page_describes_every_parameter_as_the_template_does() -> None:
    assert with_tables(PAGE, parameter_tables(WHOLE)) == PAGE, "docs/deploy.md is behind template.yaml:  make reference"


def test_the_page_tells_every_resource_that_the_template_has() -> None:
    told = re.findall(r"^\| `(\w+)` \| AWS::", PAGE, re.MULTILINE)
    assert told == list(yaml_parse(TEMPLATE.read_text())["Resources"])


def test_the_page_without_its_tables_is_short() -> None:
    before, _, rest = PAGE.partition(BEGIN)
    assert len((before + rest.partition(END)[2]).splitlines()) <= 150


SWITCHES = ("AlarmEmail", "ApplicationLogGroup", "EndpointUrl", "GitHubSubjects")


def test_what_is_left_out_keeps_its_value_and_people_are_told_how_to_switch_it_off() -> None:
    samconfig = (PROJECT / "samconfig.toml").read_text().partition("version = ")[0]
    for text in (samconfig.replace("\n#", ""), PAGE.replace("\n", " ")):
        assert "keeps the value of the deployment before, not its default" in text
        assert sorted(re.findall(r"'(\w+)=\"\"'", text)) == [*SWITCHES]
    with pytest.raises(click.BadParameter):  # Without the quotation marks SAM refuses all of them.
        CfnParameterOverridesType().convert(["EndpointUrl="], None, None)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_feature_is_switched_off_by_nothing_between_quotes(name: str) -> None:
    given = CfnParameterOverridesType().convert([f'{name}=""'], None, None)
    assert given == {name: ""}
    on = {key: value for feature, _ in FEATURES.values() for key, value in feature.items()}
    assert set(deploy(**on | given).resources()) < set(deploy(**on).resources())


def test_a_parameter_is_given_with_nothing_in_it_only_if_that_is_its_default() -> None:
    texts = {name for name, parameter in PARAMETERS.items() if parameter["Type"] in ("String", "CommaDelimitedList")}
    assert {name for name in texts if accepts(PARAMETERS[name], "")} == {
        name for name in texts if PARAMETERS[name].get("Default") == ""
    }
