"""What CloudFormation makes of the template in a deployment: which resources it creates, and with what.

As far as the template uses it, and its documentation says what it does; nothing on this machine deploys a template.
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from samcli.yamlhelper import yaml_parse  # type: ignore[import-untyped]

from laptop.places import PROJECT
from laptop.scan import TEMPLATE, transform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from laptop.scan import Template

WHOLE = transform(yaml_parse(TEMPLATE.read_text()))

# The subnets of the account, each with its VPC.
SUBNETS = {
    "subnet-0aaaaaaaaaaaaaaaa": "vpc-0123456789abcdef0",
    "subnet-0bbbbbbbbbbbbbbbb": "vpc-0123456789abcdef0",
    "subnet-0cccccccccccccccc": "vpc-0fedcba9876543210",
}
PSEUDO_PARAMETERS = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "sa-east-1",
    "AWS::StackId": "arn:aws:cloudformation:sa-east-1:123456789012:stack/pg-hotfix-dev/8f0c6a20",
    "AWS::StackName": "pg-hotfix-dev",
}
# Attributes that are no text. Every other one is its own name here, as every resource is.
LISTS = {"DnsEntries": ["Z0000:vpce-0123.secretsmanager.sa-east-1.vpce.amazonaws.com"]}
LEFT_OUT = {"Ref": "AWS::NoValue"}
# What the account has, by CloudFormation's own types: other ids are refused before anything is created.
IDS = {
    "AWS::EC2::VPC::Id": set(SUBNETS.values()),
    "AWS::EC2::SecurityGroup::Id": {"sg-0123456789abcdef0"},
    "AWS::EC2::Subnet::Id": set(SUBNETS),
}


class UnresolvedError(Exception):
    """CloudFormation would refuse the template, or fail while it creates the stack."""


@dataclass(frozen=True)
class Deployment:
    """A stack of the template, which is one after SAM's transform, with the parameters that were given.

    Raises:
        UnresolvedError: a parameter has no value, or one that it does not accept.
    """

    template: Template
    given: Mapping[str, str]

    def __post_init__(self) -> None:
        if unknown := set(self.given) - set(self.template["Parameters"]):
            raise UnresolvedError(f"{sorted(unknown)} are not parameters")
        for name in self.template["Parameters"]:
            self.value_of(name)

    def value_of(self, name: str) -> str | list[str]:
        parameter = self.template["Parameters"][name]
        if name not in self.given and "Default" not in parameter:
            raise UnresolvedError(f"{name} has no value")
        text = str(self.given.get(name, parameter.get("Default")))
        kind = parameter["Type"]
        is_list = kind == "CommaDelimitedList" or kind.startswith("List<")
        entries = [entry.strip() for entry in text.split(",")] if is_list else [text]
        if not all(accepts(parameter, entry) for entry in entries):
            raise UnresolvedError(f"{name} {parameter['ConstraintDescription']}")
        return entries if is_list else text

    def refusals(self) -> list[str]:
        """What the rules say against these parameters."""
        return [
            f"{name}: {assertion['AssertDescription']}"
            for name, rule in self.template["Rules"].items()
            if self.resolve(rule.get("RuleCondition", True))
            for assertion in rule["Assertions"]
            if not self.resolve(assertion["Assert"])
        ]

    def holds(self, condition: str | None) -> bool:
        return condition is None or bool(self.resolve(self.template["Conditions"][condition]))

    def resources(self) -> dict[str, Any]:
        """Each resource that is created, with its properties resolved."""
        return {
            name: self.resolve(resource.get("Properties", {}))
            for name, resource in self.template["Resources"].items()
            if self.holds(resource.get("Condition"))
        }

    def outputs(self) -> dict[str, str]:
        return {
            name: self.resolve(output["Value"])
            for name, output in self.template["Outputs"].items()
            if self.holds(output.get("Condition"))
        }

    def resolve(self, value: Any) -> Any:
        """The value without any function.

        Raises:
            UnresolvedError: a name in it is that of nothing, or of a resource that is not created.
        """
        if isinstance(value, list):
            return [self.resolve(item) for item in value if not self.is_left_out(item)]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function in ("Ref", "Condition") and isinstance(argument, str):
                return self.refer(argument) if function == "Ref" else self.holds(argument)
            if function.startswith("Fn::"):
                return self.call(function, argument)
        return {key: self.resolve(item) for key, item in value.items() if not self.is_left_out(item)}

    def is_left_out(self, value: Any) -> bool:
        while isinstance(value, dict) and set(value) == {"Fn::If"}:
            value = self.choose(*value["Fn::If"])
        return bool(value == LEFT_OUT)

    def choose(self, condition: str, then: Any, otherwise: Any) -> Any:
        return then if self.holds(condition) else otherwise

    def refer(self, name: str) -> Any:
        if name in PSEUDO_PARAMETERS:
            return PSEUDO_PARAMETERS[name]
        if name in self.template["Parameters"]:
            return self.value_of(name)
        if not self.is_created(name):
            raise UnresolvedError(f"{name} is not created")
        return name

    def is_created(self, name: str) -> bool:
        resource = self.template["Resources"].get(name)
        return resource is not None and self.holds(resource.get("Condition"))

    def call(self, function: str, argument: Any) -> Any:
        match function:
            case "Fn::If":
                return self.resolve(self.choose(*argument))
            case "Fn::GetAtt":
                name, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
                return LISTS.get(attribute, f"{self.refer(name)}.{attribute}")
            case "Fn::Sub":
                text, own = argument if isinstance(argument, list) else (argument, {})
                return re.sub(r"\$\{([^!}]+)\}", lambda found: self.substitute(found[1], own), text)
            case "Fn::Transform":
                assert argument["Name"] == "AWS::Include"
                return self.resolve(read_yaml(argument["Parameters"]["Location"]))
            case "Fn::ValueOf":
                parameter, attribute = argument
                assert (self.template["Parameters"][parameter]["Type"], attribute) == (
                    "List<AWS::EC2::Subnet::Id>",
                    "VpcId",
                )
                return [SUBNETS[subnet] for subnet in self.value_of(parameter)]
        found = self.resolve(argument)
        match function:
            case "Fn::Base64":
                return base64.b64encode(found.encode()).decode()
            case "Fn::Join":
                return found[0].join(found[1])
            case "Fn::Select":
                return found[1][int(found[0])]
            case "Fn::Split":
                return found[1].split(found[0])
            case "Fn::Equals":
                return found[0] == found[1]
            case "Fn::Not":
                return not found[0]
            case "Fn::And":
                return all(found)
            case "Fn::EachMemberEquals":
                return all(one == found[1] for one in found[0])
        raise UnresolvedError(f"{function} is not known here")

    def substitute(self, name: str, own: Mapping[str, Any]) -> str:
        if name in own:
            return str(self.resolve(own[name]))
        return str(self.call("Fn::GetAtt", name) if "." in name else self.refer(name))


def accepts(parameter: Mapping[str, Any], text: str) -> bool:
    """Whether the parameter, or one entry of its list, may be this."""
    kind = parameter["Type"].removeprefix("List<").removesuffix(">")
    if kind in IDS:
        return text in IDS[kind]
    if "AllowedValues" in parameter:
        return text in map(str, parameter["AllowedValues"])
    if kind == "Number":
        return text.isdecimal() and parameter["MinValue"] <= int(text) <= parameter["MaxValue"]
    long_enough = parameter.get("MinLength", 0) <= len(text) <= parameter.get("MaxLength", 4096)
    return long_enough and bool(re.fullmatch(parameter["AllowedPattern"], text))


@cache
def read_yaml(location: str) -> Any:
    return yaml_parse((PROJECT / location).read_text())
