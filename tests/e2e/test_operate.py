"""`./pg-hotfix` against a fake AWS, as the process that a person or a pipeline starts: its words and its exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import requests

from cli.author.laptop import laptop_environment
from laptop.aws import fake_aws
from laptop.interpreter import interpreting
from laptop.places import PROJECT
from tests.conftest import HOTFIX, PATIENCE_SECONDS, until
from tests.samples import BLOCKER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from mypy_boto3_stepfunctions import SFNClient

REGION = "sa-east-1"
PROGRAM = str(PROJECT / "pg-hotfix")
APPLY = [PROGRAM, "apply", HOTFIX, "--env", "prod"]
MACHINE = f"arn:aws:states:{REGION}:123456789012:stateMachine:pg-hotfix-prod-hotfix"
# How many seconds an execution goes on that is not stopped.
LASTING = 600
PLAN_HASH = "57b1ed0e7483fbaccea97306654db3b60aa6760edf3c6f25c66c5e9e7f7e5e27"
COLUMN = {
    "schema": "public",
    "table": "drivers",
    "column": "active_since",
    "name": "public.drivers.active_since",
    "expected": "timestamp with time zone null",
    "actual": "missing",
    "matches": False,
    "changed": False,
}
SQL = 'ALTER TABLE "drivers" ADD COLUMN IF NOT EXISTS "active_since" TIMESTAMPTZ NULL;'
SUMMARY = "public.drivers.active_since missing; apply would run the file; 1 transaction in the way now."
PLANNED = {
    "result": "would_apply",
    "summary": SUMMARY,
    "plan": {"objects": [COLUMN], "blockers": [BLOCKER], "plan_hash": PLAN_HASH, "sql": f"{SQL}\n"},
}
APPLIED = {
    "result": "applied",
    "summary": "public.drivers.active_since applied, committed and proved; the lock was held for 1.3 ms.",
    "verify": {"objects": [COLUMN | {"actual": COLUMN["expected"], "matches": True}], "blockers": []},
    "endpoint": {"status": 200},
    "watch": {"minutes": 5},
}
ADVICE = (
    "public.drivers.active_since exists but is not what is expected. Nothing was changed.\n"
    "  expected  timestamp with time zone null\n"
    "  actual    text null default ''::text\n"
    "Correct the file if that is right."
)


@dataclass(frozen=True)
class Account:
    """A fake AWS account, with the environment of somebody who is logged in to it."""

    environment: dict[str, str]
    states: SFNClient

    def make_machine(self, **answers: Any) -> None:
        """The stack's machine answers each action so: with an output, with an error and its text, or in that many
        seconds only."""
        states: dict[str, Any] = {}
        for action, answer in answers.items():
            match answer:
                case int():
                    states[action] = {"Type": "Wait", "Seconds": answer, "Next": "Done"}
                case (error, cause):
                    states[action] = {"Type": "Fail", "Error": error, "Cause": cause}
                case _:
                    states[action] = {"Type": "Pass", "Result": answer, "End": True}
        choices = [{"Variable": "$.action", "StringEquals": action, "Next": action} for action in answers]
        states |= {
            "By": {"Type": "Choice", "Choices": choices},
            "Done": {"Type": "Pass", "Result": APPLIED, "End": True},
        }
        self.states.create_state_machine(
            name=MACHINE.rpartition(":")[2],
            roleArn="arn:aws:iam::123456789012:role/machine",
            definition=json.dumps({"StartAt": "By", "States": states}),
        )

    def executions(self) -> list[str]:
        return [seen["executionArn"] for seen in self.states.list_executions(stateMachineArn=MACHINE)["executions"]]


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    with fake_aws() as aws, interpreting(aws, 1.0, {}):
        login = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": REGION}
        environment = clean_environment(tmp_path) | login | {"AWS_ENDPOINT_URL": aws.endpoint_url}
        states = boto3.client(
            "stepfunctions",
            endpoint_url=aws.endpoint_url,
            region_name=REGION,
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        with contextlib.closing(states):
            yield Account(environment, states)


def clean_environment(home: Path) -> dict[str, str]:
    """That of a shell without any login, and without the variables of the make that runs these tests."""
    strange = ("MAKE", "AWS_", "GITHUB_", "CODEBUILD_", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return kept | {"HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"}


def run(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


def pg_hotfix(account: Account, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([PROGRAM, *arguments, "--env", "prod"], account.environment | environment)


def report_line(account: Account) -> str:
    """What is printed of the one execution, to read more of it."""
    (execution,) = account.executions()
    return f"Report:\n   {PROGRAM} report {execution}\n"


def without_clock(text: str) -> str:
    return re.sub(r"\d\d:\d\d:\d\d", "12:31:07", re.sub(r"-[0-9a-f]{8},", "-1a2b3c4d,", text))


def test_a_plan_is_told_in_words_with_the_line_to_type_next(account: Account, tmp_path: Path) -> None:
    account.make_machine(plan=PLANNED)
    file = tmp_path / "answer.json"
    result = pg_hotfix(account, "plan", HOTFIX, "--reason", "INC-4711", "--by", "ana", "--json", str(file))
    assert result.returncode == 0, result.stderr
    assert without_clock(result.stdout) == (
        f"plan {HOTFIX} in pg-hotfix-prod (123456789012, sa-east-1)\n"
        "   requested by ana, reason: INC-4711\n"
        f"   execution plan-{HOTFIX}-1a2b3c4d, started at 12:31:07 UTC by ana\n"
        "\n"
        "would_apply\n"
        f"   {SUMMARY}\n"
        "   public.drivers.active_since  expected: timestamp with time zone null, found: missing\n"
        "   In the way: pid 4711 (billing, nightly-report), in a transaction for 340 s (idle in transaction), "
        "ACCESS SHARE on public.drivers.\n"
        f"   plan_hash {PLAN_HASH}\n"
        f"   {SQL}\n"
        f"{report_line(account)}"
        "Next:\n"
        f"   {PROGRAM} apply {HOTFIX} --env prod --reason INC-4711 --by ana --plan-hash {PLAN_HASH}\n"
    )
    assert json.loads(file.read_text()) == PLANNED


def test_an_apply_says_what_is_proved_and_checked(account: Account) -> None:
    account.make_machine(apply=APPLIED)
    result = pg_hotfix(account, "apply", HOTFIX, "--plan-hash", PLAN_HASH)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(
        "applied\n"
        "   public.drivers.active_since applied, committed and proved; the lock was held for 1.3 ms.\n"
        "   public.drivers.active_since  expected: timestamp with time zone null, found: the same\n"
        "   The endpoint answered 200.\n"
        "   The application's log was free of the error for 5 min.\n"
        f"{report_line(account)}"
    )
    (execution,) = account.executions()
    request = json.loads(account.states.describe_execution(executionArn=execution)["input"])
    # Who asks is never left open: it is what the login says.
    assert request == {"hotfix": HOTFIX, "action": "apply", "plan_hash": PLAN_HASH, "requested_by": "moto"}


def test_a_failure_exits_non_zero_with_the_whole_text(account: Account, tmp_path: Path) -> None:
    account.make_machine(apply=("MismatchError", ADVICE))
    file = tmp_path / "answer.json"
    result = pg_hotfix(account, "apply", HOTFIX, "--json", str(file))
    assert result.returncode != 0
    advice = "".join(f"   {line}\n" for line in ADVICE.splitlines())
    assert (
        f"\nMismatchError\n{advice}{report_line(account)}Next:\n   {PROGRAM} apply {HOTFIX} --env prod\n"
        in result.stdout
    )
    assert "Traceback" not in result.stderr
    answer = json.loads(file.read_text())
    assert (answer["error"], answer["cause"]) == ("MismatchError", ADVICE)
    assert (answer["execution"], answer["request"]["hotfix"]) == (account.executions()[0], HOTFIX)


def test_a_revert_is_followed_and_forced(account: Account) -> None:
    summary = "public.drivers.active_since dropped, committed and proved gone; the lock was held for 1.3 ms."
    dropped = {"objects": [COLUMN | {"changed": True}], "blockers": []}
    account.make_machine(revert={"result": "reverted", "summary": summary, "apply": dropped})
    result = pg_hotfix(account, "revert", HOTFIX, "--reason", "INC-4712", "--force")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(
        f"reverted\n   {summary}\n   public.drivers.active_since  expected: timestamp with time zone null, dropped\n"
        f"{report_line(account)}"
    )
    (execution,) = account.executions()
    request = json.loads(account.states.describe_execution(executionArn=execution)["input"])
    assert (request["action"], request["force"], request["reason"]) == ("revert", "true", "INC-4712")


def test_one_that_is_stopped_exits_non_zero(account: Account) -> None:
    account.make_machine(apply=LASTING)
    with followed(APPLY, account) as process:
        account.states.stop_execution(executionArn=account.executions()[0])
        output = process.communicate(timeout=PATIENCE_SECONDS)[0]
    assert process.returncode != 0
    assert "\nABORTED\n" in output
    assert f"\n   {PROGRAM} apply {HOTFIX} --env prod\n" in output


def test_an_apply_of_another_plan_is_refused_with_the_lines_to_type(account: Account) -> None:
    account.make_machine(apply=LASTING)
    with followed([*APPLY, "--by", "ana"], account):
        result = pg_hotfix(account, "apply", HOTFIX, "--plan-hash", PLAN_HASH)
        assert len(account.executions()) == 1
    assert result.returncode != 0
    words = result.stderr.splitlines()
    assert words[0].startswith(f"An apply of {HOTFIX}, asked for by ana, has been running since ")
    assert words[0].endswith(" UTC. It uses another plan than yours, or does less. Nothing was started.")
    assert words[1:4] == [
        f"When it has ended, look again:  {PROGRAM} plan {HOTFIX} --env prod",
        f"To follow it until then:  {PROGRAM} apply {HOTFIX} --env prod",
        "That second line is bound to no plan: once the other has ended, it starts one of its own.",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_leaves_is_told_that_it_goes_on(account: Account, number: signal.Signals) -> None:
    account.make_machine(apply=LASTING)
    with followed([*APPLY, "--reason", "it's $5"], account) as process:
        process.send_signal(number)
        output = process.communicate(timeout=PATIENCE_SECONDS)[0]
        assert account.states.describe_execution(executionArn=account.executions()[0])["status"] == "RUNNING"
    assert process.returncode == 130
    line = f"{PROGRAM} apply {HOTFIX} --env prod --reason 'it'\"'\"'s $5'"
    assert output.rstrip().endswith(f"Interrupted. What was started goes on. To follow it:  {line}")


def test_ctrl_c_in_a_terminal_ends_it_with_a_failure(account: Account) -> None:
    account.make_machine(apply=LASTING)
    with followed(APPLY, account) as process:
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does.
        output = process.communicate(timeout=PATIENCE_SECONDS)[0]
    assert process.returncode != 0
    assert "What was started goes on." in output


@contextlib.contextmanager
def followed(command: list[str], account: Account) -> Iterator[subprocess.Popen[str]]:
    """Within the block the command has started an execution and follows it."""
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        env=account.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout
            # It has the answer to its start, then.
            assert any("   execution " in line for line in process.stdout)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for execution in account.executions():
                account.states.stop_execution(executionArn=execution)


HOSTILE = """INC-4711: "it's" $(touch stolen) `touch stolen` $HOME $$ \\ ; touch stolen & # %s {} ação"""


