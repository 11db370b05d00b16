"""The runbook holds together, and leads where it says: its scripts are run, and so is the whole of it, with answers as
docs/response.json has them. tests/e2e/test_ways_in.py runs it against the true state machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import yaml

from pg_hotfix.file.hotfix_id import HOTFIX_ID
from pg_hotfix.request import parse_request
from tests import ssm
from tests.conftest import HOTFIX
from tests.samples import BLOCKER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE = Path("runbooks/apply-hotfix.yaml")
# In C: SAM's parser makes every other test's SafeLoader answer in OrderedDict, which safe_dump can't write.
DOCUMENT: dict[str, Any] = yaml.load(FILE.read_text(), yaml.CSafeLoader)
STEPS: dict[str, Any] = {step["name"]: step for step in DOCUMENT["mainSteps"]}
ACCOUNT = "123456789012"
MACHINE = f"arn:aws:states:sa-east-1:{ACCOUNT}:stateMachine:pg-hotfix-prod-hotfix"
TOPIC = f"arn:aws:sns:sa-east-1:{ACCOUNT}:Automation-pg-hotfix-prod"
STACK = {
    "HotfixStateMachine": MACHINE,
    "HotfixTopic": TOPIC,
    "RunbookRole.Arn": f"arn:aws:iam::{ACCOUNT}:role/pg-hotfix-prod-RunbookRole",
}
ANA = f"arn:aws:iam::{ACCOUNT}:user/ana"
PARAMETERS = {"HotfixId": HOTFIX, "Reason": "INC-4711", "Approvers": [ANA]}

# Of each action: the inputs it must have, those it may have, and what it gives without being told.
# https://docs.aws.amazon.com/systems-manager/latest/userguide/automation-actions.html
ACTIONS: dict[str, tuple[set[str], set[str], set[str]]] = {
    "aws:executeScript": ({"Runtime", "Handler", "Script"}, {"InputPayload"}, {"Payload"}),
    "aws:executeStateMachine": (
        {"stateMachineArn"},
        {"name", "input"},
        {"executionArn", "input", "name", "output", "startDate", "stateMachineArn", "status", "stopDate"},
    ),
    "aws:branch": ({"Choices"}, {"Default"}, set()),
    "aws:approve": (
        {"Approvers"},
        {"NotificationArn", "Message", "MinRequiredApprovals"},
        {"ApprovalStatus", "ApproverDecisions"},
    ),
}
LONGEST_SECONDS = {"aws:executeScript": 600, "aws:approve": 2_592_000}
COMMON_KEYS = {"name", "description", "action", "inputs", "outputs", "timeoutSeconds", "onFailure", "isCritical"}
PARAMETER_KEYS = {"type", "description", "default", "allowedPattern", "minItems", "maxItems"}


def followers(step: dict[str, Any]) -> list[str]:
    """Where the document goes after the step, whatever becomes of it."""
    names = [step["nextStep"]] if "nextStep" in step else []
    names += [step["onFailure"].removeprefix("step:")] if step["onFailure"].startswith("step:") else []
    if step["action"] == "aws:branch":
        names += [choice["NextStep"] for choice in step["inputs"]["Choices"]] + [step["inputs"]["Default"]]
    return names


def paths_to(target: str) -> list[list[str]]:
    """Every way from the first step to just before that one."""
    found, open_paths = [], [[DOCUMENT["mainSteps"][0]["name"]]]
    while open_paths:
        path = open_paths.pop()
        if path[-1] == target:
            found.append(path[:-1])
        else:
            open_paths += [[*path, name] for name in followers(STEPS[path[-1]])]
    return found


def outputs_of(step: dict[str, Any]) -> set[str]:
    return {output["Name"] for output in step.get("outputs", [])} | ACTIONS[step["action"]][2]


def references(value: Any) -> list[str]:
    without_scripts = re.sub(r"Script: .*", "", yaml.safe_dump(value, width=100_000))
    return ssm.REFERENCE.findall(without_scripts)


def texts_in(value: Any) -> Iterator[str]:
    """Every text in it, keys included."""
    if isinstance(value, dict | list):
        for inner in [*value, *(value.values() if isinstance(value, dict) else [])]:
            yield from texts_in(inner)
    elif isinstance(value, str):
        yield value


# What the document is made of


def test_the_document_is_of_the_schema_of_automations() -> None:
    assert DOCUMENT["schemaVersion"] == "0.3"
    assert set(DOCUMENT) == {"schemaVersion", "description", "assumeRole", "parameters", "outputs", "mainSteps"}
    assert DOCUMENT["assumeRole"] == "{{ AutomationAssumeRole }}"
    for parameter in DOCUMENT["parameters"].values():
        assert set(parameter) <= PARAMETER_KEYS
        assert parameter["type"] in ssm.TYPES
        assert parameter["description"]


@pytest.mark.parametrize("step", STEPS.values(), ids=lambda step: str(step["name"]))
def test_each_step_has_what_its_action_takes(step: dict[str, Any]) -> None:
    required, optional, _ = ACTIONS[step["action"]]
    assert required <= set(step["inputs"]) <= required | optional
    assert set(step) <= COMMON_KEYS | {"nextStep", "isEnd"}
    assert re.fullmatch(r"[A-Za-z0-9_]{3,128}", step["name"])
    for output in step.get("outputs", []):
        assert (set(output), output["Type"] in ssm.TYPES) == ({"Name", "Selector", "Type"}, True)
        assert re.fullmatch(r"\$\.Payload\.\w+", output["Selector"])


@pytest.mark.parametrize("step", STEPS.values(), ids=lambda step: str(step["name"]))
def test_each_step_ends_in_time_and_its_failure_fails_the_whole(step: dict[str, Any]) -> None:
    assert 0 < step["timeoutSeconds"] <= LONGEST_SECONDS.get(step["action"], 86_400)
    assert step["isCritical"] is True
    assert step["onFailure"] == "Abort" or step["onFailure"].removeprefix("step:") in STEPS


def test_the_state_machine_ends_by_itself_before_a_step_gives_it_up() -> None:
    machine = yaml.safe_load(Path("statemachine/hotfix.asl.yaml").read_text())
    seconds = [step["timeoutSeconds"] for step in STEPS.values() if step["action"] == "aws:executeStateMachine"]
    assert min(seconds) > machine["TimeoutSeconds"]


def test_no_two_steps_have_one_name() -> None:
    assert len(STEPS) == len(DOCUMENT["mainSteps"])


@pytest.mark.parametrize("step", STEPS.values(), ids=lambda step: str(step["name"]))
def test_each_step_says_what_comes_after_it(step: dict[str, Any]) -> None:
    # Left out, the next one in the file would be run, whatever it is.
    ways = [step.get("isEnd") is True, "nextStep" in step, step["action"] == "aws:branch"]
    assert sum(ways) == 1
    assert set(followers(step)) <= set(STEPS)


@pytest.mark.parametrize("name", STEPS)
def test_each_step_is_reached_and_no_way_goes_in_circles(name: str) -> None:
    paths = paths_to(name)
    assert paths
    assert all(len(path) == len(set(path)) for path in paths)


@pytest.mark.parametrize("step", STEPS.values(), ids=lambda step: str(step["name"]))
def test_each_reference_is_to_a_parameter_or_to_a_step_that_has_been_run(step: dict[str, Any]) -> None:
    for reference in references(step["inputs"]):
        if "." in reference:
            source, _, output = reference.partition(".")
            assert output in outputs_of(STEPS[source])
            assert all(source in path for path in paths_to(step["name"]))
        else:
            assert reference in {*DOCUMENT["parameters"], "automation:EXECUTION_ID"}


def test_the_outputs_of_the_document_are_those_of_steps() -> None:
    for output in DOCUMENT["outputs"]:
        step, _, name = output.partition(".")
        assert name in {declared["Name"] for declared in STEPS[step]["outputs"]}


def test_every_change_is_bound_to_an_approval_or_there_was_nothing_to_change() -> None:
    for path in paths_to("Apply"):
        assert {"Approve", "ApproveAndNotify"} & set(path)


def test_it_holds_no_sql_and_calls_only_the_one_machine() -> None:
    text = FILE.read_text()
    assert not re.search(r"\b(ALTER|SELECT|INSERT|UPDATE|DELETE|DROP|CREATE)\b", text)
    machines = [step["inputs"]["stateMachineArn"] for step in STEPS.values() if "stateMachineArn" in step["inputs"]]
    assert machines == [{"Ref": "HotfixStateMachine"}] * 3
    assert set(re.findall(r"boto3\.client\(\"(\w+)\"", text)) == {"stepfunctions"}
    assert set(re.findall(r"client\.(\w+)\(", text)) == {"describe_execution"}


def test_only_what_cloudformation_fills_in_from_the_stack_is_left_open() -> None:
    left_open = re.findall(r"Ref: (\w+)|Fn::GetAtt: \[(\w+), (\w+)\]", FILE.read_text())
    assert {name or f"{resource}.{attribute}" for name, resource, attribute in left_open} == set(STACK)
    assert not re.search(r"!(Ref|Sub|GetAtt)\b", FILE.read_text())  # AWS::Include does not know the short forms.


@pytest.mark.parametrize("path", sorted(Path("runbooks").iterdir()), ids=str)
def test_double_braces_are_references_and_nothing_else(path: Path) -> None:
    # Systems Manager looks for them in every text of a document, a script or a description included.
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    known = {*document["parameters"], "automation:EXECUTION_ID"}
    known |= {f"{step['name']}.{output}" for step in document["mainSteps"] for output in outputs_of(step)}
    for step in document["mainSteps"]:
        script = step["inputs"].get("Script", "")
        assert "{{" not in script, step["name"]
        assert "}}" not in script, step["name"]
    for text in texts_in(document):
        assert set(ssm.REFERENCE.findall(text)) <= known, text
        without = ssm.REFERENCE.sub("", text)
        assert "{{" not in without, text
        assert "}}" not in without, text


@pytest.mark.parametrize("script", [step["inputs"]["Script"] for step in STEPS.values() if "Script" in step["inputs"]])
def test_each_script_is_python_3_11(script: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--target-version=py311", "--select=E9,F", "-"]
    result = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("name", "value", "is_accepted"),
    [
        ("HotfixId", HOTFIX, True),
        ("HotfixId", "drivers", False),
        ("HotfixId", f"{HOTFIX}; DROP TABLE drivers", False),
        ("HotfixId", f"../{HOTFIX}", False),
        ("Reason", 'INC-4711: "GET /api/admin/drivers/:id" answers 500 \\ ação', True),
        ("Reason", "", False),
        ("Reason", "INC-4711\nsecond line", False),
        ("Reason", "{{ ssm:parameter }}", False),
        ("Reason", "x" * 1001, False),
        ("RequestedBy", "ana.souza", True),
        ("RequestedBy", "{{ Reason }}", False),
        ("NotificationArn", "", True),
        ("NotificationArn", TOPIC, True),
        ("NotificationArn", TOPIC.replace("Automation-", ""), False),
        ("AutomationAssumeRole", "", False),
        ("Approvers", [], False),
        ("Approvers", [ANA] * 11, False),
    ],
)
def test_a_parameter_is_of_its_form_or_nothing_is_run(name: str, value: Any, is_accepted: bool) -> None:
    declared = ssm.fill_in(DOCUMENT["parameters"], STACK)
    if is_accepted:
        assert ssm.check_parameters(declared, PARAMETERS | {name: value})[name] == value
    else:
        with pytest.raises(ValueError, match=name):
            ssm.check_parameters(declared, PARAMETERS | {name: value})


def test_the_form_of_an_id_is_that_of_the_function() -> None:
    assert DOCUMENT["parameters"]["HotfixId"]["allowedPattern"] == f"^{HOTFIX_ID.pattern}$"


# Where it leads


def response(action: str, result: str, **changes: Any) -> dict[str, Any]:
    """An answer of the function, in the shape that test_readme.py compares with a real one."""
    shown: dict[str, Any] = json.loads(Path("docs/response.json").read_text())
    return shown | {"action": action, "result": result} | changes


def planned(result: str = "would_apply", **changes: Any) -> dict[str, Any]:
    plan = response("plan", result, summary="public.drivers.active_since missing; apply would run the file.", **changes)
    if result == "would_apply":
        plan["objects"][0] |= {"actual": "missing", "matches": False}
    return {"result": result, "summary": plan["summary"], "plan": plan}


def applied(result: str = "applied") -> dict[str, Any]:
    return {"result": result, "summary": f"public.drivers.active_since {result}."}


def verified(**more: Any) -> dict[str, Any]:
    verify = response("verify", "verified", summary="public.drivers.active_since as expected, and can be selected.")
    return {"result": "verified", "summary": verify["summary"], "verify": verify} | more


@dataclass
class RecordedMachine:
    """Answers each action so: with an output, or with an error and its text."""

    answers: dict[str, Any]
    executions: dict[str, dict[str, Any]] = field(default_factory=dict)
    exceptions: Any = field(default_factory=lambda: SimpleNamespace(ExecutionDoesNotExist=KeyError))

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What aws:executeStateMachine does."""
        arn = f"{inputs['stateMachineArn'].replace(':stateMachine:', ':execution:')}:{inputs['name']}"
        answer = self.answers[json.loads(inputs["input"])["action"]]
        if isinstance(answer, tuple):
            self.executions[arn] = {"status": "FAILED", "output": "", "error": answer[0], "cause": answer[1]}
        else:
            self.executions[arn] = {"status": "SUCCEEDED", "output": json.dumps(answer)}
        return {"executionArn": arn} | self.executions[arn]

    def describe_execution(self, executionArn: str) -> dict[str, Any]:  # noqa: N803
        return self.executions[executionArn]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RecordedMachine]:
    def make(**answers: Any) -> RecordedMachine:
        machine = RecordedMachine(answers)
        monkeypatch.setattr(boto3, "client", lambda service, region_name: machine)
        return machine

    return make


