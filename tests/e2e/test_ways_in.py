"""The shell, the pipelines and the runbook do what they say in a whole stack: the true state machine, interpreted by
moto, the function as `sam build` built it, and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cli.author.expect_schema import word_list
from cli.author.scratch import scratch_database, scratch_server
from laptop.aws import CREDENTIALS
from laptop.emulator import emulated_function
from laptop.environment import local_environment
from laptop.machine import running_machine
from laptop.places import PROJECT
from pg_hotfix.request import parse_request
from tests import ssm
from tests.conftest import HOTFIX, PATIENCE_SECONDS
from tests.e2e.test_operate import clean_environment
from tests.e2e.test_operate import run as run_command
from tests.unit.stack.test_runbook import ANA, DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from laptop.machine import Machine
    from tests.conftest import Database
    from tests.e2e.conftest import House

COLUMN = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'public.drivers'::regclass AND attname = 'active_since'"
WRONG_COLUMN = "ALTER TABLE drivers ADD COLUMN active_since text"


HERE = ("--stack", "pg-hotfix-local")
PROGRAM = str(PROJECT / "pg-hotfix")


@dataclass(frozen=True)
class DeployedStack:
    machine: Machine
    client: Any
    environment: dict[str, str]

    def hotfix(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command([PROGRAM, *arguments, *HERE], self.environment)

    def requests(self) -> list[dict[str, Any]]:
        """What the executions were started with, the oldest first."""
        executions = self.client.list_executions(stateMachineArn=self.machine.arn)["executions"]
        inputs = [self.client.describe_execution(executionArn=seen["executionArn"])["input"] for seen in executions]
        return [json.loads(text) for text in reversed(inputs)]


@pytest.fixture
def database(incident: Database) -> Database:
    return incident


@pytest.fixture
def deploy(
    house: House, database: Database, tmp_path: Path, no_secret_in_output: list[str]
) -> Iterator[Callable[..., DeployedStack]]:
    """Sets up the stack for the incident; its secret's fields and the function's variables may differ."""
    aws = house.aws
    with contextlib.ExitStack() as stack:

        def deploy(variables: dict[str, str] | None = None, **secret: Any) -> DeployedStack:
            function = house.function
            if variables or secret:
                secret_arn = aws.put_secret("kaviar/other", json.dumps(database.secret(**secret)))
                environment = local_environment(database.server.ca_bundle, secret_arn, aws.endpoint_url)
                function = stack.enter_context(emulated_function(environment | (variables or {})))
            machine = stack.enter_context(running_machine(aws, function, minute_seconds=0.5))
            client = stack.enter_context(contextlib.closing(aws.client("stepfunctions")))
            login = CREDENTIALS | {"AWS_ENDPOINT_URL": aws.endpoint_url}
            return DeployedStack(machine, client, clean_environment(tmp_path) | login)

        yield deploy


# The command line


def test_the_line_that_each_step_proposes_leads_to_the_end(
    deploy: Callable[..., DeployedStack], database: Database
) -> None:
    stack = deploy()
    plan = stack.hotfix("plan", HOTFIX, "--reason", "INC-4711")
    assert "\nwould_apply\n" in plan.stdout, plan.stderr
    assert database.run(COLUMN) == [[0]]
    line = plan.stdout.splitlines()[-1].strip()
    apply = run_command(["sh", "-c", line], stack.environment)
    assert (apply.returncode, database.run(COLUMN)) == (0, [[1]]), apply.stderr
    assert re.search(
        r"\n   \d\d:\d\d:\d\d  Plan\n   \S+  Apply\n   \S+  Verify\n   \S+  Report\n   \S+  Publish\n\napplied\n",
        apply.stdout,
    )
    again = run_command(["sh", "-c", line], stack.environment)
    assert "\nalready_applied\n" in again.stdout, again.stderr


def test_the_incident_is_stopped_before_the_deploy_that_would_have_caused_it(
    deploy: Callable[..., DeployedStack], database: Database, tmp_path: Path
) -> None:
    layer, schema = tmp_path / "layer", tmp_path / "schema.sql"
    shutil.copytree(PROJECT / "sql", layer)
    # As Prisma writes it from the application's schema, which has the column that no migration added.
    schema.write_text(
        'CREATE TABLE "drivers" (\n    "id" UUID NOT NULL,\n    "name" TEXT NOT NULL,\n'
        '    "active_since" TIMESTAMPTZ(6),\n\n    CONSTRAINT "drivers_pkey" PRIMARY KEY ("id")\n);\n'
    )
    with scratch_server(tmp_path / "scratch") as server, scratch_database(server, [], schema) as scratch:
        (layer / "schema.expect").write_bytes(word_list(scratch))
    stack = deploy({"SQL_DIR": str(layer)})
    stopped = stack.hotfix("gate")
    assert stopped.returncode != 0
    assert (
        "\nMismatchError\n"
        f"   The database {database.name} is not as the application expects: of 3 columns 1 missing, 0 different."
        " Nothing was changed.\n"
        "     public.drivers.active_since\n"
        "       expected  timestamp(6) with time zone null\n"
        "       actual    missing\n"
    ) in stopped.stdout
    assert stack.hotfix("apply", HOTFIX).returncode == 0
    passed = stack.hotfix("gate")
    assert passed.returncode == 0, passed.stderr
    assert passed.stdout.endswith("\npassed\n   As the application expects: 3 columns of 1 table.\n")


def test_a_busy_table_is_waited_for_in_words(deploy: Callable[..., DeployedStack], database: Database) -> None:
    stack = deploy()
    command = [PROGRAM, "apply", HOTFIX, *HERE]
    with database.connect() as holder:
        holder.run("BEGIN")
        holder.run("SELECT count(*) FROM public.drivers")
        with subprocess.Popen(
            command, cwd=PROJECT, env=stack.environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "LockBusyError" in line:
                    holder.run("ROLLBACK")
    output = "".join(lines)
    assert (process.returncode, database.run(COLUMN)) == (0, [[1]]), output
    assert f"Apply: LockBusyError. public.drivers stayed locked for 1 s, so {HOTFIX} was not applied." in output
    assert re.search(r"In the way: pid \d+ ", output)
    assert re.search(r"\n   \S+  Apply, attempt 2\n", output)


def test_two_who_press_at_once_start_one(deploy: Callable[..., DeployedStack], database: Database) -> None:
    stack = deploy()
    command = [PROGRAM, "apply", HOTFIX, *HERE]
    with contextlib.ExitStack() as both:
        # Held until both follow, so that none comes after the end of the other's.
        with database.connect() as holder:
            holder.run("BEGIN")
            holder.run("SELECT count(*) FROM public.drivers")
            processes = [
                both.enter_context(
                    subprocess.Popen(
                        [*command, "--by", by], cwd=PROJECT, env=stack.environment, stdout=subprocess.PIPE, text=True
                    )
                )
                for by in ("ana", "bruno")
            ]
            followed = []
            for process in processes:
                assert process.stdout
                followed += [next(line for line in process.stdout if "   execution " in line)]
        outputs = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all("\napplied\n" in output for output in outputs)
    assert len(stack.requests()) == 1
    # Both are told the same, whoever has started it.
    assert followed[0] == followed[1]
    assert re.search(r" UTC by (ana|bruno)\n", followed[0])


def test_what_exists_and_differs_fails_with_the_lines_to_paste(
    deploy: Callable[..., DeployedStack], database: Database
) -> None:
    stack = deploy()
    database.run_as_owner(WRONG_COLUMN)
    result = stack.hotfix("apply", HOTFIX)
    assert result.returncode != 0
    assert "\nMismatchError\n   public.drivers.active_since exists but is not what " in result.stdout
    assert "\n     -- expect: column public.drivers.active_since text null\n" in result.stdout


def test_check_asks_the_function_itself(deploy: Callable[..., DeployedStack]) -> None:
    stack = deploy()
    result = stack.hotfix("check")
    assert result.returncode == 0, result.stderr
    assert "\nready\n   Secret, network, TLS, login and ownership work for 1 hotfix file.\n" in result.stdout
    assert stack.requests() == []


def test_check_that_fails_exits_non_zero(deploy: Callable[..., DeployedStack]) -> None:
    refused = "correct-horse-battery-staple"
    result = deploy(password=refused).hotfix("check", HOTFIX)
    assert result.returncode != 0
    assert "\nLoginError\n   The database " in result.stdout
    assert refused not in result.stdout + result.stderr


def test_without_the_state_machine_the_function_does_it(
    deploy: Callable[..., DeployedStack], database: Database
) -> None:
    stack = deploy()
    result = stack.hotfix("apply", HOTFIX, "--direct")
    assert (result.returncode, stack.requests(), database.run(COLUMN)) == (0, [], [[1]]), result.stderr
    assert "\napplied\n" in result.stdout


def test_the_tests_of_a_deployed_stack_work_as_far_as_there_is_one_here(deploy: Callable[..., DeployedStack]) -> None:
    # The cache is that of the pytest which runs this.
    command = [str(PROJECT / ".venv/bin/python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command.append("tests/e2e/test_deployed.py")
    names = "ready or plan or second_start or apply"
    asked = {"PG_HOTFIX_STACK": "pg-hotfix-local", "PG_HOTFIX_E2E_APPLY": "1"}
    result = run_command([*command, "-k", names], deploy().environment | asked)
    assert "4 passed" in result.stdout, result.stdout


# The pipelines: their own commands, with what GitHub or CodeBuild puts around them.

GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_ACTOR": "bruno",
    "GITHUB_TRIGGERING_ACTOR": "bruno",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "example-org/pg-hotfix",
    "GITHUB_RUN_ID": "13284711502",
}
# Of an expression such as `inputs.force && 'true' || ''`, too.
INPUT = re.compile(r"\$\{\{ inputs\.(\w+)(?: && 'true')?(?: \|\| '\w*')? \}\}")
RUN = "https://github.com/example-org/pg-hotfix/actions/runs/13284711502"


def run_job(stack: DeployedStack, workflow: str, job: str, inputs: dict[str, str], tmp_path: Path) -> int:
    """The job's commands, without those that build and deploy, were run as GitHub's runner does. Returns the exit code
    of the first that failed; after it only those with `if: always()` were run.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsshell
    """
    definition = yaml.safe_load((PROJECT / ".github" / "workflows" / workflow).read_text())["jobs"][job]
    code = 0
    for step in definition["steps"]:
        if "run" not in step or re.search(r"sam deploy|make build", step["run"]) or (code and "if" not in step):
            continue
        variables = {
            name: INPUT.sub(lambda found: inputs.get(found[1], ""), value)
            for name, value in (definition.get("env", {}) | step.get("env", {})).items()
        }
        options = ["--noprofile", "--norc", "-eo", "pipefail"] if step.get("shell") == "bash" else ["-e"]
        environment = stack.environment | GITHUB | {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
        script = tmp_path / "script.sh"
        script.write_text(on_this_stack(step["run"]))
        # The files of a run belong into its own folder.
        project = workspace(tmp_path)
        result = subprocess.run(
            ["bash", *options, script],
            cwd=project,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        code = code or result.returncode
    return code


def on_this_stack(command: str) -> str:
    """The command as it is, for the one stack that there is here."""
    named = re.sub(r'--env=? ?"\$ENV"', "--stack=pg-hotfix-local", command)
    assert named.count("--stack=pg-hotfix-local") == command.count("./pg-hotfix ") <= 1
    return named


def workspace(tmp_path: Path) -> Path:
    """A folder that looks like a checkout."""
    folder = tmp_path / "workspace"
    if not folder.exists():
        folder.mkdir()
        for path in PROJECT.iterdir():
            (folder / path.name).symlink_to(path)
    return folder


def test_the_workflow_says_who_and_why_and_shows_the_answer(
    deploy: Callable[..., DeployedStack], database: Database, tmp_path: Path
) -> None:
    stack = deploy()
    inputs = {"environment": "prod", "id": HOTFIX, "action": "apply", "reason": 'INC-4711 "$(id)"'}
    assert run_job(stack, "hotfix.yml", "hotfix", inputs, tmp_path) == 0
    assert database.run(COLUMN) == [[1]]
    (request,) = stack.requests()
    assert (request["requested_by"], request["reason"]) == ("bruno", inputs["reason"])
    assert (request["correlation_id"], parse_request(request).caller) == (RUN, "ci")
    assert "\n    applied\n" in (tmp_path / "summary").read_text()
    answer = json.loads((tmp_path / "workspace" / "hotfix.json").read_text())
    assert (answer["result"], answer["apply"]["caller"]) == ("applied", "ci")


def test_the_workflow_fails_when_the_hotfix_does(
    deploy: Callable[..., DeployedStack], database: Database, tmp_path: Path
) -> None:
    stack = deploy()
    database.run_as_owner(WRONG_COLUMN)
    inputs = {"environment": "prod", "id": HOTFIX, "action": "apply", "reason": "INC-4711"}
    assert run_job(stack, "hotfix.yml", "hotfix", inputs, tmp_path) != 0
    assert "\n    MismatchError\n" in (tmp_path / "summary").read_text()


def test_the_deployment_ends_with_a_check(deploy: Callable[..., DeployedStack], tmp_path: Path) -> None:
    assert run_job(deploy(), "deploy.yml", "deploy", {"environment": "prod"}, tmp_path) == 0


def test_a_deployment_that_is_not_ready_fails(deploy: Callable[..., DeployedStack], tmp_path: Path) -> None:
    assert run_job(deploy(port=1), "deploy.yml", "deploy", {"environment": "prod"}, tmp_path) != 0


def test_the_buildspec_says_who_and_for_which_build(
    deploy: Callable[..., DeployedStack], database: Database, tmp_path: Path
) -> None:
    stack = deploy()
    buildspec = yaml.safe_load((PROJECT / "buildspec.yml").read_text())
    build = "arn:aws:codebuild:us-east-1:123456789012:build/pg-hotfix:01234567"
    around = {"CODEBUILD_BUILD_ARN": build, "CODEBUILD_INITIATOR": "codepipeline/drivers-backend"}
    variables = buildspec["env"]["variables"] | around | {"ENV": "prod", "ID": HOTFIX, "ACTION": "apply"}
    (command,) = buildspec["phases"]["build"]["commands"]

    def run_build() -> int:
        environment = stack.environment | variables
        return subprocess.run(
            ["sh", "-c", on_this_stack(command)],
            cwd=workspace(tmp_path),
            env=environment,
            timeout=PATIENCE_SECONDS,
            check=False,
        ).returncode

    assert (run_build(), database.run(COLUMN)) == (0, [[1]])
    (request,) = stack.requests()
    assert (request["requested_by"], request["correlation_id"]) == ("codepipeline/drivers-backend", build)
    assert parse_request(request).caller == "ci"
    (artifact,) = buildspec["artifacts"]["files"]
    assert json.loads((workspace(tmp_path) / artifact).read_text())["result"] == "applied"
    database.run_as_owner("ALTER TABLE drivers DROP COLUMN active_since")
    database.run_as_owner(WRONG_COLUMN)
    assert run_build() != 0


# The runbook


def run_to_its_end(client: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What aws:executeStateMachine does."""
    arn = client.start_execution(**inputs)["executionArn"]
    while (seen := client.describe_execution(executionArn=arn))["status"] == "RUNNING":
        time.sleep(0.05)
    return {"executionArn": arn, "status": seen["status"], "output": seen.get("output", ""), "name": seen["name"]}


