"""`formalize`: the tools themselves run what was written, after the hotfix and instead of it, and the lines
for schema.prisma are those of Prisma's own introspection.

Flyway and Django are not installed here: their files are compiled and read in tests/unit, and nothing more.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import pytest

from bench.tools import ALEMBIC_ENV, PROGRAMS
from cli.author.columns import expect_line, list_columns, word_columns
from cli.author.formalize import describe_in_prisma, write
from cli.author.formats import FORMATS, Place
from cli.author.prisma import describe_fields
from cli.author.scratch import Scratch, scratch_database, scratch_server
from laptop.errors import LocalError
from laptop.places import PROJECT
from laptop.psql import psql_environment
from pg_hotfix.file.hotfix_file import Hotfix, load_hotfix, parse_hotfix
from pg_hotfix.hotfix import apply
from pg_hotfix.promises.column.line import parse_expectation
from tests.conftest import PATIENCE_SECONDS
from tests.e2e.test_commands import HOTFIX, pg_hotfix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from laptop.postgres import Server

TYPES = Path(__file__).with_name("prisma_types.sql")
LINES = Path(__file__).with_name("prisma_types.prisma")
AWKWARD = """-- 100% of :id, at 10:30
-- expect: column public.drivers.active_since timestamp with time zone null
-- expect: column public.drivers.note text null default ':it''s 100%'::text
ALTER TABLE drivers ADD COLUMN IF NOT EXISTS active_since timestamptz;
ALTER TABLE drivers ADD COLUMN IF NOT EXISTS note text DEFAULT ':it''s 100%';
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with scratch_server(tmp_path_factory.mktemp("scratch")) as server:
        yield server


@pytest.fixture
def scratch(server: Server) -> Iterator[Scratch]:
    """A database with the tables of laptop/schema.sql."""
    with scratch_database(server, []) as scratch:
        yield scratch


def run(arguments: list[str | Path], environment: dict[str, str]) -> None:
    result = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert result.returncode == 0, result.stdout + result.stderr


def run_alembic(scratch: Scratch, folder: Path, *command: str) -> None:
    (folder / "env.py").write_text(ALEMBIC_ENV)
    (folder / "alembic.ini").write_text(f"[alembic]\nscript_location = {folder}\npath_separator = os\n")
    environment = psql_environment(scratch.server, scratch.login, scratch.name)
    run([PROGRAMS / "alembic", "--config", folder / "alembic.ini", *command], environment)


def run_dbmate(scratch: Scratch, folder: Path, command: str) -> None:
    login = f"{scratch.login.user}:{quote(scratch.login.password, safe='')}"
    options = urlencode({"sslmode": "verify-full", "sslrootcert": str(scratch.server.ca_bundle)})
    url = f"postgres://{login}@{scratch.server.host}:{scratch.server.port}/{scratch.name}?{options}"
    options_of_dbmate: list[str | Path] = ["--no-dump-schema", "--migrations-dir", folder / "versions"]
    run([PROGRAMS / "dbmate", *options_of_dbmate, command], {"PATH": os.defpath, "DATABASE_URL": url})


# Each tool's way up and way down.
TOOLS: dict[str, tuple[Callable[[Scratch, Path], None], Callable[[Scratch, Path], None]]] = {
    "alembic": (
        lambda scratch, folder: run_alembic(scratch, folder, "upgrade", "head"),
        lambda scratch, folder: run_alembic(scratch, folder, "downgrade", "-1"),
    ),
    "dbmate": (
        lambda scratch, folder: run_dbmate(scratch, folder, "up"),
        lambda scratch, folder: run_dbmate(scratch, folder, "down"),
    ),
}


def columns(scratch: Scratch) -> list[tuple[str, int, str]]:
    """Name, number and default of the columns of drivers: a column that is made anew gets another number."""
    return [
        (name, number, default)
        for name, number, default in scratch.run(
            "SELECT a.attname, a.attnum, pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a"
            " LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)"
            " WHERE a.attrelid = 'drivers'::regclass AND a.attnum > 4 AND NOT a.attisdropped ORDER BY 2"
        )
    ]


