"""Systems Manager Automation, as far as the runbook uses it and its documentation says what it does: nothing else runs
such a document on this machine.

https://docs.aws.amazon.com/systems-manager/latest/userguide/automation-actions.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

EXECUTION_ID = "7d1c9e52-0f4b-4c0e-9d5a-3a6f2b8e1c47"
REFERENCE = re.compile(r"\{\{ *([\w:]+(?:\.\w+)?) *\}\}")
TYPES: dict[str, Any] = {"String": str, "StringList": list, "Boolean": bool, "Integer": int, "StringMap": dict}
LONGEST_SCRIPT_OUTPUT = 100_000
LONGEST_APPROVAL_MESSAGE = 4096


@dataclass
class Automation:
    """What became of one run of the document."""

    status: str = "InProgress"
    visited: list[str] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class StepFailedError(Exception):
    pass


def fill_in(value: Any, stack: dict[str, str]) -> Any:
    """The value with what CloudFormation puts in the place of Ref and Fn::GetAtt."""
    if isinstance(value, list):
        return [fill_in(item, stack) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"Ref": str(name)}:
            return stack[name]
        case {"Fn::GetAtt": [name, attribute]}:
            return stack[f"{name}.{attribute}"]
        case _:
            return {key: fill_in(item, stack) for key, item in value.items()}


def start(
    document: dict[str, Any],
    parameters: dict[str, Any],
    run_machine: Callable[[dict[str, Any]], dict[str, Any]],
    approve: Callable[[dict[str, Any]], bool],
    *,
    fails_with_execution: bool = True,
) -> Automation:
    """The document was run to its end. `run_machine` gets the inputs of a step and returns its outputs; whether the
    step fails because its execution did is not documented.

    Raises:
        ValueError: a parameter is missing or not of its form; no step was run.
    """
    automation = Automation(outputs=check_parameters(document["parameters"], parameters))
    automation.outputs["automation:EXECUTION_ID"] = EXECUTION_ID
    steps = {step["name"]: step for step in document["mainSteps"]}
    name: str | None = document["mainSteps"][0]["name"]
    has_failed = False
    while name:
        step = steps[name]
        automation.visited.append(name)
        try:
            inputs = resolve(step["inputs"], automation.outputs)
            following = run_step(step, inputs, automation.outputs, run_machine, approve)
            if fails_with_execution and automation.outputs.get(f"{name}.status", "SUCCEEDED") != "SUCCEEDED":
                raise StepFailedError(f"the execution ended as {automation.outputs[f'{name}.status']}")
            name = None if step.get("isEnd") else following or step.get("nextStep") or next_in_order(steps, name)
        except StepFailedError as error:
            automation.failures.append(f"{name}: {error}")
            has_failed = has_failed or step.get("isCritical", True)
            on_failure = step.get("onFailure", "Abort")
            name = on_failure.removeprefix("step:") if on_failure.startswith("step:") else None
            if on_failure == "Abort":
                has_failed = True
    automation.status = "Failed" if has_failed else "Success"
    return automation


def next_in_order(steps: dict[str, Any], name: str) -> str | None:
    names = list(steps)
    return next(iter(names[names.index(name) + 1 :]), None)


def check_parameters(declared: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    unknown = given.keys() - declared.keys()
    if unknown:
        raise ValueError(f"unknown parameters: {unknown}")
    values = {}
    for name, parameter in declared.items():
        if name not in given and "default" not in parameter:
            raise ValueError(f"{name} is missing")
        value: Any = given.get(name, parameter.get("default"))
        if not isinstance(value, TYPES[parameter["type"]]):
            raise ValueError(f"{name} is no {parameter['type']}")
        if "allowedPattern" in parameter and not re.search(parameter["allowedPattern"], value):
            raise ValueError(f"{name} is not of the form {parameter['allowedPattern']}")
        if not parameter.get("minItems", 0) <= len(value) <= parameter.get("maxItems", 10_000):
            raise ValueError(f"{name} has {len(value)} items")
        values[name] = value
    return values


def resolve(value: Any, outputs: dict[str, Any]) -> Any:
    """The value with what stands for its references; one that stands alone keeps its type."""
    match value:
        case dict():
            return {key: resolve(item, outputs) for key, item in value.items() if key != "Script"} | {
                key: item for key, item in value.items() if key == "Script"
            }
        case list():
            return [resolve(item, outputs) for item in value]
        case str():
            if alone := REFERENCE.fullmatch(value):
                return outputs[alone[1]]
            return REFERENCE.sub(lambda found: str(outputs[found[1]]), value)
        case _:
            return value


def run_step(
    step: dict[str, Any],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    run_machine: Callable[[dict[str, Any]], dict[str, Any]],
    approve: Callable[[dict[str, Any]], bool],
) -> str | None:
    """Returns the step that a branch has chosen."""
    name = step["name"]
    match step["action"]:
        case "aws:executeScript":
            payload = run_script(inputs)
            for output in step.get("outputs", []):
                value = payload[output["Selector"].removeprefix("$.Payload.")]
                assert isinstance(value, TYPES[output["Type"]])
                outputs[f"{name}.{output['Name']}"] = value
        case "aws:executeStateMachine":
            answer = run_machine(inputs)
            outputs.update({f"{name}.{key}": value for key, value in answer.items()})
        case "aws:approve":
            assert len(inputs["Message"]) <= LONGEST_APPROVAL_MESSAGE
            assert inputs["MinRequiredApprovals"] <= len(inputs["Approvers"])
            if not approve(inputs):
                raise StepFailedError("rejected")
        case "aws:branch":
            met = [choice for choice in inputs["Choices"] if choice["Variable"] == choice["StringEquals"]]
            return str(met[0]["NextStep"] if met else inputs["Default"])
        case action:
            raise AssertionError(f"{action} is not known here")
    return None


def run_script(inputs: dict[str, Any]) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(inputs["Script"], namespace)
    payload = json.loads(json.dumps(inputs.get("InputPayload", {})))
    try:
        answer = json.dumps(namespace[inputs["Handler"]](payload, {}))
    except Exception as error:
        raise StepFailedError(str(error)) from error
    assert len(answer) <= LONGEST_SCRIPT_OUTPUT
    returned: dict[str, Any] = json.loads(answer)
    return returned
