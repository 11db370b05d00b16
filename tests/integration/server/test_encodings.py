"""A file's characters and the database's encoding: what the encoding lacks is found before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.change.test_revert import revert

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

pytestmark = pytest.mark.long_too

CHANGE = "20260301101500_change_something"
ADD = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS note text;"
NOTE = "public.drivers.note text"


def recreate(database: Database, encoding: str) -> None:
    """The same database, empty but for the table, in another encoding."""
    with database.server.connect() as admin:
        database.line.close()
        admin.run(f"DROP DATABASE {database.name} WITH (FORCE)")
        admin.run(
            f"CREATE DATABASE {database.name} OWNER {database.user} TEMPLATE template0 ENCODING '{encoding}'"
            " LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        # For the tests' own connections: pg8000 does not know every encoding.
        admin.run(f"ALTER DATABASE {database.name} SET client_encoding = 'UTF8'")
    database.run(f"ALTER SCHEMA public OWNER TO {database.user}")
    database.run_as_owner("CREATE TABLE public.drivers (id uuid PRIMARY KEY, name text NOT NULL)")


def lacks(shown: str, line: int, encoding: str, database: Database, file: str = f"{CHANGE}.sql") -> str:
    return (
        f"sql/{file} contains {shown} in line {line}, and the encoding {encoding} of the database {database.name} has"
        " no such character. Nothing was changed. Write that line without it; a comment may keep it."
    )


@pytest.mark.parametrize("action", ["plan", "apply", "check", "verify"])
def test_a_character_that_the_encoding_lacks_is_found_before_anything_runs(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix, action: str
) -> None:
    recreate(database, "LATIN1")
    outcome = invoke(action, write_hotfix(f"{ADD}\nCOMMENT ON COLUMN drivers.note IS 'größe in €';", NOTE))
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text == lacks('"€" (U+20AC)', 3, "LATIN1", database)


PLACES = {
    "a promised name": (ADD, 'public.drivers."preis €" text', "", 1),
    "a promised default": (ADD, "public.drivers.note text default '€'::text", "", 1),
    "a name": (f'{ADD}\nCREATE TABLE "preis €" ();', NOTE, "", 3),
    "a block": (f"{ADD}\nDO $$ BEGIN\n  PERFORM '€';\nEND $$;", NOTE, "", 4),
    "the way back": (ADD, NOTE, '-- revert: DROP INDEX IF EXISTS "€"; ALTER TABLE drivers DROP COLUMN note;\n', 2),
}


@pytest.mark.parametrize(("sql", "expectation", "way_back", "line"), PLACES.values(), ids=PLACES)
def test_a_missing_character_is_found_wherever_it_would_be_sent(
    invoke: Invoke,
    database: Database,
    write_hotfix: WriteHotfix,
    sql: str,
    expectation: str,
    way_back: str,
    line: int,
) -> None:
    recreate(database, "LATIN1")
    assert invoke("plan", write_hotfix(way_back + sql, expectation)).text == lacks(
        '"€" (U+20AC)', line, "LATIN1", database
    )


# Of Python's codecs some lack what PostgreSQL has (the NEC row of EUC_JP), and for some encodings there is none.
ENCODINGS = {
    "LATIN1": ("é", "€"),
    "LATIN9": ("€", "¤"),
    "WIN1252": ("€", "\x85"),
    "KOI8R": ("ж", "é"),
    "EUC_JP": ("①", "€"),
    "EUC_JIS_2004": ("か\u309a", "\U0001f600"),
    "EUC_KR": ("한", "€\u0301"),
    "EUC_TW": ("中", "é"),
}


@pytest.mark.parametrize(("encoding", "there", "lacking"), [(name, *signs) for name, signs in ENCODINGS.items()])
def test_the_server_itself_says_what_its_encoding_has(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix, encoding: str, there: str, lacking: str
) -> None:
    recreate(database, encoding)
    sql = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS \"{0}\" text DEFAULT '{0}';"
    expectation = "public.drivers.\"{0}\" text default '{0}'::text"
    hotfix_id = write_hotfix(sql.format(there), expectation.format(there))
    assert [invoke(action, hotfix_id).result for action in ("plan", "apply", "apply", "verify")] == [
        "would_apply",
        "applied",
        "already_applied",
        "verified",
    ]
    refused = invoke("plan", write_hotfix(sql.format(lacking), expectation.format(lacking)))
    sign = next(sign for sign in (lacking[-1], lacking[0]) if f"U+{ord(sign):04X}" in refused.text)
    shown = f'"{sign}" (U+{ord(sign):04X})' if sign.isprintable() else f"U+{ord(sign):04X}"
    assert refused.text == lacks(shown, 1, encoding, database)


def test_a_comment_may_hold_what_the_encoding_lacks_and_places_stay_right(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix
) -> None:
    recreate(database, "LATIN1")
    comments = (
        "-- preis in € 😀\n-- allow: rewrite wegen € \n-- revert: ALTER TABLE drivers DROP COLUMN note; -- kein €\n"
    )
    hotfix_id = write_hotfix(f"{comments}/* € */ {ADD} -- €", NOTE)
    applied = invoke("apply", hotfix_id)
    assert applied.result == "applied"
    assert "/* ? */ ALTER TABLE drivers" in applied.response["sql"]
    assert revert(invoke, hotfix_id).result == "reverted"
    wrong = invoke("apply", write_hotfix(f"{comments}/* €€€ */ ALTER TABLE drivers ADD COLUMN é txt;", NOTE))
    line = "LINE 5: /* ??? */ ALTER TABLE drivers ADD COLUMN é txt;\n"
    assert f"{line}{' ' * (line.index('txt'))}^\n" in wrong.text


def test_a_list_for_the_gate_is_looked_at_as_well(invoke: Invoke, database: Database, sql_dir: Path) -> None:
    recreate(database, "LATIN1")
    (sql_dir / "schema.expect").write_text('-- größe in €\n-- expect: column public.drivers."preis €" text\n')
    outcome = invoke("gate", None)
    assert outcome.error_name == "HotfixFileError"
    assert outcome.text == lacks('"€" (U+20AC)', 2, "LATIN1", database, "schema.expect")


def test_an_encoding_that_does_not_convert_to_utf8_is_refused_at_login(invoke: Invoke, database: Database) -> None:
    with database.server.connect() as admin:
        database.line.close()
        admin.run(f"DROP DATABASE {database.name} WITH (FORCE)")
        admin.run(
            f"CREATE DATABASE {database.name} OWNER {database.user} TEMPLATE template0 ENCODING 'MULE_INTERNAL'"
            " LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    outcome = invoke("check")
    assert outcome.error_name == "ConfigurationError"
    assert outcome.text == (
        f"The server of {database.name} at localhost:{database.server.port} refuses the settings that pg-hotfix"
        " starts a session with (0A000: conversion between UTF8 and MULE_INTERNAL is not supported). Nothing was"
        " changed. pg-hotfix supports PostgreSQL 14 to 18, with an encoding that converts to UTF8. Compare:  SELECT"
        " pg_catalog.version(), pg_catalog.current_setting('server_encoding');"
    )


# SQL_ASCII


def test_sql_ascii_takes_the_files_bytes_as_they_are(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix
) -> None:
    recreate(database, "SQL_ASCII")
    hotfix_id = write_hotfix(
        '-- revert: ALTER TABLE drivers DROP COLUMN "größe €";\n'
        "/* 😀 */ ALTER TABLE drivers ADD COLUMN IF NOT EXISTS \"größe €\" text DEFAULT '中';",
        "public.drivers.\"größe €\" text default '中'::text",
    )
    actions = ("plan", "apply", "apply", "verify", "check")
    assert [invoke(action, hotfix_id).result for action in actions] == [
        "would_apply",
        "applied",
        "already_applied",
        "verified",
        "ready",
    ]
    assert revert(invoke, hotfix_id).result == "reverted"


def test_sql_ascii_counts_bytes_and_the_caret_stands_where_it_should(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix
) -> None:
    recreate(database, "SQL_ASCII")
    outcome = invoke("apply", write_hotfix("/* 😀 größe */ ALTER TABLE drivers ADD COLUMN note txt;", NOTE))
    line = "LINE 2: /* 😀 größe */ ALTER TABLE drivers ADD COLUMN note txt;\n"
    assert f"{line}{' ' * (line.index('txt'))}^\n" in outcome.text


@pytest.mark.parametrize(
    ("encoding", "default", "reason"),
    [
        ("SQL_ASCII", "'\xe9'", '22021: invalid byte sequence for encoding "UTF8": 0xe9 0x27 0x3a'),
        (
            "WIN1252",
            "convert_from('\\x81'::bytea, 'WIN1252')",
            '22P05: character with byte sequence 0x81 in encoding "WIN1252" has no equivalent in encoding "UTF8"',
        ),
    ],
)
def test_a_catalog_that_cannot_be_read_is_not_the_files_fault(
    invoke: Invoke, database: Database, write_hotfix: WriteHotfix, encoding: str, default: str, reason: str
) -> None:
    recreate(database, encoding)
    in_bytes = default.replace("\xe9", "' || E'\\xe9' || '")
    database.run(
        f"DO $do$ BEGIN EXECUTE 'ALTER TABLE public.drivers ADD COLUMN note text DEFAULT '"
        f" || quote_literal({in_bytes}); END $do$"
    )
    outcome = invoke("plan", write_hotfix(ADD, NOTE))
    assert outcome.error_name == "SqlRefusedError"
    assert outcome.text == (
        f"The catalog of the database {database.name} holds a name or a default that cannot be read as UTF-8"
        f" ({reason}); the encoding of the database is {encoding}. Nothing was changed. Find it among the columns"
        " that the file expects, and set it again:  SET client_encoding = 'UTF8'; ALTER TABLE ... ALTER COLUMN ..."
        " SET DEFAULT ...;"
    )
