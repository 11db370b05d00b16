"""The workflows and the buildspec: what they may do, whose code they run, and what they pass on. tests/e2e runs their
commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from samcli.yamlhelper import yaml_parse  # type: ignore[import-untyped]

from cli.main import cli
from cli.operate.stack import environments
from pg_hotfix.request import ACTIONS, parse_request

WORKFLOWS = sorted(Path(".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(), re.MULTILINE))
BUILDSPEC = yaml.safe_load(Path("buildspec.yml").read_text())

# What an application's repository copies.
GATE = Path("docs/gate.yml")

# `runs.using` of each action's action.yml at that commit: GitHub's runners have dropped node20. A pin that is not here
# was not looked up.
RUNTIMES = {
    "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1": "node24",
    "actions/download-artifact@3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c # v8.0.1": "node24",
    "actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f # v7.0.0": "node24",
    "aws-actions/configure-aws-credentials@e6de054238d6b7531b4efff3b6587d9aade6a06c # v6.2.3": "node24",
}

workflows = pytest.mark.parametrize("path", [*WORKFLOWS, GATE], ids=lambda path: str(path.stem))


def read(path: Path | str) -> dict[str, Any]:
    """The workflow; YAML 1.1 reads its key `on` as true."""
    workflow: dict[Any, Any] = yaml.safe_load(Path(path).read_text())
    return {"on" if key is True else key: value for key, value in workflow.items()}


def jobs(path: Path | str) -> list[dict[str, Any]]:
    return list(read(path)["jobs"].values())


def commands(path: Path | str) -> list[str]:
    return [step["run"] for job in jobs(path) for step in job["steps"] if "run" in step]


HOTFIX = read(".github/workflows/hotfix.yml")
DEPLOY = read(".github/workflows/deploy.yml")


def test_these_are_the_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "deploy", "hotfix"]


@workflows
def test_each_action_is_pinned_by_its_whole_commit(path: Path) -> None:
    text = path.read_text()
    pinned = re.findall(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", text, re.MULTILINE)
    assert len(pinned) == text.count("uses:") > 0


def test_every_action_that_is_used_declares_a_runtime_that_runners_have() -> None:
    used = [
        use for path in [*WORKFLOWS, GATE] for use in re.findall(r"uses: (\S+ # v\S+)$", path.read_text(), re.MULTILINE)
    ]
    # So one action is pinned to one commit, too.
    assert set(used) == set(RUNTIMES)
    assert set(RUNTIMES.values()) == {"node24"}


@workflows
def test_nothing_that_people_type_stands_in_a_command(path: Path) -> None:
    assert [command for command in commands(path) if "${{" in command] == []


@workflows
def test_each_job_ends_in_time_and_leaves_no_token_behind(path: Path) -> None:
    for job in jobs(path):
        assert 0 < job["timeout-minutes"] <= 120
        checkouts = [step for step in job["steps"] if "actions/checkout" in step.get("uses", "")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)
        assert checkouts or path == GATE


@workflows
def test_a_token_for_aws_has_only_a_job_with_an_environment(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in jobs(path):
        permissions = job.get("permissions", workflow["permissions"])
        assumes = any("configure-aws-credentials" in step.get("uses", "") for step in job["steps"])
        assert permissions == {"contents": "read"} | ({"id-token": "write"} if assumes else {})
        assert ("environment" in job) is assumes


@workflows
def test_every_target_exists(path: Path) -> None:
    named = re.findall(r"\bmake (?:-C pg-hotfix )?(?:--silent )?([a-z-]+)", "\n".join(commands(path)))
    assert set(named) <= TARGETS


@workflows
def test_no_secret_is_stored(path: Path) -> None:
    assert "secrets." not in path.read_text()


def test_a_hotfix_is_asked_for_by_a_person_and_named() -> None:
    inputs = HOTFIX["on"]["workflow_dispatch"]["inputs"]
    assert set(HOTFIX["on"]) == {"workflow_dispatch"}
    assert inputs["environment"]["options"] == list(environments())
    assert sorted(inputs["action"]["options"]) == sorted(ACTIONS)
    assert inputs["action"]["options"][0] == "plan"
    assert {name for name, one in inputs.items() if one.get("required")} == {"environment", "action", "reason"}
    assert all(one["description"] for one in inputs.values())


def test_the_environment_is_the_approval() -> None:
    assert HOTFIX["jobs"]["hotfix"]["environment"] == "${{ inputs.environment }}"


def test_no_hotfix_waits_for_another_run_or_is_cancelled_for_it() -> None:
    assert [name for name, one in {"": HOTFIX, **HOTFIX["jobs"]}.items() if "concurrency" in one] == []


def test_deployments_of_an_environment_come_one_after_the_other() -> None:
    assert DEPLOY["concurrency"]["group"].startswith("deploy-")
    assert DEPLOY["concurrency"]["cancel-in-progress"] is False


def test_the_credentials_last_as_long_as_the_job_and_no_longer_than_the_role_gives() -> None:
    job = HOTFIX["jobs"]["hotfix"]
    (login,) = [step["with"] for step in job["steps"] if "configure-aws-credentials" in step.get("uses", "")]
    template = yaml_parse(Path("template.yaml").read_text())
    longest = template["Resources"]["GitHubRole"]["Properties"]["MaxSessionDuration"]
    assert login["role-duration-seconds"] == job["timeout-minutes"] * 60 == longest


def variables_of(command: str) -> set[str]:
    return set(re.findall(r"\$\{?([A-Z_]+)", command))


def options_of(command: str) -> set[str]:
    return set(re.findall(r"(--[a-z]+(?:-[a-z]+)*)", command))


def known_options(*actions: str) -> set[str]:
    return {option for action in actions for one in cli.commands[action].params for option in one.opts}


def test_the_workflow_passes_every_input_by_a_variable() -> None:
    (step,) = [step for step in HOTFIX["jobs"]["hotfix"]["steps"] if "./pg-hotfix" in step.get("run", "")]
    assert variables_of(step["run"]) == set(step["env"])
    assert options_of(step["run"]) <= known_options(*HOTFIX["on"]["workflow_dispatch"]["inputs"]["action"]["options"])
    passed = re.findall(r"^\$\{\{ inputs\.(\w+)", "\n".join(step["env"].values()), re.MULTILINE)
    assert sorted(passed) == sorted(HOTFIX["on"]["workflow_dispatch"]["inputs"])
    # Only with pipefail is the exit code that of pg-hotfix, and not that of tee.
    assert ("| tee" in step["run"], step["shell"]) == (True, "bash")


def test_each_role_is_a_variable_of_its_environment() -> None:
    roles = [
        step["with"]["role-to-assume"]
        for job in [*HOTFIX["jobs"].values(), *DEPLOY["jobs"].values()]
        for step in job["steps"]
        if "with" in step and "role-to-assume" in step["with"]
    ]
    use, change = "${{ vars.PG_HOTFIX_ROLE_ARN }}", "${{ vars.PG_HOTFIX_DEPLOY_ROLE_ARN }}"
    assert roles == [use, change, use]


def test_what_is_deployed_was_tested_and_is_checked_by_the_role_of_an_incident() -> None:
    assert set(DEPLOY["on"]) == {"push", "workflow_dispatch"}
    assert DEPLOY["on"]["push"] == {"branches": ["main"]}
    assert DEPLOY["on"]["workflow_dispatch"]["inputs"]["environment"]["options"] == list(environments())
    assert DEPLOY["jobs"]["deploy"]["needs"] == "test"
    assert [step["run"] for step in DEPLOY["jobs"]["test"]["steps"] if "run" in step] == ["make test"]
    steps = DEPLOY["jobs"]["deploy"]["steps"]
    assert [step.get("run", step.get("uses")).split("@")[0] for step in steps] == [
        "actions/checkout",
        "make build",
        "aws-actions/configure-aws-credentials",
        '.venv/bin/sam deploy --config-env "$CONFIG_ENV" --no-confirm-changeset',
        "aws-actions/configure-aws-credentials",
        './pg-hotfix check --env "$ENV" --reason "after the deployment"',
    ]


def test_a_push_reaches_staging_only() -> None:
    assert DEPLOY["jobs"]["deploy"]["environment"] == "${{ inputs.environment || 'staging' }}"
    assert DEPLOY["jobs"]["deploy"]["env"] == {"ENV": "${{ inputs.environment || 'staging' }}"}
    assert "vars.PG_HOTFIX_DEPLOY == 'true'" in DEPLOY["jobs"]["test"]["if"]


def test_the_buildspec_runs_one_command_and_plans_unless_told_otherwise() -> None:
    assert BUILDSPEC["version"] == 0.2
    assert BUILDSPEC["phases"]["build"]["on-failure"] == "ABORT"
    (command,) = BUILDSPEC["phases"]["build"]["commands"]
    assert command.startswith('./pg-hotfix "$ACTION" ')
    assert variables_of(command) == {"ACTION", "ENV", "REASON", "PLAN_HASH", "ID"}
    assert options_of(command) <= known_options("plan", "apply")
    assert BUILDSPEC["env"]["variables"] == {"ACTION": "plan"}
    assert BUILDSPEC["artifacts"]["files"] == re.findall(r"--json=(\S+)", command)


def steps_of_the_gate(job: str) -> list[str]:
    steps = read(GATE)["jobs"][job]["steps"]
    return [step.get("run", step.get("uses")).split("@")[0].split(" --reason")[0] for step in steps]


def test_an_application_is_deployed_only_behind_the_gate() -> None:
    workflow = read(GATE)["jobs"]
    assert [(name, job.get("needs")) for name, job in workflow.items()] == [
        ("schema", None),
        ("gate", "schema"),
        ("deploy", "gate"),
    ]
    assert steps_of_the_gate("gate") == [
        "actions/checkout",
        "actions/download-artifact",
        "aws-actions/configure-aws-credentials",
        "pg-hotfix/pg-hotfix gate --env prod",
    ]
    assert workflow["gate"]["environment"] == "prod"


def test_the_applications_packages_run_where_no_token_for_aws_is() -> None:
    schema, gate = (read(GATE)["jobs"][name] for name in ("schema", "gate"))
    assert steps_of_the_gate("schema") == [
        "actions/checkout",
        "npm ci",
        "npx --no-install prisma migrate diff --from-empty --to-schema prisma/schema.prisma --script > schema.sql",
        "actions/checkout",
        "pg-hotfix/pg-hotfix expect-schema schema.sql",
        "actions/upload-artifact",
    ]
    assert (schema["permissions"], "environment" in schema) == ({"contents": "read"}, False)
    (handed_over,) = [step["with"] for step in schema["steps"] if "upload-artifact" in step.get("uses", "")]
    (taken,) = [step["with"] for step in gate["steps"] if "download-artifact" in step.get("uses", "")]
    assert handed_over["path"] == "pg-hotfix/sql/schema.expect"
    assert taken == {"name": handed_over["name"], "path": "pg-hotfix/sql"}
    # The application's own code is not there.
    (checkout,) = [step["with"] for step in gate["steps"] if "actions/checkout" in step.get("uses", "")]
    assert checkout["path"] == "pg-hotfix"


def test_an_applications_workflow_can_not_change_pg_hotfix() -> None:
    text = GATE.read_text()
    assert re.findall(r"vars\.(\w+)", text) == ["PG_HOTFIX_ROLE_ARN", "AWS_REGION"]
    assert "sam deploy" not in text


# CodePipeline


def test_codepipelines_own_action_starts_the_state_machine_with_a_request_of_the_contract() -> None:
    """https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-StepFunctions.html"""
    page = Path("docs/ways-to-run.md").read_text()
    (block,) = re.findall(r"```yaml\n(Name: Hotfix\n.+?)```", page, re.DOTALL)
    action = yaml.safe_load(block)
    assert action["ActionTypeId"] == {
        "Category": "Invoke",
        "Owner": "AWS",
        "Provider": "StepFunctions",
        "Version": "1",
    }
    assert set(action["Configuration"]) == {"StateMachineArn", "Input"}
    assert action["Configuration"]["StateMachineArn"].endswith(":stateMachine:pg-hotfix-prod-hotfix")
    request = parse_request(json.loads(action["Configuration"]["Input"]))
    assert (request.action, request.requested_by) == ("apply", "CodePipeline")
    assert Path("sql", f"{request.hotfix}.sql").is_file()