def run(
    machine: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    approved: bool = True,
    fails_with_execution: bool = True,
    **parameters: Any,
) -> Any:
    """The runbook was run. Returns what became of it, the requests to the machine, and what the approvers read."""
    requests, messages = [], []

    def record(inputs: dict[str, Any]) -> dict[str, Any]:
        requests.append((inputs["name"], json.loads(inputs["input"])))
        return machine(inputs)

    def decide(inputs: dict[str, Any]) -> bool:
        messages.append(inputs)
        return approved

    document = ssm.fill_in(DOCUMENT, STACK)
    given = PARAMETERS | parameters
    automation = ssm.start(document, given, record, decide, fails_with_execution=fails_with_execution)
    return automation, requests, messages


def test_it_plans_waits_applies_the_plan_and_verifies(answer: Callable[..., RecordedMachine]) -> None:
    plan = planned(blockers=[BLOCKER])
    automation, requests, messages = run(
        answer(plan=plan, apply=applied(), verify=verified(endpoint={"status": 200}, watch={"minutes": 5}))
    )
    assert automation.failures == []
    assert automation.status == "Success"
    assert automation.visited == [
        *("WriteRequests", "Plan", "ShowPlan", "Decide", "ApproveAndNotify"),
        *("Apply", "ShowApply", "Verify", "ShowResult"),
    ]
    assert [request["action"] for _, request in requests] == ["plan", "apply", "verify"]
    assert requests[1][1]["plan_hash"] == plan["plan"]["plan_hash"]
    assert [name for name, _ in requests] == [f"{ssm.EXECUTION_ID}-{action}" for action in ("plan", "apply", "verify")]
    assert messages[0]["NotificationArn"] == TOPIC
    assert messages[0]["Message"] == (
        "20260212092000_add_drivers_active_since in kaviar at kaviar.c1a2b3.sa-east-1.rds.amazonaws.com\n"
        "asked for by SSM Automation: INC-4711\n"
        "public.drivers.active_since missing; apply would run the file.\n"
        "public.drivers.active_since  expected: timestamp with time zone null  found: missing\n"
        "public.drivers has a number of rows that is not known\n"
        "In the way now: pid 4711 (billing, nightly-report) for 340 s, ACCESS SHARE on public.drivers\n"
        f"This would run:\n{plan['plan']['sql'].strip()}"
    )
    assert automation.outputs["ShowApply.words"] == "Applied now: public.drivers.active_since applied."
    assert automation.outputs["ShowResult.words"] == (
        "Proved once more: public.drivers.active_since as expected, and can be selected.\n"
        "public.drivers.active_since  timestamp with time zone null\n"
        "The endpoint answered 200.\n"
        "The application's log was free of the error for 5 min."
    )


