"""Whether a file's SQL only adds columns, and whether an expression can be parsed without running anybody's code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pg_hotfix.file.additions import count_additions
from pg_hotfix.promises.column.definition import Facts
from pg_hotfix.promises.column.expression import is_safe_to_parse

ADD = "ALTER TABLE public.t ADD COLUMN IF NOT EXISTS a int"


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        (ADD, 1),
        (f"-- a comment\n{ADD};\n{ADD};", 2),
        ("ALTER TABLE t ADD a int, ADD b numeric(10, 2), ADD CONSTRAINT c CHECK (a > 0)", 2),
        ("alter table if exists only t * add column a int", 1),
        ('ALTER TABLE "T" ADD COLUMN a int REFERENCES u (id) ON DELETE SET NULL', 1),
        ("ALTER TABLE t ADD COLUMN a serial", 0),
        ("ALTER TABLE t ADD COLUMN a int, ALTER COLUMN a SET NOT NULL", 0),
        ("ALTER TABLE t DROP COLUMN b, ADD COLUMN a int", 0),
        ("ALTER TABLE t RENAME b TO a", 0),
        (f"{ADD}; UPDATE public.t SET a = 1", 0),
        (f"CREATE TYPE mood AS ENUM ('ok'); {ADD}", 0),
        (f"DO $$ BEGIN {ADD}; END $$", 0),
        ("ALTER TYPE mood ADD VALUE 'bad'", 0),
        (f"SELECT 1; {ADD}", 0),
    ],
)
def test_the_columns_are_counted_of_a_file_that_only_adds(sql: str, count: int) -> None:
    assert count_additions(sql) == count


INTEGER = Facts(
    type_in_sql="pg_catalog.int4",
    element=None,
    type_shown="integer",
    type_kind="b",
    usable=True,
    is_builtin=True,
    is_collatable=False,
    collation_known=True,
    holds_row_of=None,
    stored_in=None,
    has_children=False,
    all_lack_it=True,
    row="NULL::pg_catalog.oid AS tableoid",
)
MOOD = replace(INTEGER, type_in_sql="public.mood", type_shown="public.mood", type_kind="e", is_builtin=False)
KEYS = replace(INTEGER, type_in_sql="public._key", type_shown="public.key[]", type_kind="b", is_builtin=False)


@pytest.mark.parametrize(
    ("expression", "about", "safe"),
    [
        ("'1'", INTEGER, True),
        ("'{1}'", KEYS, False),
        ("'{1}'::public.key[]", KEYS, False),
        ("'ok'::public.mood", MOOD, True),
        ("'ok'::public.mood", INTEGER, False),
        ("'1'::character varying(3)", INTEGER, True),
        ("'a'::text || 'b'::text", INTEGER, True),
        ("public.f('x')", INTEGER, False),
        ("public.f('x'::text)", INTEGER, True),
        ("ARRAY['1']::public.key[]", INTEGER, False),
        ("('{1}')::public.key[]", INTEGER, False),
        ("CAST('{1}' AS public.key[])", INTEGER, False),
        ("$$ {1} $$::public.key[]", INTEGER, False),
        ("public.key '1'", INTEGER, False),
        ("(SELECT 1)", INTEGER, False),
        ("(TABLE public.t)", INTEGER, False),
        ("1); SELECT (1", INTEGER, False),
        ("1) + (1", INTEGER, False),
        ("(1", INTEGER, False),
        ("now() + '01:00:00'::interval", INTEGER, True),
        ("(1 + 2) * 3", INTEGER, True),
    ],
)
def test_an_expression_is_parsed_only_if_no_constant_calls_a_users_code(
    expression: str, about: Facts, safe: bool
) -> None:
    assert is_safe_to_parse(expression, about) is safe
