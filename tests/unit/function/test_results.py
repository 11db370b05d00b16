"""One list of results: whatever the function can answer is shown as what it is, wherever people look."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import show
from pg_hotfix.results import RESULTS, read_result
from pg_hotfix_button.overview import Seen, show_overview
from pg_hotfix_button.progress import show_execution
from pg_hotfix_report.app import make_report
from pg_hotfix_report.facts import collect_facts
from pg_hotfix_report.run import Run
from tests.unit.button.test_page import ID, NOW, VIEWER, make_execution

PROJECT = Path(__file__).parents[3]
REAL = PROJECT / "functions" / "migrate" / "pg_hotfix" / "results.py"
UNKNOWN: list[tuple[Any, str]] = [
    ("odd", "Unknown result: odd"),
    ("building", "Unknown result: building"),
    (7, "Unknown result: 7"),
    (["applied"], "Unknown result: ['applied']"),
    ("", "Ended without a result"),
    (None, "Ended without a result"),
]


def test_every_word_that_the_function_answers_is_in_the_list() -> None:
    code = "".join((REAL.parent / name).read_text() for name in ("hotfix.py", "read_only.py"))
    answered = re.findall(r'\b[rR]eport\("(\w+)"', code)
    assert len(answered) > 4
    assert set(answered) <= set(RESULTS)


def test_the_reference_has_every_word_and_every_metric() -> None:
    words = set(re.findall(r"`(\w+)`", (PROJECT / "docs" / "reference.md").read_text()))
    assert set(RESULTS) <= words
    assert {result.metric for result in RESULTS.values() if result.metric} <= words


@pytest.mark.parametrize("name", ["button", "report"])
def test_every_function_has_the_same_file(name: str) -> None:
    link = PROJECT / "functions" / name / f"pg_hotfix_{name}" / "results.py"
    assert (link.is_symlink(), link.readlink().is_absolute(), link.resolve()) == (True, False, REAL)


def test_no_other_table_of_results_is_left() -> None:
    """Two words of the list together, as the keys of a dict or in a set, are a table of their own."""
    tables = []
    for path in sorted(
        [*PROJECT.glob("functions/**/*.py"), *PROJECT.glob("cli/**/*.py"), *PROJECT.glob("laptop/*.py")]
    ):
        for node in ast.walk(ast.parse(path.read_text())) if path.resolve() != REAL else ():
            keys = node.keys if isinstance(node, ast.Dict) else node.elts if isinstance(node, ast.Set) else []
            words = [key.value for key in keys if isinstance(key, ast.Constant) and key.value in RESULTS]
            tables += [(path.name, words)] if len(words) > 1 else []
    assert tables == []


def test_the_runbook_knows_no_word_of_its_own() -> None:
    document = yaml.safe_load((PROJECT / "runbooks" / "apply-hotfix.yaml").read_text())
    scripts = {step["name"]: step["inputs"].get("Script", "") for step in document["mainSteps"]}
    compared = re.findall(r'\["result"\] (?:not in|!=) (\([^)]+\)|"\w+"|DONE)', "\n".join(scripts.values()))
    assert compared == ['("would_apply", "already_applied")', "DONE", '"verified"']
    namespace: dict[str, Any] = {}
    exec(scripts["ShowApply"], namespace)
    assert {word: RESULTS[word].done for word in namespace["DONE"]} == {"applied": True, "already_applied": True}


# Where it is shown


@pytest.mark.parametrize("word", RESULTS)
def test_a_result_is_shown_as_a_success_or_as_something_to_do_everywhere(word: str) -> None:
    result = RESULTS[word]
    sign = {"good": "\N{CHECK MARK} ", "warn": "\N{BLACK UP-POINTING TRIANGLE} "}[result.tone]
    action = {"reverted": "revert", "already_reverted": "revert", "passed": "gate"}.get(word, "apply")
    output = {"result": word, "summary": "Summed up."}
    ended = make_execution(action, output=output)
    for page in (
        show_execution(VIEWER, ended, (), NOW).source,
        show_overview(VIEWER, Seen([ID], ID, make_execution(status="RUNNING"), (), [ended], NOW)).source,
        show_overview(VIEWER, Seen([ID], ID, replace(ended, request={}), (), [], NOW)).source,
    ):
        assert f'aria-hidden="true">{sign}</span>{result.said}<' in page
        assert "\N{BALLOT X}" not in page
    text = show.say_result(word)
    assert (text.plain, str(text.style)) == (word, {"good": "bold green", "warn": "bold yellow"}[result.tone])
    report = make_report(Run(output | {"request": {"hotfix": ID, "action": action}}))
    assert report["markdown"].startswith(f"# Hotfix `{ID}`: `{result.said}`\n")


def test_only_what_is_still_to_do_is_no_success() -> None:
    assert {word for word, result in RESULTS.items() if not result.done} == {"would_apply"}


@pytest.mark.parametrize(("word", "said"), UNKNOWN)
def test_an_unknown_word_is_neither_a_success_nor_a_failure(word: Any, said: str) -> None:
    assert (read_result(word).said, read_result(word).tone, read_result(word).metric) == (said, "warn", None)
    ended = make_execution("apply", output={"result": word, "summary": "Summed up."})
    for page in (
        show_execution(VIEWER, ended, (), NOW).source,
        show_overview(VIEWER, Seen([ID], ID, ended, (), [ended], NOW)).source,
    ):
        assert "\N{BLACK UP-POINTING TRIANGLE} </span>" in page
        assert "\N{CHECK MARK}" not in page
        assert "\N{BALLOT X}" not in page
        assert "Summed up." in page
    text = show.say_result(word)
    assert (text.plain, str(text.style)) == (said, "bold yellow")
    facts = collect_facts(Run({"result": word, "request": {"hotfix": ID, "action": "apply"}}))
    assert facts["execution"]["outcome"] == said