def test_what_is_there_already_is_only_verified(answer: Callable[..., RecordedMachine]) -> None:
    automation, requests, messages = run(answer(plan=planned("already_applied"), verify=verified()))
    assert (automation.status, messages) == ("Success", [])
    assert automation.visited == ["WriteRequests", "Plan", "ShowPlan", "Decide", "Verify", "ShowResult"]
    assert [request["action"] for _, request in requests] == ["plan", "verify"]
    assert automation.outputs["ShowResult.words"].startswith("It was there already: ")


def test_without_a_topic_the_approvers_are_not_told_but_asked(answer: Callable[..., RecordedMachine]) -> None:
    machine = answer(plan=planned(), apply=applied(), verify=verified())
    automation, _, messages = run(machine, NotificationArn="")
    assert automation.status == "Success"
    assert "Approve" in automation.visited
    assert "NotificationArn" not in messages[0]


def test_what_is_refused_is_not_applied(answer: Callable[..., RecordedMachine]) -> None:
    automation, requests, _ = run(answer(plan=planned()), approved=False)
    assert automation.status == "Failed"
    assert [request["action"] for _, request in requests] == ["plan"]


ADVICE = "public.drivers.active_since exists but is not what it should be. Nothing was changed.\nCorrect the file."


@pytest.mark.parametrize("failing", ["plan", "apply", "verify"])
def test_a_failure_fails_the_whole_with_the_text_for_the_operator(
    answer: Callable[..., RecordedMachine], failing: str
) -> None:
    answers: dict[str, Any] = {"plan": planned(), "apply": applied(), "verify": verified()}
    automation, requests, _ = run(answer(**answers | {failing: ("MismatchError", ADVICE)}))
    assert automation.status == "Failed"
    assert requests[-1][1]["action"] == failing
    assert automation.failures[-1] == f"ExplainFailure: {failing}: MismatchError: {ADVICE}"


