"""What `new` refuses without a database, and how it words what it writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.author.added import Added, idempotent_form
from cli.author.new import Draft, read_draft, write_content
from laptop.errors import LocalError
from pg_hotfix.file.hotfix_file import NamedTable, Revert, parse_hotfix

DROP = 'ALTER TABLE "public"."drivers" DROP COLUMN IF EXISTS "rating";'
SQL = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating smallint"
EXAMPLE = "./pg-hotfix new add_drivers_rating --sql 'ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating smallint'"
DRAFT = Draft("a", SQL, "", "", None)


@pytest.mark.parametrize(
    ("typed", "refusal"),
    [
        ({"sql": " "}, f"--sql is empty:  {EXAMPLE}"),
        (
            {"name": "Add Driver's Rating"},
            (
                '"Add Driver\'s Rating" cannot name a hotfix: a name has lower-case letters, digits and _.'
                "  ./pg-hotfix new add_driver_s_rating ..."
            ),
        ),
        (
            {"name": "20260301101500_add_x"},
            "'20260301101500_add_x' begins with a time, which `new` writes itself:  ./pg-hotfix new add_x ...",
        ),
        (
            {"name": "../a"},
            "'../a' cannot name a hotfix: a name has lower-case letters, digits and _.  ./pg-hotfix new a ...",
        ),
        (
            {"name": "add_drivers_active_since"},
            (
                "sql/20260212092000_add_drivers_active_since.sql has this name already: edit that file, or choose"
                " another name."
            ),
        ),
        (
            {"reason": "one\ntwo"},
            "--reason and --allow are one line each: put more into the file itself, once it is written.",
        ),
        (
            {"sql": f"BEGIN; {SQL}; COMMIT"},
            (
                "The SQL contains transaction control (BEGIN). Remove it: the whole file runs in one transaction,"
                " which is committed only after the proof."
            ),
        ),
        (
            {"sql": f"\\c kaviar\n{SQL}"},
            "The SQL contains a psql meta-command (\\). Write plain SQL: the function is not psql.",
        ),
        (
            {"sql": "-- nothing"},
            "The SQL contains no statement. Write the ALTER TABLE below its expect lines.",
        ),
        (
            {"sql": f"{SQL} DEFAULT 'x"},
            "The SQL contains a string, name or comment that does not end (line 1). Close it.",
        ),
    ],
)
def test_a_draft_that_needs_no_run_to_be_refused(typed: dict[str, Any], refusal: str) -> None:
    with pytest.raises(LocalError) as caught:
        read_draft(replace(DRAFT, **typed), Path("sql").resolve())
    assert str(caught.value) == refusal


@pytest.mark.parametrize(
    ("sql", "ended"),
    [
        (SQL, f"{SQL};"),
        (f"{SQL};", f"{SQL};"),
        (f"{SQL}; -- done", f"{SQL}; -- done"),
        (f"{SQL} -- done;", f"{SQL} -- done;\n;"),
    ],
)
def test_the_last_statement_ends(sql: str, ended: str) -> None:
    assert read_draft(replace(DRAFT, sql=sql), Path("sql")).sql == ended


def test_the_file_has_its_reason_its_promises_and_what_it_allows_at_its_head() -> None:
    draft = Draft("a", f"{SQL};", "The page of drivers answers 500.", "rewrite 300 rows", None)
    content = write_content(
        draft, Added(("-- expect: column public.drivers.rating smallint null",), (f"-- revert: {DROP}",), ())
    )
    assert content.decode() == (
        "-- The page of drivers answers 500.\n"
        "-- expect: column public.drivers.rating smallint null\n"
        f"-- revert: {DROP}\n"
        "-- allow: rewrite 300 rows\n"
        f"{SQL};\n"
    )
    hotfix = parse_hotfix("20260301101500_a", content)
    assert hotfix.allowed == (("rewrite", "300 rows"),)
    assert hotfix.revert == Revert(DROP, 1, (NamedTable("public", "drivers", altered=True),))


@pytest.mark.parametrize(
    ("sql", "form"),
    [
        ("ALTER TABLE t ADD a int", "ALTER TABLE t ADD COLUMN IF NOT EXISTS a int"),
        ('alter table t add column "b c" int', 'alter table t add column IF NOT EXISTS "b c" int'),
        (
            "ALTER TABLE t ADD COLUMN a int, ADD COLUMN IF NOT EXISTS b int, ADD c text DEFAULT 'ADD COLUMN d int'",
            (
                "ALTER TABLE t ADD COLUMN IF NOT EXISTS a int, ADD COLUMN IF NOT EXISTS b int,"
                " ADD COLUMN IF NOT EXISTS c text DEFAULT 'ADD COLUMN d int'"
            ),
        ),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)", "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)"),
    ],
)
def test_it_says_how_to_write_a_column_that_may_be_there(sql: str, form: str) -> None:
    assert idempotent_form(sql) == form
