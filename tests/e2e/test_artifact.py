"""The function as `sam build` built it, invoked under Lambda's emulator against a real PostgreSQL."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.package import AWS_SDK, package_mb
from laptop.build import build_if_changed
from laptop.emulator import emulated_function
from laptop.environment import local_environment
from laptop.places import ARTIFACT, PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from laptop.emulator import EmulatedFunction, Invocation
    from tests.conftest import Database
    from tests.e2e.conftest import House

HOTFIX = "20260212092000_add_drivers_active_since"
COLUMN = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'drivers' AND column_name = 'active_since'"


@pytest.fixture(scope="module", autouse=True)
def artifact() -> None:
    """The artifact is that of the sources as they are now."""
    build_if_changed()


@pytest.fixture
def database(incident: Database) -> Database:
    return incident


@pytest.fixture
def start(house: House, database: Database) -> Iterator[Callable[..., EmulatedFunction]]:
    """Starts a function with a secret for the test's database, changed by the fields given."""
    with contextlib.ExitStack() as stack:

        def start(**fields: Any) -> EmulatedFunction:
            secret_arn = house.aws.put_secret("kaviar/other", json.dumps(database.secret(**fields)))
            environment = local_environment(database.server.ca_bundle, secret_arn, house.aws.endpoint_url)
            return stack.enter_context(emulated_function(environment))

        yield start


@pytest.fixture
def invoke(house: House, database: Database, no_secret_in_output: list[str]) -> Callable[..., Invocation]:
    """Invokes a function with a request for the action; no password may be in anything it answers or writes."""

    def invoke(action: str, function: EmulatedFunction = house.function) -> Invocation:
        invocation = function.invoke({"hotfix": HOTFIX, "action": action, "reason": "INC-4711", "requested_by": "ana"})
        no_secret_in_output.extend([invocation.output, json.dumps(invocation.payload)])
        return invocation

    return invoke


def test_the_package_is_small() -> None:
    assert package_mb(ARTIFACT, without=AWS_SDK) <= 2.5
    assert package_mb(ARTIFACT) <= 7


def test_nothing_in_the_package_has_to_be_compiled_at_a_cold_start() -> None:
    sources = set(ARTIFACT.rglob("*.py"))
    own = PROJECT / "functions" / "migrate"
    assert {path.relative_to(ARTIFACT) for path in sources} == {path.relative_to(own) for path in own.rglob("*.py")}
    for source in sources:
        bytecode = Path(importlib.util.cache_from_source(source)).read_bytes()
        # The flags say that it is taken without a look at the source. https://peps.python.org/pep-0552/
        assert bytecode[:8] == importlib.util.MAGIC_NUMBER + b"\x01\0\0\0"
        assert bytecode[8:16] == importlib.util.source_hash(source.read_bytes())


@pytest.mark.parametrize("function", ["MigrateFunction", "ButtonFunction", "ReportFunction"])
def test_every_function_is_built_with_the_one_list_of_results(function: str) -> None:
    (built,) = (ARTIFACT.parent / function).rglob("results.py")
    assert not built.is_symlink()
    assert built.read_bytes() == (PROJECT / "functions" / "migrate" / "pg_hotfix" / "results.py").read_bytes()


def read_lines(invocation: Invocation, message: str) -> list[dict[str, Any]]:
    return [record for record in invocation.logs if record.get("message") == message]


def test_check_is_ready_and_counts_it(invoke: Callable[..., Invocation]) -> None:
    invocation = invoke("check")
    assert (invocation.error_type, invocation.payload["result"]) == (None, "ready")
    assert invocation.payload["database"]["tls"] == "TLSv1.3"
    assert [metric["Ready"] for metric in invocation.metrics if "Ready" in metric] == [[1.0]]


def test_plan_tells_what_would_run_and_changes_nothing(invoke: Callable[..., Invocation], database: Database) -> None:
    invocation = invoke("plan")
    assert (invocation.error_type, invocation.payload["result"]) == (None, "would_apply")
    assert 'ADD COLUMN IF NOT EXISTS "active_since"' in invocation.payload["sql"]
    assert database.run(COLUMN) == [[0]]


def test_apply_adds_the_column_once_and_logs_what_it_answers(
    start: Callable[..., EmulatedFunction], invoke: Callable[..., Invocation], database: Database
) -> None:
    function = start()
    first, second = invoke("apply", function), invoke("apply", function)
    assert (first.payload["result"], second.payload["result"]) == ("applied", "already_applied")
    assert database.run(COLUMN) == [[1]]
    (line,) = read_lines(first, "hotfix finished")
    told = {key: value for key, value in first.payload.items() if value is not None}
    assert {key: line[key] for key in told} == told
    assert (line["cold_start"], read_lines(second, "hotfix finished")[0]["cold_start"]) == (True, False)


def test_verify_proves_the_column(invoke: Callable[..., Invocation], database: Database) -> None:
    database.run_as_owner("ALTER TABLE drivers ADD COLUMN active_since timestamptz")
    invocation = invoke("verify")
    assert (invocation.error_type, invocation.payload["result"]) == (None, "verified")


def test_verify_of_a_missing_column_fails_with_the_text_for_the_operator(invoke: Callable[..., Invocation]) -> None:
    invocation = invoke("verify")
    assert invocation.error_type == "MismatchError"
    assert invocation.error_message is not None
    assert "public.drivers.active_since" in invocation.error_message
    (line,) = read_lines(invocation, "hotfix failed")
    assert (line["error"], line["advice"]) == ("MismatchError", invocation.error_message)
    assert [metric["Failed"] for metric in invocation.metrics if "Failed" in metric] == [[1.0]]


def test_a_refused_password_is_shown_nowhere(start: Callable[..., EmulatedFunction]) -> None:
    refused = "correct-horse-battery-staple"
    invocation = start(password=refused).invoke({"hotfix": HOTFIX, "action": "plan"})
    assert invocation.error_type == "LoginError"
    assert refused not in invocation.output + json.dumps(invocation.payload)


def test_the_package_is_the_same_on_every_machine_and_for_every_processor() -> None:
    files = [path for path in ARTIFACT.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".so"] == []
    for wheel in ARTIFACT.glob("*.dist-info/WHEEL"):
        assert re.findall(r"^Tag: .*-none-any$", wheel.read_text(), re.MULTILINE), wheel
    assert [path for path in files if str(PROJECT).encode() in path.read_bytes()] == []


def test_secrets_manager_is_found_in_every_region_though_other_services_are_left_out() -> None:
    """The same endpoints as all of botocore finds."""
    assert [path.name for path in (ARTIFACT / "botocore/data").iterdir() if path.is_dir()] == ["secretsmanager"]
    partitions = json.loads((ARTIFACT / "botocore/data/endpoints.json").read_text())["partitions"]
    assert {name for partition in partitions for name in partition["services"]} == {"secretsmanager"}
    ask = (
        "import botocore.session; session = botocore.session.get_session(); print(["
        "session.create_client('secretsmanager', region, aws_access_key_id='x', aws_secret_access_key='x').meta"
        ".endpoint_url for region in ('sa-east-1', 'us-gov-west-1', 'cn-north-1', 'eusc-de-east-1', 'new-place-1')])"
    )
    found = [
        subprocess.run([sys.executable, *options, "-c", ask], env=environment, check=True, capture_output=True).stdout
        for options, environment in ((["-S"], {"PYTHONPATH": str(ARTIFACT)}), ([], {}))
    ]
    assert found[0] == found[1]
    assert b"https://secretsmanager.sa-east-1.amazonaws.com" in found[0]
