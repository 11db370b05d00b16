"""The documents say what is so: targets, paths, requests, errors and limits that they name exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from samcli.yamlhelper import yaml_parse  # type: ignore[import-untyped]

from pg_hotfix.change import in_transaction
from pg_hotfix.errors import HotfixError
from pg_hotfix.file.hotfix_file import ExpectedSchema
from pg_hotfix.request import ACTIONS, parse_request
from pg_hotfix.server import limits
from pg_hotfix.settings import read_settings

DOCUMENTS = [
    Path(name)
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "docs/runbook.md",
        "docs/decisions.md",
        "docs/reference.md",
        "docs/safety.md",
        "docs/security.md",
        "docs/benchmark.md",
        "docs/performance.md",
    )
]
README = Path("README.md").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)\b(?! (?:the|it|one|sure))", code_of(path.read_text())))
    assert named <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_path_that_is_named_exists(path: Path) -> None:
    text = path.read_text()
    links = [path.parent / link for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    files = [Path(name) for name in re.findall(r"`((?:events|sql|docs|tests|functions|local)/[\w./]*)`", text)]
    files += [Path(name) for name in re.findall(r"(?<![\w/])(events/\w+\.json)", text)]
    written = {Path("sql") / ExpectedSchema.file}  # by `make gate`, from an application that has a schema
    assert [str(file) for file in [*links, *files] if not file.exists() and file not in written] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_request_that_is_shown_is_accepted(path: Path) -> None:
    text = path.read_text()
    requests = re.findall(r"--payload '([^']+)'", text) + re.findall(r'```json\n(\{"hotfix"[^\n]+)\n```', text)
    assert requests or path.name not in ("README.md", "runbook.md")
    for request in requests:
        parse_request(json.loads(request))


def test_contributing_names_files_and_functions_that_exist() -> None:
    text = Path("CONTRIBUTING.md").read_text()
    package = Path("functions/migrate/pg_hotfix")
    folders = (Path(), package, Path("tests/unit"), Path("tests/integration"))
    for name in re.findall(r"`([\w/]+(?:\.py|\.yaml|/))`", text):
        assert any((folder / name).exists() for folder in folders), name
    for module, function in re.findall(r"`(\w+)\.([a-z]\w+)`(?! knows)", text):
        if function not in ("py", "md"):
            path = next(one for one in (package / f"{module}.py", package.parent / f"{module}.py") if one.exists())
            assert f"\ndef {function}(" in path.read_text(), function


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", Path("docs/safety.md").read_text())
    assert len(named) > 30
    assert [name for path, name in named if f"def {name}(" not in Path(path).read_text()] == []


def test_the_limits_of_the_safety_page_are_those_in_force() -> None:
    derived = limits.derive_limits(read_settings({"DB_SECRET_ARN": "x", "SQL_DIR": "sql"}), 55_000)
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", Path("docs/safety.md").read_text(), re.MULTILINE))
    assert rows == {
        "lock_timeout": f"{derived.lock_timeout_ms} ms; in an attempt {limits.SHORTEST_ATTEMPT_MS} to"
        f" {derived.longest_attempt_ms} ms",
        "statement_timeout": f"{derived.statement_timeout_ms // 1000} s; while locking the attempt's wait and"
        f" {in_transaction.LOCKING_MS} ms",
        "transaction_timeout": f"{derived.transaction_timeout_ms / 1000} s, from PostgreSQL 17 on",
        "idle_in_transaction_session_timeout": f"{derived.idle_in_transaction_ms // 1000} s",
        "tcp_user_timeout": derived.startup_parameters()["tcp_user_timeout"].replace("000ms", " s"),
        "client_connection_check_interval": f"{limits.CONNECTION_CHECK_MS / 1000} s",
    }


def test_the_readme_has_every_error_with_its_retry() -> None:
    rows = re.findall(r"^\| `(\w+Error)` \| (yes|no) \|", README, re.MULTILINE)
    assert sorted(rows) == sorted(
        (error.__name__, "yes" if error.retryable else "no") for error in HotfixError.__subclasses__()
    )


def test_the_readme_has_every_parameter_with_its_default_and_question() -> None:
    template = yaml_parse(Path("template.yaml").read_text())
    questions = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterLabels"]
    expected = []
    for name, parameter in template["Parameters"].items():
        default = "(asked)" if "Default" not in parameter else f"`{parameter['Default']}`"
        expected.append((name, default.replace("``", "(empty)"), questions[name]["default"]))
    assert re.findall(r"^\| `([A-Z]\w+)` \| (\S+) \| (.+\?) \|$", README, re.MULTILINE) == expected


def test_the_readme_has_every_action() -> None:
    assert re.findall(r"^\| `([a-z]+)`.* \|$", README, re.MULTILINE) == list(ACTIONS)


def test_the_readme_has_the_limits_in_force() -> None:
    settings = read_settings({"DB_SECRET_ARN": "x", "SQL_DIR": "sql"})
    derived = limits.derive_limits(settings, 55_000)
    step = README[README.index("2. **Connects**") : README.index("3. **Looks**")]
    assert f"`lock_timeout` {derived.lock_timeout_ms} ms" in step
    assert f"`statement_timeout` {derived.statement_timeout_ms // 1000} s" in step
    assert f"`idle_in_transaction_session_timeout` {derived.idle_in_transaction_ms // 1000} s" in step.replace(
        "\n   ", " "
    )
    assert f"`client_connection_check_interval` {limits.CONNECTION_CHECK_MS} ms" in step
    assert f"at most {settings.lock_wait_seconds} s\n   (`LOCK_WAIT_SECONDS`)" in README


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name == "decisions.md"], ids=str)
def test_a_decision_is_dated_and_short(path: Path) -> None:
    for decision in path.read_text().split("\n## ")[1:]:
        title, *lines = decision.strip().split("\n")
        assert re.match(r"20\d\d-\d\d-\d\d \S", title)
        assert len([line for line in lines if line]) <= 8, title


def code_of(text: str) -> str:
    """Only what stands in code: fenced blocks and between backticks."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
