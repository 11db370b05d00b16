"""docs/reference.md is what the code says."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import app
from laptop import reference_page
from pg_hotfix.change.blocker import Blocker
from pg_hotfix.history.prisma import History
from pg_hotfix.report import Report
from pg_hotfix.results import RESULTS
from tests.conftest import FakeContext
from tests.unit.function.test_app import MADE

if TYPE_CHECKING:
    from collections.abc import Iterator

FUNCTION = Path("functions/migrate")


def keys_of(value: Any, name: str = "") -> Iterator[str]:
    """Every key that holds no object of its own, as the page writes it."""
    if isinstance(value, dict) and name != "limits":
        for key, inner in value.items():
            yield from keys_of(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner, f"{name}[]")
    else:
        yield name


def test_the_page_is_up_to_date() -> None:
    written = reference_page.PAGE.read_text()
    assert written == reference_page.render(), "docs/reference.md is behind the code:  make reference"


def test_the_page_has_every_key_of_a_response() -> None:
    blocker = Blocker("3/7", 4711, "billing", "job", "active", 3.0, "ACCESS SHARE", True, True, "t", None, None, (1,))
    report = Report(
        "applied",
        (MADE,),
        dict.fromkeys(("host", "port", "name", "user", "server_version", "tls")),
        blockers=(blocker,),
        hotfixes=("x",),
        history=History("public._prisma_migrations", "failed", "", ("x", "y")),
        notes=({"code": "column_grants", "text": ""},),
    )
    context: Any = FakeContext()
    answer = app.respond(report) | app.describe_run(None, context, datetime.now(UTC), 1.0)
    shown = [key for key, _, _ in reference_page.RESPONSE if key != "prisma"]
    assert list(dict.fromkeys(keys_of(answer))) == shown


def test_the_page_has_every_metric() -> None:
    named = set(re.findall(r'add_metric\("(\w+)"', (FUNCTION / "app.py").read_text()))
    assert named == set(reference_page.METRICS)
    assert {result.metric for result in RESULTS.values() if result.metric}.isdisjoint(reference_page.METRICS)


def test_the_page_has_every_environment_variable() -> None:
    code = (FUNCTION / "app.py").read_text() + (FUNCTION / "pg_hotfix" / "settings.py").read_text()
    named = set(re.findall(r'environ(?:ment)?\.get\("(\w+)"|read_number\(environment, "(\w+)"', code))
    assert {one or other for one, other in named} == {name for name, _, _ in reference_page.ENVIRONMENT}


def test_the_page_has_every_fact_of_a_failure() -> None:
    code = "".join(path.read_text() for path in FUNCTION.rglob("*.py"))
    facts = {"error", "retryable", "advice", "limits"}
    facts |= set(re.findall(r"\b(blockers|attempts|lock_wait_ms|longest_stall_ms|columns|refusal|staying)=", code))
    facts |= {"going", "guessed", "trigger"}
    assert facts == {key for key, _, _ in reference_page.FAILURE}
