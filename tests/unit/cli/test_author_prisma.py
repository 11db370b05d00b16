"""Names and values as schema.prisma has them. The types come from the real catalog in tests/e2e."""

from __future__ import annotations

import pytest

from cli.author.prisma import FieldType, field_name, identifier, native_size, without_casts, write_line, write_value
from pg_hotfix.file.lexer import tokens
from pg_hotfix.promises.column.line import parse_expectation

STRING, INT, DECIMAL = (FieldType(name, "", is_list=False) for name in ("String", "Int", "Decimal"))


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("active_since", "activeSince"),
        ("activeSince", "activeSince"),
        ("rating", "rating"),
        ("ActiveSince", "activeSince"),
        ("ACTIVE_SINCE", "activeSince"),
        ("URL", "url"),
        ("httpURL", "httpURL"),
        ("Active Since", "activeSince"),
        ("snake_case_2", "snakeCase2"),
        ("_private", "private"),
        ("1st", "st"),
        ("a-b", "aB"),
        ("type_", "type"),
        ("é", "column"),
    ],
)
def test_a_field_has_a_camel_case_name(column: str, name: str) -> None:
    assert field_name(column) == name


@pytest.mark.parametrize(
    ("line", "field_type", "default", "written"),
    [
        (
            "active_since timestamptz null",
            FieldType("DateTime", "Timestamptz(6)", is_list=False),
            "",
            'activeSince DateTime? @map("active_since") @db.Timestamptz(6)',
        ),
        ("rating int not null default 0", INT, "0", "rating Int @default(0)"),
        ("tags text[]", FieldType("String", "", is_list=True), "", "tags String[]"),
        (
            '"a ""b""" text',
            STRING,
            "",
            'aB String? @map("a \\"b\\"")',
        ),
    ],
)
def test_map_stands_only_where_the_names_differ(line: str, field_type: FieldType, default: str, written: str) -> None:
    expectation = parse_expectation(f"column public.drivers.{line}")
    assert write_line(expectation, field_type, default) == written


@pytest.mark.parametrize(
    ("value", "field_type", "written"),
    [
        ("7", INT, "7"),
        ("-7", INT, "-7"),
        ("1.50", DECIMAL, "1.50"),
        ("NaN", DECIMAL, None),
        ("t", FieldType("Boolean", "", is_list=False), "true"),
        ('it\'s "x" \\ y\n', STRING, '"it\'s \\"x\\" \\\\ y\\n"'),
        ("0" * 8, FieldType("String", "Uuid", is_list=False), None),
        ("2020-01-01", FieldType("DateTime", "Date", is_list=False), None),
        ("\\xdeadbeef", FieldType("Bytes", "", is_list=False), '"3q2+7w=="'),
        ("sad day", FieldType("mood", "", False, ("happy", "sad day")), "sad_day"),
        ("(1,2)", FieldType('Unsupported("point")', "", is_list=False), None),
    ],
)
def test_a_value_is_written_where_prisma_has_words_for_it(
    value: str, field_type: FieldType, written: str | None
) -> None:
    assert write_value(value, field_type) == written


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        ("'a'::text", "'a'"),
        ("'x'::character varying(20)", "'x'"),
        ("'{}'::timestamp(3) with time zone[]", "'{}'"),
        ("'a'::public.\"Mood\"", "'a'"),
        ("ARRAY['a'::text, 'b'::text]", "ARRAY['a','b']"),
        ("nextval('s'::regclass)", "nextval('s')"),
        ("(now() + '1 day'::interval)", "(now()+'1 day')"),
    ],
)
def test_casts_are_left_out(printed: str, kept: str) -> None:
    assert "".join(token.text for token in without_casts(list(tokens(printed)))) == kept


def test_an_identifier_has_only_what_prisma_takes() -> None:
    assert [identifier(name) for name in ("mood", "sad day", "1st", "a-b")] == ["mood", "sad_day", "st", "a_b"]


def test_a_size_comes_from_the_modifier() -> None:
    assert native_size("varchar", 24, is_list=False) == "(20)"
    assert native_size("numeric", (10 << 16 | 2) + 4, is_list=False) == "(10, 2)"
    assert native_size("timestamptz", -1, is_list=False) == "(6)"
    assert native_size("timestamptz", -1, is_list=True) == ""
    assert native_size("uuid", -1, is_list=False) == ""