def test_no_character_of_a_reason_is_a_command(account: Account) -> None:
    account.make_machine(plan=PLANNED)
    typed = pg_hotfix(account, "plan", HOTFIX, "--reason", HOSTILE)
    assert typed.returncode == 0, typed.stderr
    # The line to type next is a reason's way through a shell.
    line = next(line for line in typed.stdout.splitlines() if line.startswith(f"   {PROGRAM} apply"))
    plan_again = line.replace(" apply ", " plan ", 1).replace(f" --plan-hash {PLAN_HASH}", "")
    pasted = run(["sh", "-c", plan_again], account.environment)
    assert pasted.returncode == 0, pasted.stderr
    inputs = [account.states.describe_execution(executionArn=arn)["input"] for arn in account.executions()]
    assert [json.loads(text)["reason"] for text in inputs] == [HOSTILE, HOSTILE]
    assert not (PROJECT / "stolen").exists()


# What can be wrong before anything is started


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["apply", "--env", "prod"], "Missing argument 'ID'"),
        (["plan", HOTFIX], "Which stack? Name its environment, --env prod, or the stack, --stack pg-hotfix-prod."),
        (["drop", HOTFIX], "No such command 'drop'"),
        (["plan", HOTFIX, "--env", "prod", "--force"], "No such option: --force"),
        (["revert", HOTFIX, "--env", "prod", "--force"], "--force needs --reason: why may the data go?"),
        (
            ["apply", HOTFIX, "--env", "prod", "--plan-hash", "57b1"],
            "--plan-hash takes the 64 hex digits that plan has",
        ),
    ],
)
def test_a_command_line_that_is_not_whole_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = run([PROGRAM, *arguments], clean_environment(tmp_path))
    assert result.returncode == 2
    assert said in result.stderr
    assert "Try 'pg-hotfix " in result.stderr