@pytest.mark.parametrize("failing", ["apply", "verify"])
def test_a_failure_that_has_not_failed_its_step_is_explained_all_the_same(
    answer: Callable[..., RecordedMachine], failing: str
) -> None:
    answers: dict[str, Any] = {"plan": planned(), "apply": applied(), "verify": verified()}
    machine = answer(**answers | {failing: ("MismatchError", ADVICE)})
    automation, requests, _ = run(machine, fails_with_execution=False)
    assert automation.status == "Failed"
    assert requests[-1][1]["action"] == failing
    assert automation.failures[-1] == f"ExplainFailure: {failing}: MismatchError: {ADVICE}"
    assert "ShowResult.words" not in automation.outputs
    assert ("ShowApply.words" in automation.outputs) == (failing == "verify")


def test_a_plan_that_failed_without_failing_its_step_is_not_applied(answer: Callable[..., RecordedMachine]) -> None:
    automation, requests, _ = run(answer(plan=("LoginError", ADVICE)), fails_with_execution=False)
    assert (automation.status, len(requests)) == ("Failed", 1)
    assert automation.failures == ["ShowPlan: The plan ended as FAILED. Nothing was changed."]


def test_what_somebody_else_has_applied_meanwhile_is_not_called_applied_now(
    answer: Callable[..., RecordedMachine],
) -> None:
    automation, _, _ = run(answer(plan=planned(), apply=applied("already_applied"), verify=verified()))
    assert automation.status == "Success"
    assert automation.outputs["ShowApply.words"].startswith("It was there already: ")
    assert "Applied" not in automation.outputs["ShowResult.words"]