def write_for(tool: str, hotfix: Hotfix, folder: Path) -> Path:
    (folder / "versions").mkdir(parents=True)
    migration = FORMATS[tool](hotfix, Place(folder / "versions"))
    write(migration, hotfix)
    return migration.path


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_runs_its_file_as_a_no_op_after_the_hotfix(scratch: Scratch, tmp_path: Path, tool: str) -> None:
    hotfix = parse_hotfix("20260301101500_awkward", AWKWARD.encode())
    with scratch.open_session() as session:
        apply(session, hotfix, scratch.open_session)
    before = columns(scratch)
    write_for(tool, hotfix, tmp_path)
    up, _ = TOOLS[tool]
    up(scratch, tmp_path)
    assert columns(scratch) == before
    assert before == [("active_since", 5, None), ("note", 6, "':it''s 100%'::text")]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_runs_its_file_where_the_hotfix_never_was_and_back(scratch: Scratch, tmp_path: Path, tool: str) -> None:
    write_for(tool, parse_hotfix("20260301101500_awkward", AWKWARD.encode()), tmp_path)
    up, down = TOOLS[tool]
    up(scratch, tmp_path)
    assert columns(scratch) == [("active_since", 5, None), ("note", 6, "':it''s 100%'::text")]
    down(scratch, tmp_path)
    assert columns(scratch) == []


# schema.prisma


def test_the_lines_are_those_of_prismas_own_introspection_for_every_type(server: Server) -> None:
    introspected = re.findall(r"^  (\w+) +(.+)$", LINES.read_text(), re.MULTILINE)
    with scratch_database(server, [], TYPES) as scratch, scratch.open_session() as session:
        names = list_columns(scratch)
        lines = [expect_line(name, worded) for name, worded in word_columns(session, names).items()]
        expectations = tuple(parse_expectation(line.removeprefix("-- expect: ")) for line in lines)
        fields = list(describe_fields(session, Hotfix("", "", "", 0, expectations)))
    written = [
        (expectation.column, re.sub(r' @map\("\w+"\)', "", line).split(" ", 1)[1]) for expectation, line, _ in fields
    ]
    assert len(written) > 130
    assert written == [(name, re.sub(r" +", " ", rest)) for name, rest in introspected]


def test_an_enum_comes_with_its_block(server: Server, tmp_path: Path) -> None:
    content = (
        '-- expect: column public.drivers.how_it_is public."Mood-ring" not null default \'so so\'::public."Mood-ring"\n'
        "DO $$ BEGIN CREATE TYPE \"Mood-ring\" AS ENUM ('good', 'so so'); EXCEPTION WHEN duplicate_object THEN END"
        " $$;\n"
        "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS how_it_is \"Mood-ring\" NOT NULL DEFAULT 'so so';\n"
    )
    hotfix = parse_hotfix("20260301101500_mood", content.encode())
    assert list(describe_in_prisma(server, hotfix, None)) == [
        "In schema.prisma, in the model of public.drivers:",
        "  /// Added by the hotfix 20260301101500_mood.",
        '  howItIs Mood_ring @default(so_so) @map("how_it_is")',
        "And, unless it is there:",
        "  enum Mood_ring {",
        "    good",
        '    so_so @map("so so")',
        '    @@map("Mood-ring")',
        "  }",
    ]


# The command


def test_other_bytes_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / HOTFIX / "migration.sql"
    path.parent.mkdir()
    path.write_text("ALTER TABLE drivers ADD COLUMN active_since timestamptz;\n")
    hotfix = load_hotfix(PROJECT / "sql", HOTFIX)
    with pytest.raises(LocalError) as caught:
        write(FORMATS["prisma"](hotfix, Place(tmp_path)), hotfix)
    assert str(caught.value) == (
        f"{path} is there already, with other bytes. Nothing was written. What differs:  diff {path} sql/{HOTFIX}.sql\n"
        "If it was never deployed, remove it and run this again."
    )
    assert path.read_text() == "ALTER TABLE drivers ADD COLUMN active_since timestamptz;\n"


def test_a_hotfix_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = pg_hotfix("formalize", "20260101000000_none", "--to", str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("The function has no hotfix 20260101000000_none. ")
    assert "Traceback" not in result.stderr


def test_the_command_writes_the_same_bytes_once_and_the_line_for_schema_prisma(tmp_path: Path) -> None:
    first, second = (pg_hotfix("formalize", HOTFIX, "--to", str(tmp_path)) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    path = tmp_path / HOTFIX / "migration.sql"
    assert path.read_bytes() == (PROJECT / "sql" / f"{HOTFIX}.sql").read_bytes()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rest = [
        "In schema.prisma, in the model of public.drivers:",
        f"  /// Added by the hotfix {HOTFIX}.",
        '  activeSince DateTime? @map("active_since") @db.Timestamptz(6)',
    ]
    assert first.stdout.splitlines() == [f"{path} written, sha256 {digest}.", *rest]
    assert second.stdout.splitlines() == [f"{path} is there already, with the same bytes (sha256 {digest}).", *rest]