def test_without_a_login_it_says_how_to_log_in(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path) | {"AWS_REGION": REGION}
    result = run([PROGRAM, "plan", HOTFIX, "--env", "prod"], environment)
    assert result.returncode != 0
    assert result.stderr.startswith(
        "There are no AWS credentials (Unable to locate credentials). Nothing was started. "
        "Log in:  aws sso login, or set AWS_PROFILE.\n"
    )


def test_a_stack_that_is_not_there_is_named(account: Account) -> None:
    result = run([PROGRAM, "apply", HOTFIX, "--stack", "pg-hotfix-typo"], account.environment)
    assert result.returncode != 0
    assert result.stderr.startswith(
        f"The state machine {MACHINE.replace('-prod-', '-typo-')} did not start: it does not exist ("
    )
    assert "Nothing was started. Check AWS_PROFILE, AWS_REGION and --stack, or deploy it first." in result.stderr


def test_who_may_not_is_told_so(account: Account) -> None:
    account.make_machine(apply=APPLIED)
    endpoint = account.environment["AWS_ENDPOINT_URL"]
    iam = boto3.client(
        "iam", endpoint_url=endpoint, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x"
    )
    iam.create_user(UserName="ana")
    key = iam.create_access_key(UserName="ana")["AccessKey"]
    requests.post(f"{endpoint}/moto-api/reset-auth", data=b"0", timeout=10)
    try:
        result = pg_hotfix(
            account,
            "apply",
            HOTFIX,
            AWS_ACCESS_KEY_ID=key["AccessKeyId"],
            AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"],
        )
    finally:
        requests.post(f"{endpoint}/moto-api/reset-auth", data=b"inf", timeout=10)
    assert result.returncode != 0
    assert "requested by ana, reason: (none)\n" in result.stdout
    # moto refuses in a form that is not Step Functions' own, whose words tests/unit/cli/test_operate_order.py has.
    assert result.stderr.startswith(f"The state machine {MACHINE} did not start (403: ")
    assert "Nothing was started." in result.stderr


