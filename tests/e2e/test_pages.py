"""The pages for whoever writes hotfixes show what the commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.e2e.test_commands import HOTFIX, checkout, pg_hotfix

WRITE = Path("docs/write-a-hotfix.md")
REWRITE, WAY_BACK = "20260301101500_add_drivers_seen_at", "20260301101500_add_drivers_rating"
# The incident's tables, with its column.
SCHEMA = "CREATE TABLE drivers (id uuid, name text, email text, created_at timestamptz, active_since timestamptz);"


def block(mark: str, page: Path = WRITE) -> str:
    found = re.search(rf"<!-- {mark} -->\n```text\n(.*?)```", page.read_text(), re.DOTALL)
    assert found, mark
    return found[1]


def sql_after(words: str) -> str:
    found = re.search(rf"{re.escape(words)}.*?```sql\n(.*?)```", WRITE.read_text(), re.DOTALL)
    assert found, words
    return found[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("pages") / "project")


def test_new_writes_what_the_page_shows(project: Path) -> None:
    command = re.search(r"\./pg-hotfix (new add_drivers_rating .*?)\n```", WRITE.read_text(), re.DOTALL)
    assert command
    result = pg_hotfix(*shlex.split(command[1].replace("\\\n", "")), project=project)
    assert result.returncode == 0, result.stderr
    assert with_names(result.stdout, project) == with_names(block("new"), Path())


def with_names(printed: str, project: Path) -> str:
    """Without the time of the id, and without the folders of this test."""
    printed = re.sub(r"\d{14}(?=_add_drivers_rating)", "TIME", printed.replace(f"{project}/pg-hotfix", "./pg-hotfix"))
    return re.sub(r"invoke \S+/events/", "invoke .../events/", printed)


def test_new_refuses_as_the_page_shows(project: Path) -> None:
    result = pg_hotfix("new", "again", "--sql", "ALTER TABLE drivers ADD COLUMN rating smallint", project=project)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == block("new refuses")


def test_prove_prints_what_the_page_shows(project: Path, tmp_path: Path) -> None:
    rewrite, way_back = tmp_path / f"{REWRITE}.sql", tmp_path / f"{WAY_BACK}.sql"
    rewrite.write_text(sql_after("Bad: a volatile default"))
    way_back.write_text(sql_after("## The way back"))
    result = pg_hotfix("prove", f"sql/{HOTFIX}.sql", str(rewrite), str(way_back), project=project)
    assert result.returncode == 1, result.stderr
    assert result.stdout.startswith(block("prove"))
    assert block("prove a rewrite") in result.stdout
    assert result.stdout.endswith(block("prove the way back"))


def test_formalize_prints_what_the_page_shows(project: Path, tmp_path: Path) -> None:
    result = pg_hotfix("formalize", HOTFIX, "--to", str(tmp_path), project=project)
    assert result.stdout.replace(str(tmp_path), "../app/prisma/migrations") == block(
        "formalize", Path("docs/prisma.md")
    )


def test_expect_schema_prints_what_the_page_shows(project: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.sql"
    schema.write_text(SCHEMA)
    result = pg_hotfix("expect-schema", str(schema), project=project)
    assert result.stdout.replace(f"{project}/", "./") == block("expect-schema", Path("docs/gate.md"))
