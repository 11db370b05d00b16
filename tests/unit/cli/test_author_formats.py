"""Where each tool's migration goes and what stands in it. The tools themselves run it in tests/e2e."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest

from cli.author.formats import FORMATS, Migration, Place, python_text
from laptop.errors import LocalError
from pg_hotfix.file.hotfix_file import Hotfix, load_hotfix, parse_hotfix

ID = "20260212092000_add_drivers_active_since"
AWKWARD = """-- "It's" 10:30, 100% \\sure: :id, ${HOME}, \"\"\"
-- expect: column public.drivers."activeSince" text null
ALTER TABLE drivers ADD COLUMN IF NOT EXISTS "activeSince" text;
"""


def packaged() -> Hotfix:
    return load_hotfix(Path("sql"), ID)


def awkward() -> Hotfix:
    return parse_hotfix("20260301101500_awkward", AWKWARD.encode())


def write(form: str, folder: Path, hotfix: Hotfix | None = None, **options: str) -> Migration:
    return FORMATS[form](hotfix or packaged(), Place(folder, **options))


def names_in(source: bytes) -> dict[str, object]:
    """What the module assigns, by name. It is compiled, and not run."""
    compile(source, "migration.py", "exec")
    found: dict[str, object] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                found[node.targets[0].id] = ast.unparse(node.value)
    return found


@pytest.mark.parametrize(
    ("form", "path"),
    [("prisma", f"{ID}/migration.sql"), ("flyway", "V20260212092000__add_drivers_active_since.sql")],
)
def test_prisma_and_flyway_get_the_same_bytes(tmp_path: Path, form: str, path: str) -> None:
    migration = write(form, tmp_path)
    assert migration.path == tmp_path / path
    assert hashlib.sha256(migration.content).hexdigest() == packaged().sha256


@pytest.mark.parametrize("form", ["alembic", "dbmate", "django"])
def test_the_files_own_way_back_goes_before_the_derived_one(tmp_path: Path, form: str) -> None:
    lines = '-- revert: ALTER TABLE drivers DROP "activeSince";\n-- revert: DROP TYPE IF EXISTS mood;\n'
    hotfix = parse_hotfix("20260301101500_mood", f"{lines}{AWKWARD}".encode())
    content = write(form, tmp_path, hotfix).content.decode()
    assert 'ALTER TABLE drivers DROP "activeSince";\nDROP TYPE IF EXISTS mood;\n' in content
    assert 'DROP COLUMN IF EXISTS "activeSince"' not in content


def test_a_file_in_which_flyway_would_put_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError) as caught:
        write("flyway", tmp_path, awkward())
    assert str(caught.value) == (
        "sql/20260301101500_awkward.sql holds ${, where Flyway would put a value in: write the SQL without it."
    )


def test_dbmate_gets_a_way_up_and_a_way_down(tmp_path: Path) -> None:
    migration = write("dbmate", tmp_path, awkward())
    assert migration.path == tmp_path / "20260301101500_awkward.sql"
    assert migration.content.decode() == (
        f"-- migrate:up\n{AWKWARD}\n-- migrate:down\n"
        'ALTER TABLE "public"."drivers" DROP COLUMN IF EXISTS "activeSince";\n'
    )


@pytest.mark.parametrize("form", ["alembic", "django"])
def test_python_files_compile_and_hold_the_sql_as_it_is(tmp_path: Path, form: str) -> None:
    assert names_in(write(form, tmp_path).content)["SQL"] == packaged().sql
    assert names_in(write(form, tmp_path, awkward()).content)["SQL"] == AWKWARD


@pytest.mark.parametrize("text", [AWKWARD, "no line end", "with\r\nboth\r\n", '"""\n', "\\\n", "\\'\\\"\n"])
def test_any_text_can_stand_in_a_python_file(text: str) -> None:
    assert ast.literal_eval(python_text(text)) == text


def alembic(folder: Path, revision: str, down_revision: object, annotated: bool = False) -> None:
    note = ": str" if annotated else ""
    (folder / f"{revision}_x.py").write_text(
        f"revision{note} = {revision!r}\ndown_revision{note} = {down_revision!r}\n"
    )


def test_alembic_goes_on_from_the_head_of_the_folder(tmp_path: Path) -> None:
    assert names_in(write("alembic", tmp_path).content)["down_revision"] is None
    alembic(tmp_path, "aa11", None)
    alembic(tmp_path, "bb22", "aa11", annotated=True)
    alembic(tmp_path, "cc33", "aa11")
    alembic(tmp_path, "dd44", ("bb22", "cc33"))
    migration = write("alembic", tmp_path)
    assert migration.path == tmp_path / f"{ID}.py"
    assert names_in(migration.content)["revision"] == "20260212092000"
    assert names_in(migration.content)["down_revision"] == "dd44"


def test_alembic_asks_which_head_when_there_are_several(tmp_path: Path) -> None:
    alembic(tmp_path, "aa11", None)
    alembic(tmp_path, "bb22", None)
    with pytest.raises(LocalError) as caught:
        write("alembic", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has the heads aa11 and bb22. Name the one that goes before:  --after aa11"
    )
    assert names_in(write("alembic", tmp_path, after="bb22").content)["down_revision"] == "bb22"


def test_alembic_is_the_same_again_when_others_have_followed(tmp_path: Path) -> None:
    alembic(tmp_path, "aa11", None)
    first = write("alembic", tmp_path)
    first.path.write_bytes(first.content)
    alembic(tmp_path, "bb22", "20260212092000")
    assert write("alembic", tmp_path) == first


def test_django_depends_on_the_last_migration_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "fleet" / "migrations"
    folder.mkdir(parents=True)
    for name in ("__init__.py", "0001_initial.py", "0002_more.py"):
        (folder / name).write_text("")
    first = write("django", folder)
    assert first.path == folder / f"0003_{ID}.py"
    assert names_in(first.content)["dependencies"] == [("fleet", "0002_more")]
    first.path.write_bytes(first.content)
    (folder / "0004_later.py").write_text("")
    assert write("django", folder) == first


def test_django_takes_the_app_and_what_it_depends_on_from_the_caller(tmp_path: Path) -> None:
    first = write("django", tmp_path)
    assert (first.path.name, names_in(first.content)["dependencies"]) == (f"0001_{ID}.py", [])
    told = write("django", tmp_path, app="fleet", after="0007_drivers")
    assert names_in(told.content)["dependencies"] == [("fleet", "0007_drivers")]