def test_an_answer_that_could_not_be_written_stops_it_before_anything_is_started(account: Account) -> None:
    account.make_machine(apply=APPLIED)
    result = pg_hotfix(account, "apply", HOTFIX, "--json", "/nowhere/answer.json")
    assert (result.returncode, account.executions()) == (1, [])
    assert result.stderr == "Nothing was started. /nowhere/answer.json cannot be written: No such file or directory.\n"


def test_the_answer_of_an_earlier_run_is_never_taken_for_this_ones(account: Account, tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    file.write_text('{"result": "applied"}')
    result = pg_hotfix(account, "apply", HOTFIX, "--stack", "pg-hotfix-typo", "--json", str(file))
    assert result.returncode == 2  # both --env and --stack
    result = run([PROGRAM, "apply", HOTFIX, "--stack", "pg-hotfix-typo", "--json", str(file)], account.environment)
    assert result.returncode == 1
    answer = json.loads(file.read_text())
    assert "did not start" in answer["cause"]
    assert "result" not in answer


def test_a_terminal_without_utf_8_shows_the_verdict(account: Account, tmp_path: Path) -> None:
    account.make_machine(apply=APPLIED | {"summary": "S\u00e3o Paulo \u2014 applied"})
    file = tmp_path / "answer.json"
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "LANG": "C"}
    result = pg_hotfix(account, "apply", HOTFIX, "--json", str(file), **locale)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Paulo" in result.stdout
    assert json.loads(file.read_text(encoding="utf-8"))["summary"] == "S\u00e3o Paulo \u2014 applied"


