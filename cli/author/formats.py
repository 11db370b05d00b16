"""A hotfix as the file of a migration tool: where it belongs, and what stands in it. No database is needed."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laptop.errors import LocalError
from pg_hotfix.file.hotfix_file import Hotfix, derive_way_back

# Flyway would put a value in its place. https://documentation.red-gate.com/fd/migration-placeholders-275218549.html
PLACEHOLDER = "${"


@dataclass(frozen=True)
class Migration:
    """A file to write. `notes` are what its tool's users have to know."""

    path: Path
    content: bytes
    notes: tuple[str, ...] = ()
    is_prisma: bool = False


@dataclass(frozen=True)
class Place:
    """Where the migration belongs: its folder, the migration before it unless that is the folder's last, and Django's
    app unless it is called like the folder above."""

    folder: Path
    after: str | None = None
    app: str | None = None


def write_prisma(hotfix: Hotfix, place: Place) -> Migration:
    """The same bytes, so the same checksum: https://www.prisma.io/docs/orm/prisma-migrate"""
    return Migration(place.folder / hotfix.id / "migration.sql", hotfix.sql.encode(), is_prisma=True)


def write_flyway(hotfix: Hotfix, place: Place) -> Migration:
    """https://documentation.red-gate.com/fd/versioned-migrations-273973333.html"""
    if PLACEHOLDER in hotfix.sql:
        raise LocalError(
            f"sql/{hotfix.id}.sql holds {PLACEHOLDER}, where Flyway would put a value in: write the SQL without it."
        )
    version, name = hotfix.id.split("_", 1)
    return Migration(place.folder / f"V{version}__{name}.sql", hotfix.sql.encode())


def write_dbmate(hotfix: Hotfix, place: Place) -> Migration:
    """https://github.com/amacneil/dbmate#writing-migrations"""
    content = f"-- migrate:up\n{hotfix.sql.rstrip()}\n\n-- migrate:down\n{way_back(hotfix)}\n"
    return Migration(place.folder / f"{hotfix.id}.sql", content.encode())


ALEMBIC = '''"""{title}"""

from alembic import op
from sqlalchemy import DDL

revision = "{revision}"
down_revision = {down_revision}
branch_labels = None
depends_on = None

SQL = {sql}

WAY_BACK = {way_back}


def upgrade() -> None:
    # In a plain string SQLAlchemy would take a colon for a parameter.
    op.execute(DDL(SQL.replace("%", "%%")))


def downgrade() -> None:
    op.execute(DDL(WAY_BACK.replace("%", "%%")))
'''


def write_alembic(hotfix: Hotfix, place: Place) -> Migration:
    """`down_revision` is `place.after`, or the one head of the place.folder.

    https://alembic.sqlalchemy.org/en/latest/tutorial.html#create-a-migration-script
    """
    path, revision = place.folder / f"{hotfix.id}.py", hotfix.id.split("_", 1)[0]
    down_revision = place.after
    if not down_revision:
        down_revision = read_assigned(path, "down_revision") if path.exists() else find_head(place.folder)
    content = ALEMBIC.format(
        title=title(hotfix),
        revision=revision,
        down_revision=json.dumps(down_revision) if down_revision else None,
        sql=python_text(hotfix.sql),
        way_back=python_text(f"{way_back(hotfix)}\n"),
    )
    return Migration(path, content.encode())


def find_head(folder: Path) -> str | None:
    """The revision that no other one follows; None in an empty folder."""
    revisions: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.py")):
        if revision := read_assigned(path, "revision"):
            before = read_assigned(path, "down_revision")
            revisions[revision] = [before] if isinstance(before, str) else list(before or ())
    followed = {one for before in revisions.values() for one in before}
    heads = [revision for revision in revisions if revision not in followed]
    if len(heads) > 1:
        raise LocalError(
            f"{folder} has the heads {' and '.join(heads)}. Name the one that goes before:  --after {heads[0]}"
        )
    return heads[0] if heads else None


DJANGO = '''"""{title}"""

from django.db import migrations

SQL = {sql}

WAY_BACK = {way_back}


class Migration(migrations.Migration):
    dependencies = {dependencies}

    # state_operations=[migrations.AddField(...)] belongs here once the model has the field: makemigrations would add
    # the column a second time.
    operations = [migrations.RunSQL(SQL, reverse_sql=WAY_BACK)]
'''


def write_django(hotfix: Hotfix, place: Place) -> Migration:
    """The dependency is `place.after`, or the last migration of the folder, in the app `place.app` or the folder's own.

    https://docs.djangoproject.com/en/stable/ref/migration-operations/#runsql
    """
    numbered = sorted(path for path in place.folder.glob("*.py") if re.match(r"[0-9]{4}_", path.name))
    mine = [path for path in numbered if path.name[5:] == f"{hotfix.id}.py"]
    others = [path for path in numbered if path not in mine]
    if mine:
        others = [path for path in others if path.name < mine[0].name]
    app = place.app or place.folder.resolve().parent.name
    depends_on = place.after or (others[-1].stem if others else "")
    number = f"{int(others[-1].name[:4]) + 1:04}" if others else "0001"
    content = DJANGO.format(
        title=title(hotfix),
        sql=python_text(hotfix.sql),
        way_back=python_text(f"{way_back(hotfix)}\n"),
        dependencies=f"[({json.dumps(app)}, {json.dumps(depends_on)})]" if depends_on else "[]",
    )
    path = mine[0] if mine else place.folder / f"{number}_{hotfix.id}.py"
    return Migration(path, content.encode(), ("Put the field into its state_operations once the model has it.",))


FORMATS: dict[str, Callable[[Hotfix, Place], Migration]] = {
    "prisma": write_prisma,
    "flyway": write_flyway,
    "alembic": write_alembic,
    "dbmate": write_dbmate,
    "django": write_django,
}


def way_back(hotfix: Hotfix) -> str:
    """The file's own, or else the opposite of what is expected."""
    return hotfix.revert.sql if hotfix.revert else "\n".join(derive_way_back(hotfix.expectations))


def title(hotfix: Hotfix) -> str:
    return f"Make the hotfix {hotfix.id} formal: it changes nothing where that was applied."


def python_text(text: str) -> str:
    """The text as a Python literal, on several lines where that is safe."""
    escaped = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""\\\n{escaped}"""' if text.endswith("\n") and "\r" not in text else repr(text)


def read_assigned(path: Path, name: str) -> Any:
    """The constant that a Python file assigns to that name; None if it does not."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for target, value in assignments(node):
            if isinstance(target, ast.Name) and target.id == name:
                return ast.literal_eval(value)
    return None


def assignments(node: ast.stmt) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Both `x = 1` and `x: int = 1`, as Alembic's own template writes it."""
    if isinstance(node, ast.Assign):
        yield from ((target, node.value) for target in node.targets)
    elif isinstance(node, ast.AnnAssign) and node.value:
        yield node.target, node.value