def run_runbook(
    stack: DeployedStack, monkeypatch: pytest.MonkeyPatch, approve: Callable[[dict[str, Any]], bool] = lambda _: True
) -> ssm.Automation:
    for name, value in stack.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    role = "arn:aws:iam::123456789012:role/runbook"
    known = {"HotfixStateMachine": stack.machine.arn, "HotfixTopic": stack.machine.topic_arn, "RunbookRole.Arn": role}
    document = ssm.fill_in(DOCUMENT, known)
    parameters = {"HotfixId": HOTFIX, "Reason": "INC-4711", "RequestedBy": "carla", "Approvers": [ANA]}
    return ssm.start(document, parameters, lambda inputs: run_to_its_end(stack.client, inputs), approve)


def test_the_runbook_plans_asks_applies_and_verifies(
    deploy: Callable[..., DeployedStack], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = deploy()
    automation = run_runbook(stack, monkeypatch)
    assert (automation.status, automation.failures, database.run(COLUMN)) == ("Success", [], [[1]])
    assert (
        "public.drivers.active_since  expected: timestamp with time zone null  found: missing"
        in (automation.outputs["ShowPlan.words"])
    )
    assert automation.outputs["ShowApply.words"].startswith("Applied now: public.drivers.active_since applied")
    assert automation.outputs["ShowResult.words"].startswith(
        "Proved once more: public.drivers.active_since as expected"
    )
    assert [request["action"] for request in stack.requests()] == ["plan", "apply", "verify"]
    assert json.loads(automation.outputs["Apply.output"])["apply"]["caller"] == "runbook"


def test_the_runbook_asks_nobody_when_it_is_there_already(
    deploy: Callable[..., DeployedStack], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN active_since timestamptz")
    automation = run_runbook(deploy(), monkeypatch, lambda _: False)
    assert automation.status == "Success"
    assert automation.outputs["ShowResult.words"].startswith("It was there already: ")


def test_the_runbook_says_so_when_somebody_else_was_faster(
    deploy: Callable[..., DeployedStack], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def approve_too_late(_: dict[str, Any]) -> bool:
        database.run_as_owner("ALTER TABLE drivers ADD COLUMN active_since timestamptz")
        return True

    automation = run_runbook(deploy(), monkeypatch, approve_too_late)
    assert (automation.status, automation.failures) == ("Success", [])
    assert automation.outputs["ShowApply.words"].startswith("It was there already: public.drivers.active_since already")
    assert "Applied" not in automation.outputs["ShowResult.words"]


def test_the_runbook_explains_an_apply_that_failed_after_the_approval(
    deploy: Callable[..., DeployedStack], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def approve_too_late(_: dict[str, Any]) -> bool:
        database.run_as_owner(WRONG_COLUMN)
        return True

    automation = run_runbook(deploy(), monkeypatch, approve_too_late)
    assert automation.status == "Failed"
    assert automation.failures[-1].startswith(
        "ExplainFailure: apply: MismatchError: public.drivers.active_since exists but is not what "
    )
    assert "ShowApply.words" not in automation.outputs


def test_the_runbook_changes_nothing_that_is_refused(
    deploy: Callable[..., DeployedStack], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    automation = run_runbook(deploy(), monkeypatch, lambda _: False)
    assert (automation.status, database.run(COLUMN)) == ("Failed", [[0]])


def test_the_runbook_fails_with_the_text_of_the_function(
    deploy: Callable[..., DeployedStack], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.run_as_owner(WRONG_COLUMN)
    automation = run_runbook(deploy(), monkeypatch)
    assert automation.status == "Failed"
    assert automation.failures[-1].startswith(
        "ExplainFailure: plan: MismatchError: public.drivers.active_since exists but is not what "
    )