def test_a_flag_is_not_taken_for_a_reason(account: Account) -> None:
    account.make_machine(revert=APPLIED)
    result = pg_hotfix(account, "revert", HOTFIX, "--reason", "--force")
    assert (result.returncode, account.executions()) == (2, [])
    assert "--force is an option: a text must come first." in result.stderr


def test_the_path_of_a_file_names_its_hotfix(account: Account) -> None:
    account.make_machine(plan=PLANNED)
    assert pg_hotfix(account, "plan", f"sql/{HOTFIX}.sql").returncode == 0
    (execution,) = account.executions()
    assert json.loads(account.states.describe_execution(executionArn=execution)["input"])["hotfix"] == HOTFIX


def test_who_closes_the_pipe_is_told_that_it_goes_on(account: Account) -> None:
    account.make_machine(apply=LASTING)
    with subprocess.Popen(
        APPLY, cwd=PROJECT, env=account.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        until(lambda: account.executions() != [])
        process.stdout.close()
        account.states.stop_execution(executionArn=account.executions()[0])
        said = process.stderr.read()
    assert process.returncode == 1
    assert "What was started goes on. To follow it:" in said


# Whose credentials a command sees

TARGETS = re.findall(r"^([a-z-]+):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE)
REAL = {
    "AWS_ACCESS_KEY_ID": "AKIAREAL",
    "AWS_SECRET_ACCESS_KEY": "real-secret",
    "AWS_SESSION_TOKEN": "real-token",
    "AWS_PROFILE": "real-profile",
    "AWS_CONFIG_FILE": "real-config",
    "AWS_SHARED_CREDENTIALS_FILE": "real-credentials",
    "AWS_REGION": "real-region",
}


@pytest.fixture
def seen_by(tmp_path: Path) -> Callable[..., list[str]]:
    """Returns what a target's commands would see of the environment, without running them."""
    shell, log = tmp_path / "shell", tmp_path / "log"
    # What $(shell ...) runs while make reads the Makefile is no target's command: it has no level.
    shell.write_text(f'#!/bin/sh\ntest -z "$MAKELEVEL" || env >> {shlex.quote(str(log))}\n')
    shell.chmod(0o755)

    def see(*goals: str) -> list[str]:
        log.unlink(missing_ok=True)
        # Of what is up to date, too.
        run(["make", "--always-make", f"SHELL={shell}", *goals], clean_environment(tmp_path) | REAL)
        return log.read_text().splitlines()

    return see


@pytest.mark.parametrize("target", [*sorted(TARGETS), ".venv/ready"])
def test_no_target_of_make_sees_real_credentials(seen_by: Callable[..., list[str]], target: str) -> None:
    seen = seen_by(target)
    assert "AWS_ACCESS_KEY_ID=local" in seen
    assert [line for line in seen if "real-" in line or "AKIAREAL" in line] == []


def test_a_command_of_a_laptop_sees_no_real_credentials() -> None:
    seen = laptop_environment({"PATH": "/usr/bin", **REAL})
    assert seen["AWS_ACCESS_KEY_ID"] == "local"
    assert [value for value in seen.values() if "real-" in value or "AKIAREAL" in value] == []
