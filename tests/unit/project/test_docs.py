"""The documents say what is so: commands, targets, paths, requests, errors and limits that they name exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from samcli.cli.types import CfnParameterOverridesType  # type: ignore[import-untyped]
from samcli.yamlhelper import yaml_parse  # type: ignore[import-untyped]

from cli.main import cli
from pg_hotfix.change import in_transaction
from pg_hotfix.errors import HotfixError
from pg_hotfix.file.hotfix_file import ExpectedSchema
from pg_hotfix.request import ACTIONS, parse_request
from pg_hotfix.server import limits
from pg_hotfix.settings import read_settings

DOCUMENTS = [Path(name) for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
DOCUMENTS += sorted(Path("docs").glob("*.md"))
README = Path("README.md").read_text()
REFERENCE = Path("docs/reference.md")
DEPLOY = Path("docs/deploy.md")
SECTIONS = [
    "In an incident",
    "Try it",
    "A hotfix file",
    "What happens on `apply`",
    "What a refusal looks like",
    "What others notice",
    "Deploy",
    "Ways to run it",
    "Prevent it",
    "Limits",
    "Map of the docs",
]
# What the code prints, which other tests compare with the code: its commands are the code's own.
PRINTED = re.compile(r"<!-- [^\n]+ -->\n```.*?```", re.DOTALL)


def test_the_readme_is_one_page_of_twelve_sections() -> None:
    lines = README.splitlines()
    assert len(lines) <= 200
    assert lines[0] == "# pg-hotfix"
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == SECTIONS
    # The first section is one sentence.
    assert re.fullmatch(r"# pg-hotfix\n\n[^.]+\.\n\n", README[: README.index("## ")])


def test_the_readme_leads_to_every_page() -> None:
    linked = {Path(link) for link in re.findall(r"\]\(([^)#:]+)", README[README.index("## Map of the docs") :])}
    assert linked == set(DOCUMENTS) - {Path("README.md")}


def test_the_runbook_is_short_enough_for_three_in_the_morning() -> None:
    assert len(Path("docs/runbook.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_make_target_that_is_named_exists_with_its_variables(path: Path) -> None:
    makefile = Path("Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"\b([A-Z_]+)=[\w-]", "\n".join(re.findall(r"## .*", makefile))))
    text = code_of(PRINTED.sub("", path.read_text()))
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)\b(?! (?:the|it|one|sure))", text)) <= targets
    given = " ".join(re.findall(r"\bmake [a-z][a-z-]+((?: [A-Z_]+=\S+)+)", text))
    assert set(re.findall(r"([A-Z_]+)=", given)) <= variables


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_command_that_is_named_exists_with_its_options(path: Path) -> None:
    for line in re.findall(r"pg-hotfix/?(?:pg-hotfix)? ((?:[a-z]+(?:-[a-z]+)*)\b[^\n`|]*)", code_of(path.read_text())):
        name, *words = line.split()
        if name in cli.commands:
            known = {option for one in cli.commands[name].params for option in one.opts} | {"--help"}
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known | {"--"}, line
    named = re.findall(r"\./pg-hotfix ([a-z][a-z-]*)", code_of(path.read_text()))
    assert set(named) <= set(cli.commands)


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_command_to_type_is_complete(path: Path) -> None:
    """Each that stands in a block for a shell: as the command line itself reads it, without running it."""
    blocks = re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line.split(" > ")[0]) for line in lines if line.strip().startswith("./pg-hotfix ")]
    assert commands or path.name not in ("README.md", "runbook.md", "ways-to-run.md", "write-a-hotfix.md")
    for _, name, *arguments in commands:
        command = cli.commands[name]
        given, left, _ = command.make_parser(click.Context(command)).parse_args(list(arguments))
        assert left == [], arguments
        missing = [one.name for one in command.params if one.required and given.get(one.name or "") is None]
        assert missing == [], arguments
        # Which stack?
        if "stack" in {one.name for one in command.params}:
            assert given.get("environment") or given.get("stack"), arguments
        for option in command.params:
            if isinstance(option.type, click.Choice) and (value := given.get(option.name or "")) is not None:
                assert value in option.type.choices, arguments


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_path_that_is_named_exists(path: Path) -> None:
    text = path.read_text()
    links = [path.parent / link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
    files = [Path(name) for name in re.findall(r"`((?:events|sql|docs|tests|functions|cli|laptop)/[\w./]*)`", text)]
    files += [Path(name) for name in re.findall(r"(?<![\w/])(events/\w+\.json)", text)]
    written = {Path("sql") / ExpectedSchema.file}  # by `expect-schema`, from an application that has a schema
    assert [str(file) for file in [*links, *files] if not file.exists() and file not in written] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_heading_that_is_linked_to_exists(path: Path) -> None:
    for name, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", path.read_text()):
        target = path.parent / name if name else path
        assert anchor in anchors(target.read_text()), f"{name}#{anchor}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_request_that_is_shown_is_accepted(path: Path) -> None:
    text = path.read_text()
    requests = re.findall(r"--payload '([^']+)'", text) + re.findall(r'```json\n(\{"hotfix"[^\n]+)\n```', text)
    for entries in re.findall(r"put-events --entries '([^']+)'", text):
        requests += [entry["Detail"] for entry in json.loads(entries)]
    assert requests or path.name not in ("ways-to-run.md", "runbook.md")
    for request in requests:
        parse_request(json.loads(request))


def test_the_four_parameters_of_the_readme_are_enough() -> None:
    """As SAM reads the command, whose list replaces that of samconfig.toml, EnvironmentName included."""
    command = re.search(r"sam deploy --parameter-overrides (.+?)\n```", README, re.DOTALL)
    assert command
    given = CfnParameterOverridesType().convert(shlex.split(command[1].replace("\\\n", "")), None, None)
    parameters = yaml_parse(Path("template.yaml").read_text())["Parameters"]
    assert set(given) == {name for name, parameter in parameters.items() if "Default" not in parameter}
    assert all(re.fullmatch(parameters[name].get("AllowedPattern", ".+"), value) for name, value in given.items())


def test_the_rows_of_the_readme_are_those_of_the_benchmark() -> None:
    page = Path("docs/benchmarks.md").read_text()
    section = page[page.index("\n2. A transaction that has read") : page.index("\n3. A transaction that has updated")]
    # Who waits, how long at worst, its range, p99; the same of writers; when the column was there.
    found = {
        name.strip(): (readers, there)
        for name, readers, there in re.findall(
            r"^   (\S.*?) {2,}([\d.,]+) \([^)]+\) +\S+ +\S+ \([^)]+\) +\S+(?: +([\d.,]+) \([^)]+\).*)?$",
            section,
            re.MULTILINE,
        )
    }
    rows = re.findall(
        r"^\| (psql, `lock_timeout`|psql|pg-hotfix)[^|]* \| ([\d.,]+) ms \| ([\d.,]+) ms \|$", README, re.MULTILINE
    )
    assert [(name, *found[name]) for name in ("psql", "psql, lock_timeout", "pg-hotfix")] == [
        (name.replace("`", ""), readers, there) for name, readers, there in rows
    ]
    assert f"Without any tool they wait {found['nobody'][0]} ms at most." in README


def test_contributing_names_files_and_functions_that_exist() -> None:
    text = Path("CONTRIBUTING.md").read_text()
    package = Path("functions/migrate/pg_hotfix")
    folders = (Path(), package)
    for name in re.findall(r"`([\w/.]+(?:\.py|\.yaml|/))`", text):
        assert any((folder / name).exists() for folder in folders), name
    for module, function in re.findall(r"`(\w+)\.([a-z]\w+)`(?! knows)", text):
        if function not in ("py", "md", "yaml"):
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


def test_the_reference_has_every_error_with_its_retry() -> None:
    rows = re.findall(r"^\| `(\w+Error)` \| (yes|no) \|", REFERENCE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(
        (error.__name__, "yes" if error.retryable else "no") for error in HotfixError.__subclasses__()
    )


def test_the_page_on_deploying_has_every_parameter() -> None:
    parameters = yaml_parse(Path("template.yaml").read_text())["Parameters"]
    assert set(parameters) <= set(re.findall(r"^\| `([A-Z]\w+)` \|", DEPLOY.read_text(), re.MULTILINE))


def test_the_reference_has_every_action() -> None:
    page = REFERENCE.read_text()
    table = page[page.index("| action |") :].split("\n\n")[0]
    assert re.findall(r"^\| `([a-z]+)`.* \|$", table, re.MULTILINE) == list(ACTIONS)


def test_every_error_of_the_runbook_exists() -> None:
    rows = re.findall(r"^\| (`\w+Error`(?:, `\w+Error`)*) \|", Path("docs/runbook.md").read_text(), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    ways = Path("docs/ways-to-run.md").read_text()
    of_the_machine = set(re.findall(r"^\| `(\w+Error)` \|", ways, re.MULTILINE))
    assert len(named) > 10
    assert set(named) <= {error.__name__ for error in HotfixError.__subclasses__()} | of_the_machine
    assert of_the_machine <= set(named)
    sources = [Path("statemachine/hotfix.asl.yaml"), *Path("functions/report/pg_hotfix_report").glob("*.py")]
    assert all(any(name in source.read_text() for source in sources) for name in of_the_machine)


def test_the_readme_has_the_limits_in_force() -> None:
    settings = read_settings({"DB_SECRET_ARN": "x", "SQL_DIR": "sql"})
    derived = limits.derive_limits(settings, 55_000)
    steps = README[README.index("## What happens on") : README.index("## What a refusal")]
    assert (
        f" {derived.lock_timeout_ms} ms for a lock, {derived.statement_timeout_ms // 1000} s for a statement" in steps
    )
    assert f" at most {settings.lock_wait_seconds} s." in steps


def test_every_decision_is_in_the_index_once() -> None:
    index, *entries = Path("docs/decisions.md").read_text().split("\n## ")
    listed = re.findall(r"\]\(#([^)]+)\)", index)
    assert sorted(listed) == sorted(anchor(entry.split("\n")[0]) for entry in entries)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name == "decisions.md"], ids=str)
def test_a_decision_is_dated_and_short(path: Path) -> None:
    for decision in path.read_text().split("\n## ")[1:]:
        title, *lines = decision.strip().split("\n")
        assert re.match(r"20\d\d-\d\d-\d\d \S", title)
        assert len([line for line in lines if line]) <= 8, title


def anchors(text: str) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def anchor(heading: str) -> str:
    """The name that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def code_of(text: str) -> str:
    """Only what stands in code: fenced blocks and between backticks."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