def test_an_apply_whose_answer_nobody_knows_stops_it(answer: Callable[..., RecordedMachine]) -> None:
    automation, requests, _ = run(answer(plan=planned(), apply=applied("would_apply"), verify=verified()))
    assert (automation.status, requests[-1][1]["action"]) == ("Failed", "apply")
    assert automation.failures == [
        "ShowApply: The apply says would_apply, which is not understood.",
        "ExplainFailure: apply succeeded, but the step after it did not: look at it above.",
    ]


def test_a_machine_that_does_not_start_is_told_apart(answer: Callable[..., RecordedMachine]) -> None:
    answer(plan=planned())

    def refuse(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"status": "AccessDenied"}

    assert run(refuse)[0].failures[-1].startswith("ExplainFailure: The state machine was not started.")


def test_a_verdict_that_nobody_knows_stops_it(answer: Callable[..., RecordedMachine]) -> None:
    automation, requests, _ = run(answer(plan=planned("ready")))
    assert (automation.status, len(requests)) == ("Failed", 1)
    assert automation.failures == ["ShowPlan: The plan says ready, which is not understood. Nothing was changed."]


def test_no_character_of_a_reason_becomes_more_than_a_reason(answer: Callable[..., RecordedMachine]) -> None:
    reason = '", "action": "apply", "x": "\\" \'; $(reboot) `id` <b>'
    machine = answer(plan=planned("already_applied"), verify=verified())
    _, requests, _ = run(machine, Reason=reason, RequestedBy='ana", "plan_hash": "0')
    for _, request in requests:
        assert (request["reason"], request["requested_by"]) == (reason, 'ana", "plan_hash": "0')
        assert set(request) == {"hotfix", "action", "reason", "requested_by", "correlation_id"}


