"""What the documents promise, done: their hotfixes on the real server, their answers compared with real ones."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pg_hotfix import errors
from pg_hotfix.change.blocker import name_blockers
from pg_hotfix.next_command import commands_after
from pg_hotfix.request import parse_request
from tests.conftest import HOTFIX
from tests.integration.history.test_prisma import CREATE
from tests.samples import FOUND_BLOCKER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]

README = Path("README.md")
WRITE = Path("docs/write-a-hotfix.md")
GATE = Path("docs/gate.md")
RESPONSE = Path("docs/response.json")


def blocks(word: str) -> list[str]:
    """The SQL blocks that follow a paragraph which begins with that word."""
    found = re.findall(r"^(Bad|Good):.*?```sql\n(.*?)```", WRITE.read_text(), re.MULTILINE | re.DOTALL)
    return [sql for mark, sql in found if mark == word]


def block_after(comment: str, page: Path) -> str:
    found = re.search(rf"<!-- {comment} -->\n```\w+\n(.*?)```", page.read_text(), re.DOTALL)
    assert found, comment
    return found[1]


def package(sql_dir: Path, sql: str) -> str:
    (sql_dir / "20260301101500_from_the_readme.sql").write_text(sql)
    return "20260301101500_from_the_readme"


def file_node(database: Database) -> int:
    """Changes when the table is rewritten."""
    node: int = database.run("SELECT relfilenode FROM pg_class WHERE oid = 'public.drivers'::regclass")[0][0]
    return node


def test_there_is_a_good_block_for_each_bad_one() -> None:
    assert (len(blocks("Bad")), len(blocks("Good"))) == (3, 3)


@pytest.mark.parametrize("sql", blocks("Good"))
def test_each_good_hotfix_is_applied_without_a_rewrite(
    invoke: Invoke, sql_dir: Path, database: Database, sql: str
) -> None:
    node = file_node(database)
    hotfix_id = package(sql_dir, sql)
    assert [invoke("apply", hotfix_id).result for _ in range(2)] == ["applied", "already_applied"]
    assert file_node(database) == node


def test_each_bad_hotfix_is_as_bad_as_it_says(invoke: Invoke, sql_dir: Path, database: Database) -> None:
    without_expectation, rewrite, with_commit = blocks("Bad")
    assert invoke("apply", package(sql_dir, without_expectation)).error_name == "HotfixFileError"
    assert invoke("apply", package(sql_dir, with_commit)).error_name == "HotfixFileError"
    node = file_node(database)
    assert invoke("apply", package(sql_dir, rewrite)).result == "applied"
    assert file_node(database) != node


@pytest.mark.parametrize("page", [README, WRITE], ids=str)
def test_the_first_hotfix_is_the_packaged_one(page: Path) -> None:
    found = re.search(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)
    assert found
    assert found[1] == Path(f"sql/{HOTFIX}.sql").read_text()


def test_the_response_has_the_shape_of_a_real_one(invoke: Invoke, database: Database) -> None:
    database.run_as_owner(CREATE.format(schema="public"))
    shown = json.loads(RESPONSE.read_text())
    real = invoke("apply", reason="INC-4711", requested_by="ana", record="prisma").response
    if "transaction_timeout" not in real["limits"]:
        del shown["limits"]["transaction_timeout"]  # A server before 17 does not know it.
    assert shape(shown) == shape(real)
    same = (
        "hotfix",
        "action",
        "result",
        "objects",
        "sql",
        "sql_sha256",
        "caller",
        "requested_by",
        "reason",
        "attempts",
        "prisma",
    )
    assert {key: shown[key] for key in same} == {key: real[key] for key in same}


def shape(value: Any) -> Any:
    """Keys and types, without the values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


def test_the_errors_shown_are_real_texts() -> None:
    mismatch = {
        "name": "public.drivers.active_since",
        "expected": "timestamp with time zone null",
        "actual": "text null default ''::text",
    }
    excerpt = "LINE 2: ALTER TABLE public.orders ADD COLUMN IF NOT EXISTS note txt\n" + " " * 64 + "^"
    rating, missing = "20260301101500_add_drivers_rating", mismatch | {"actual": "missing"}
    added = 'ALTER TABLE "public"."drivers" ADD COLUMN IF NOT EXISTS "active_since" timestamp with time zone null'
    shown = {
        ("lock busy", README): errors.lock_busy(
            HOTFIX,
            "public.drivers",
            "applied",
            name_blockers([FOUND_BLOCKER], 1),
            elsewhere=True,
            further=False,
            lock_wait_ms=30_000,
            longest_stall_ms=0,
        ),
        ("mismatch", WRITE): errors.mismatch(HOTFIX, [mismatch]),
        ("sql refused", WRITE): errors.sql_refused(
            "20260301101500_add_orders_note", "42704", 'type "txt" does not exist', excerpt
        ),
        ("column used", WRITE): errors.column_used(rating, "public.drivers.rating"),
        ("left behind", WRITE): errors.left_behind(
            rating,
            "public.drivers.rating",
            ["trigger noting on public.drivers, whose function public.note() names the column"],
            ["DROP TRIGGER IF EXISTS noting on public.drivers;", "DROP FUNCTION IF EXISTS public.note();"],
            others=False,
        ),
        ("schema differs", GATE): errors.schema_differs(
            "kaviar",
            "of 5 columns 1 missing, 0 different",
            ["\n".join([f"  {missing['name']}", *errors.compared(missing, "    ")])],
            0,
            [f"  ./pg-hotfix new add_drivers_active_since --sql {shlex.quote(added)}"],
            [missing],
            rest=False,
        ),
    }
    requests = {
        "lock busy": {"hotfix": HOTFIX, "action": "apply"},
        "mismatch": {"hotfix": HOTFIX, "action": "apply"},
        "sql refused": {"hotfix": HOTFIX, "action": "apply"},
        "column used": {"hotfix": rating, "action": "revert"},
        "left behind": {"hotfix": rating, "action": "revert"},
        "schema differs": {"action": "gate"},
    }
    for (mark, page), error in shown.items():
        error.add_command(commands_after(parse_request(requests[mark]), "pg-hotfix-prod"))
        assert block_after(mark, page) == f"{type(error).__name__}: {error}\n"
