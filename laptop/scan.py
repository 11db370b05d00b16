"""`make scan`: what checkov finds in the template, parliament in every policy of it, and zizmor in the workflows. All
must find nothing."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
from samcli.yamlhelper import yaml_parse  # type: ignore[import-untyped]
from samtranslator.parser.parser import Parser  # type: ignore[import-untyped]
from samtranslator.translator.translator import Translator  # type: ignore[import-untyped]

from laptop.places import PROJECT

type Template = dict[str, Any]

PROGRAMS = PROJECT / ".local" / "scan" / "bin"
TEMPLATE = PROJECT / "template.yaml"
ACCOUNT = "us-east-1:123456789012"
PSEUDO_PARAMETERS = {
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::AccountId": "123456789012",
    "AWS::StackName": "pg-hotfix",
    "AWS::URLSuffix": "amazonaws.com",
}
# What a Ref or an Arn of these comes to: parliament compares each action with the kind of its resource.
SAMPLES = {
    "AWS::IAM::Role": "arn:aws:iam::123456789012:role/name",
    "AWS::Lambda::Function": f"arn:aws:lambda:{ACCOUNT}:function:name",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{ACCOUNT}:log-group:name:*",
    "AWS::SNS::Topic": f"arn:aws:sns:{ACCOUNT}:name",
    "AWS::SQS::Queue": f"arn:aws:sqs:{ACCOUNT}:name",
    "AWS::SSM::Document": "name",
    "AWS::StepFunctions::StateMachine": f"arn:aws:states:{ACCOUNT}:stateMachine:name",
    "DatabaseSecretArn": f"arn:aws:secretsmanager:{ACCOUNT}:secret:name-AbCdEf",
    "EndpointTokenSecretArn": f"arn:aws:secretsmanager:{ACCOUNT}:secret:token-AbCdEf",
}
# What parliament says and is let pass: the kind of finding, what its detail names, and why.
LET_PASS = [
    ("UNKNOWN_CONDITION_FOR_ACTION", "lambda:SourceFunctionArn", "AWS puts it into each call of a VPC function's code"),
    ("RESOURCE_MISMATCH", "ec2:CreateNetworkInterface", "all kinds of this account's resources, as Lambda asks for"),
    ("RESOURCE_MISMATCH", "states:ListExecutions", "parliament asks for map runs, too, which the machine has none of"),
    ("RESOURCE_MISMATCH", "states:DescribeExecution", "parliament asks for express ones, too; these are standard"),
]


def main() -> int:
    found = {
        "checkov": run_checkov(TEMPLATE),
        "parliament": run_parliament(TEMPLATE),
        "zizmor": run_zizmor(PROJECT / ".github" / "workflows"),
    }
    for name, output in found.items():
        if output:
            print(f"{name}:\n{output}", file=sys.stderr)
    return int(any(found.values()))


def run_checkov(template: Path) -> str:
    """Returns what checkov found, or nothing. `.checkov.yaml` says what is let pass, and why."""
    return run([PROGRAMS / "checkov", "--file", template, "--config-file", PROJECT / ".checkov.yaml"])


def run_parliament(template: Path) -> str:
    """Returns what parliament found in the roles' policies, or nothing."""
    with tempfile.TemporaryDirectory() as directory:
        for name, policy in policies(transform(yaml_parse(template.read_text()))):
            Path(directory, f"{name}.json").write_text(json.dumps(policy))
        output = run([PROGRAMS / "parliament", "--json", "--directory", directory])
    return "\n".join(line for line in output.splitlines() if not is_let_pass(line))


def run_zizmor(workflows: Path) -> str:
    """Returns what zizmor found in the workflows, or nothing."""
    return run([PROGRAMS / "zizmor", "--offline", "--no-progress", "--quiet", workflows])


def is_let_pass(line: str) -> bool:
    finding = json.loads(line)
    return any(finding["issue"] == issue and named in str(finding["detail"]) for issue, named, _ in LET_PASS)


def run(command: list[str | Path]) -> str:
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "LOG_LEVEL": "ERROR"}
    result = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return ""
    return (result.stdout or result.stderr).strip() or f"exit {result.returncode}"


def transform(template: Template) -> Template:
    """Returns what CloudFormation gets: the template after SAM's transform, as if its code were uploaded."""
    for name, resource in template["Resources"].items():
        for key in ("CodeUri", "ContentUri", "DefinitionUri"):
            if key in resource["Properties"]:
                resource["Properties"][key] = f"s3://bucket/{name}"
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name="sa-east-1"))
    parameters = template["Parameters"]
    values = {name: parameter["Default"] for name, parameter in parameters.items() if "Default" in parameter}
    transformed: Template = translator.translate(template, values)
    return transformed


def policies(transformed: Template) -> Iterator[tuple[str, Any]]:
    """The name and the document of every policy of a role, with samples in the place of what the stack will know."""
    for name, resource in transformed["Resources"].items():
        if resource["Type"] == "AWS::IAM::Role":
            for policy in resource["Properties"].get("Policies", []):
                yield f"{name}-{policy.get('PolicyName', '')}", fill_in(policy["PolicyDocument"], transformed)


def fill_in(value: Any, template: Template) -> Any:
    """Returns the value with samples for CloudFormation's functions. A condition counts as true."""

    def sample(name: str) -> str:
        logical = name.partition(".")[0]
        kind = template["Resources"].get(logical, {}).get("Type")
        given = template["Parameters"].get(logical, {}).get("Default")
        known = PSEUDO_PARAMETERS | SAMPLES
        return known.get(name) or known.get(logical) or known.get(kind) or str(given or "name")

    if isinstance(value, list):
        return [fill_in(item, template) for item in value if item != {"Ref": "AWS::NoValue"}]
    if not isinstance(value, dict):
        return value
    functions: dict[str, Callable[[Any], Any]] = {
        "Ref": sample,
        "Fn::GetAtt": lambda path: sample(path if isinstance(path, str) else ".".join(path)),
        "Fn::Sub": lambda text: re.sub(r"\$\{([^}]+)\}", lambda found: sample(found[1]), text),
        "Fn::If": lambda branches: fill_in(branches[1], template),
    }
    if len(value) == 1 and (name := next(iter(value))) in functions:
        return functions[name](value[name])
    return {key: fill_in(item, template) for key, item in value.items()}


if __name__ == "__main__":
    sys.exit(main())