def test_the_function_knows_the_runbook_by_its_run(answer: Callable[..., RecordedMachine]) -> None:
    machine = answer(plan=planned(), apply=applied(), verify=verified())
    for _, request in run(machine)[1]:
        assert parse_request(request).caller == "runbook"


def test_whoever_approves_reads_the_notes_of_the_plan(answer: Callable[..., RecordedMachine]) -> None:
    notes = [{"code": "column_grants", "text": f"{role} has no right on the new column."} for role in ("api", "jobs")]
    automation, _, messages = run(answer(plan=planned(notes=notes), apply=applied(), verify=verified()))
    for words in (automation.outputs["ShowPlan.words"], messages[0]["Message"]):
        assert "Note: api has no right on the new column.\nNote: jobs has no right on the new column.\n" in words


@pytest.mark.parametrize("text", ["{{", "a {{{{ b }}}} c", "{{{ HotfixId }}}", "}}{{ HotfixId }}{{"])
def test_no_double_brace_of_a_plan_reaches_the_steps_that_come(
    answer: Callable[..., RecordedMachine], text: str
) -> None:
    automation, _, messages = run(answer(plan=planned(sql=text), apply=applied(), verify=verified()))
    assert automation.status == "Success"
    for words in (automation.outputs["ShowPlan.words"], messages[0]["Message"]):
        assert "{{" not in words
        assert "}}" not in words
        assert words.replace(" ", "").endswith(text.replace(" ", ""))


def test_a_plan_of_any_length_fits_into_an_approval(answer: Callable[..., RecordedMachine]) -> None:
    machine = answer(
        plan=planned(blockers=[BLOCKER] * 50, sql="-- {{ HotfixId }}\n" * 900), apply=applied(), verify=verified()
    )
    automation, _, messages = run(machine)
    assert automation.status == "Success"
    assert len(messages[0]["Message"]) <= ssm.LONGEST_APPROVAL_MESSAGE
    assert messages[0]["Message"].endswith("(the rest: ShowPlan.words)")
    assert "{{" not in automation.outputs["ShowPlan.words"]
