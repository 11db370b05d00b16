"""A file is either a hotfix or refused with a sentence that says what to correct; no database is needed to tell."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from errors import HotfixFileError, UnknownHotfixError
from sqlfile import (
    NAME_LIMIT_BYTES,
    Expectation,
    Hotfix,
    Unreadable,
    list_hotfixes,
    load_hotfix,
    parse_expectation,
    parse_hotfix,
    written,
)

ID = "20260301101500_add_drivers_note"
EXPECT = "-- expect: column public.drivers.note text\n"
ADD = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS note text;\n"

REST = "Leave it out: the whole file runs in one transaction, which is committed only after the proof."
LIMITS = "Leave it out: LOCK_WAIT_SECONDS and STATEMENT_TIMEOUT_MS limit every run."
DATA = "A hotfix changes the schema: move data by other means."
ORDER = "The order is: collate, null or not null, default or generated."
TYPE = "Write it as in CREATE TABLE, such as timestamptz, numeric(10,2) or text[]."
QUOTE = 'Quote names with capitals or signs, such as public."Driver"."activeSince".'
THREE = "Name all three, such as public.drivers.active_since."
NO_EXPECTATION = "has a line that looks like an expectation but is none"
PLAIN = "Save it as plain UTF-8."

modest = settings(max_examples=100, deadline=None)


def refuse(content: str | bytes) -> str:
    """What the operator reads about a file with this content, after the file's name and before the advice's end."""
    with pytest.raises(Unreadable) as caught:
        parse_hotfix(ID, content.encode() if isinstance(content, str) else content)
    return f"{caught.value.what}. {caught.value.advice}"


def accept(sql: str, expect: str = EXPECT) -> Hotfix:
    return parse_hotfix(ID, f"{expect}{sql}".encode())


# Whole files


def test_the_packaged_hotfix_is_read() -> None:
    sql_dir = Path(__file__).parents[2] / "sql"
    hotfix = load_hotfix(sql_dir, "20260212092000_add_drivers_active_since")
    content = (sql_dir / "20260212092000_add_drivers_active_since.sql").read_bytes()
    assert hotfix == Hotfix(
        id="20260212092000_add_drivers_active_since",
        sql=content.decode(),
        sha256=hashlib.sha256(content).hexdigest(),
        expectations=(Expectation("public", "drivers", "active_since", "timestamptz"),),
    )


def test_a_bad_file_is_refused_by_name_before_anything_is_contacted(tmp_path: Path) -> None:
    (tmp_path / f"{ID}.sql").write_text(f"{EXPECT}BEGIN; {ADD} COMMIT;")
    with pytest.raises(HotfixFileError) as caught:
        load_hotfix(tmp_path, ID)
    assert str(caught.value) == (
        "sql/20260301101500_add_drivers_note.sql holds transaction control (BEGIN)."
        " Nothing was contacted and nothing was changed."
        " Leave it out: the whole file runs in one transaction, which is committed only after the proof."
    )


def test_an_unknown_id_is_answered_with_the_packaged_ones(tmp_path: Path) -> None:
    for name in ("20260302000000_b.sql", "20260301000000_a.sql", "readme.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(UnknownHotfixError) as caught:
        load_hotfix(tmp_path, ID)
    assert str(caught.value) == (
        "There is no packaged hotfix 20260301101500_add_drivers_note. Nothing was contacted and nothing was changed."
        " The packaged ones are:\n"
        "  20260301000000_a\n"
        "  20260302000000_b\n"
        "Send one of these, or add sql/20260301101500_add_drivers_note.sql, have it reviewed, and deploy."
    )


def test_hotfixes_are_listed_in_the_order_of_their_time(tmp_path: Path) -> None:
    for name in ("20260302000000_b.sql", "20260301000000_a.sql", "notes.md"):
        (tmp_path / name).write_text("")
    assert list_hotfixes(tmp_path) == ["20260301000000_a", "20260302000000_b"]


BAD_FILES = {
    "empty": ("", "holds no statement. Write the ALTER TABLE below its expect lines."),
    "only directives": (EXPECT, "holds no statement. Write the ALTER TABLE below its expect lines."),
    "only semicolons": (f"{EXPECT};;\n;", "holds no statement. Write the ALTER TABLE below its expect lines."),
    "no expectation": (
        ADD,
        "expects no column. Add a line such as  -- expect: column public.drivers.active_since timestamptz null",
    ),
    "expectation in a block comment": (
        f"/* expect: column public.drivers.note text */ {ADD}",
        "expects no column. Add a line such as  -- expect: column public.drivers.active_since timestamptz null",
    ),
    "expectation in a string": (
        f"SELECT '\n{EXPECT}';",
        "expects no column. Add a line such as  -- expect: column public.drivers.active_since timestamptz null",
    ),
    "same column twice": (
        f'{EXPECT}-- expect: column PUBLIC."drivers".Note int\n{ADD}',
        "expects the same column twice. Keep one line for each column.",
    ),
    "expectation after a statement": (
        f"{ADD}{EXPECT}",
        "has an expect line after its first statement. Move it to the head of the file.",
    ),
    "expectation without a colon": (
        f"{EXPECT}-- expect column public.drivers.note text\n{ADD}",
        f"{NO_EXPECTATION}: -- expect column public.drivers.note text. Write  -- expect: column ...",
    ),
    "misspelt expectation": (
        f"{EXPECT}--expects: column public.drivers.note text\n{ADD}",
        f"{NO_EXPECTATION}: --expects: column public.drivers.note text. Write  -- expect: column ...",
    ),
    "BEGIN": (f"{EXPECT}BEGIN;\n{ADD}COMMIT;", f"holds transaction control (BEGIN). {REST}"),
    "mixed case": (f"{EXPECT}bEgIn;\n{ADD}", f"holds transaction control (BEGIN). {REST}"),
    "second statement": (f"{EXPECT}{ADD}commit", f"holds transaction control (COMMIT). {REST}"),
    "after a line comment": (f"{EXPECT}-- now\nCOMMIT;", f"holds transaction control (COMMIT). {REST}"),
    "after a block comment": (f"{EXPECT}/* a */COMMIT/* b */;", f"holds transaction control (COMMIT). {REST}"),
    "after a nested comment": (f"{EXPECT}/* /* a */ */ROLLBACK;", f"holds transaction control (ROLLBACK). {REST}"),
    "after an empty statement": (f"{EXPECT};; END;", f"holds transaction control (END). {REST}"),
    "after a string with a quote": (f"{EXPECT}SELECT 'it''s'; ABORT", f"holds transaction control (ABORT). {REST}"),
    "after an escape string": (f"{EXPECT}SELECT E'\\''; ABORT", f"holds transaction control (ABORT). {REST}"),
    "after a backslash in a plain string": (
        f"{EXPECT}SELECT '\\'; COMMIT; --'",
        f"holds transaction control (COMMIT). {REST}",
    ),
    "after a dollar-quoted string": (
        f"{EXPECT}DO $a$ $b$ $a$; COMMIT; --$a$",
        f"holds transaction control (COMMIT). {REST}",
    ),
    "after a function in standard SQL": (
        f"{EXPECT}CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; COMMIT;",
        f"holds transaction control (COMMIT). {REST}",
    ),
    "words on lines of their own": (
        f"{EXPECT}START\n/* a */ transaction isolation level serializable;",
        f"holds transaction control (START TRANSACTION). {REST}",
    ),
    "two-phase commit": (
        f"{EXPECT}PREPARE TRANSACTION 'a';",
        f"holds transaction control (PREPARE TRANSACTION). {REST}",
    ),
    "SAVEPOINT": (f"{EXPECT}savepoint a;", f"holds transaction control (SAVEPOINT). {REST}"),
    "RELEASE": (f"{EXPECT}release a;", f"holds transaction control (RELEASE). {REST}"),
    "lock_timeout": (f"{EXPECT}SET lock_timeout = 0;", f"changes the session's limits (SET LOCK_TIMEOUT). {LIMITS}"),
    "local statement_timeout": (
        f"{EXPECT}set local statement_timeout to '1h';",
        f"changes the session's limits (SET LOCAL STATEMENT_TIMEOUT). {LIMITS}",
    ),
    "RESET ALL": (f"{EXPECT}RESET ALL;", f"changes the session's limits (RESET ALL). {LIMITS}"),
    "DISCARD": (f"{EXPECT}DISCARD ALL;", f"changes the session's limits (DISCARD). {LIMITS}"),
    "COPY": (f"{EXPECT}{ADD}copy drivers FROM STDIN;", f"moves data (COPY). {DATA}"),
    "psql include": (
        f"{EXPECT}\\i other.sql\n",
        "holds a psql meta-command (\\). Write plain SQL: the function is not psql.",
    ),
    "psql after a statement": (
        f"{EXPECT}{ADD}\\gexec",
        "holds a psql meta-command (\\). Write plain SQL: the function is not psql.",
    ),
    "open string": (
        f"{EXPECT}SELECT 'a;\nCOMMIT;",
        "holds a string, name or comment that does not end (line 2). Close it.",
    ),
    "open string after a doubled quote": (
        f"{EXPECT}SELECT 'a'';",
        "holds a string, name or comment that does not end (line 2). Close it.",
    ),
    "open name": (f'{EXPECT}\nSELECT "a;', "holds a string, name or comment that does not end (line 3). Close it."),
    "open comment": (f"{EXPECT}/* a", "holds a string, name or comment that does not end (line 2). Close it."),
    "open nested comment": (
        f"{EXPECT}{ADD}/* /* a */",
        "holds a string, name or comment that does not end (line 3). Close it.",
    ),
    "open dollar quote": (
        f"{EXPECT}DO $a$ BEGIN END $b$;",
        "holds a string, name or comment that does not end (line 2). Close it.",
    ),
    "Latin-1": (f"{EXPECT}-- größer\n{ADD}".encode("latin-1"), "is not UTF-8. Save it as UTF-8."),
    "byte order mark": (
        f"\ufeff{EXPECT}{ADD}",
        f"holds a zero byte or begins with a byte order mark. {PLAIN}",
    ),
    "zero byte": (f"{EXPECT}{ADD}\0", f"holds a zero byte or begins with a byte order mark. {PLAIN}"),
}


@pytest.mark.parametrize(("content", "text"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_with_what_to_correct(content: str | bytes, text: str) -> None:
    assert refuse(content) == text


GOOD_FILES = {
    "in a string": "COMMENT ON TABLE drivers IS 'BEGIN; COMMIT;';",
    "in an escape string": "COMMENT ON TABLE drivers IS E'\\'; COMMIT;';",
    "in a line comment": "-- COMMIT;\nSELECT 1;",
    "in a nested comment": "/* a /* BEGIN; */ ; COMMIT; */ SELECT 1;",
    "in a dollar-quoted string": "COMMENT ON TABLE drivers IS $$; COMMIT; $$;",
    "in a tagged string that holds others": "COMMENT ON TABLE drivers IS $a$ '$$ $b$ ; COMMIT; $a$;",
    "in a DO body": "DO $$ BEGIN NULL; EXCEPTION WHEN others THEN NULL; END $$;",
    "in a body of standard SQL": (
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;"
    ),
    "in a body with CASE": (
        "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t SELECT CASE WHEN a THEN 1 END; DELETE FROM t; END; SELECT 1"
    ),
    "as a column": "ALTER TABLE drivers ADD COLUMN begin int, ADD COLUMN commit int;",
    "as a quoted column": 'ALTER TABLE drivers ADD COLUMN "begin" int, ADD COLUMN "; COMMIT;" int;',
    "as the beginning of a longer word": "SELECT 1; COMMITTED; end_of_time;",
    "in a rule's block": "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); DELETE FROM b);",
    "as a word within": "PREPARE p AS SELECT 1; EXECUTE p;",
    "backslash in a string": "COMMENT ON TABLE drivers IS '\\i other.sql';",
    "other settings": "SET LOCAL work_mem = '64MB'; RESET work_mem;",
    "copy as a column": "ALTER TABLE drivers ADD COLUMN copy int;",
    "dollars within a name": "SELECT a$b$ FROM t; SELECT $1;",
    "last line is a comment": "SELECT 1 -- the end",
}


@pytest.mark.parametrize("sql", GOOD_FILES.values(), ids=GOOD_FILES)
def test_what_only_looks_like_transaction_control_is_accepted(sql: str) -> None:
    assert accept(sql).sql == f"{EXPECT}{sql}"


def test_line_ends_of_windows_change_nothing_but_the_checksum() -> None:
    unix = parse_hotfix(ID, (EXPECT + ADD).encode())
    windows = parse_hotfix(ID, (EXPECT + ADD).replace("\n", "\r\n").encode())
    assert windows.expectations == unix.expectations
    assert windows.sql == unix.sql.replace("\n", "\r\n")
    assert windows.sha256 != unix.sha256


def test_the_checksum_is_of_the_bytes_as_prisma_takes_it() -> None:
    content = (EXPECT + ADD).encode()
    assert parse_hotfix(ID, content).sha256 == hashlib.sha256(content).hexdigest()


def test_expectations_keep_their_order_and_each_table_is_named_once() -> None:
    lines = ["public.b.x int", "public.a.y int", "public.b.z int", 'public."B".x int']
    hotfix = accept("SELECT 1;", "".join(f"-- expect: column {line}\n" for line in lines))
    assert [expectation.name for expectation in hotfix.expectations] == [
        "public.b.x",
        "public.a.y",
        "public.b.z",
        'public."B".x',
    ]
    assert hotfix.tables == 'public.b and public.a and public."B"'


def test_other_comments_stand_between_expectations() -> None:
    head = "-- GET /drivers answers 500\n/* the column\n is missing */\n--\n"
    assert accept(ADD, f"{head}{EXPECT}-- as reviewed\n--EXPECT:column a.b.c int\n").tables == "public.drivers and a.b"


SQL_PIECES = st.sampled_from(
    ["'", "''", '"', "$$", "$a$", "E'", "/*", "*/", "--", "-- expect:", EXPECT, "\n", "\r", " ", ";", "\\", ".", "(",
     ")", "[", "]", "BEGIN", "COMMIT", "ATOMIC", "END", "CASE", "CREATE", "FUNCTION", "a.b.c", "int", "é", "1"]
)  # fmt: skip


@modest
@given(
    st.one_of(st.binary(max_size=200), st.lists(SQL_PIECES, max_size=30).map(lambda pieces: "".join(pieces).encode()))
)
def test_any_bytes_are_a_hotfix_or_refused(content: bytes) -> None:
    try:
        hotfix = parse_hotfix(ID, content)
    except Unreadable:
        return
    assert hotfix.sql.encode() == content
    assert hotfix.expectations


@modest
@given(st.text(alphabet=st.characters(exclude_characters="'\0", codec="utf-8"), max_size=50))
def test_nothing_in_a_string_is_a_statement(text: str) -> None:
    assert accept(f"COMMENT ON TABLE drivers IS '; COMMIT; {text}; COMMIT;';").expectations


# Expect lines

EXPECTATIONS = {
    "column public.drivers.active_since timestamptz null": Expectation(
        "public", "drivers", "active_since", "timestamptz"
    ),
    "column public.drivers.active_since timestamptz": Expectation("public", "drivers", "active_since", "timestamptz"),
    "COLUMN Public.Drivers.Active_Since TIMESTAMPTZ NOT NULL": Expectation(
        "public", "drivers", "active_since", "TIMESTAMPTZ", not_null=True
    ),
    'column public . "Driver" . "activeSince" public."Mood"[] not  null': Expectation(
        "public", "Driver", "activeSince", 'public."Mood"[]', not_null=True
    ),
    'column a."say ""hi""".c text collate "de-x-icu" null default \'a  b\'::text': Expectation(
        "a", 'say "hi"', "c", "text", collation='"de-x-icu"', default="'a  b'::text"
    ),
    "column a.b.c text collate pg_catalog.C not null": Expectation(
        "a", "b", "c", "text", collation="pg_catalog.c", not_null=True
    ),
    "column a.b.c int default 'a--b /* '": Expectation("a", "b", "c", "int", default="'a--b /* '"),
    "column a.b.c int not null default nextval('b_c_seq'::regclass)": Expectation(
        "a", "b", "c", "int", not_null=True, default="nextval('b_c_seq'::regclass)"
    ),
    "column a.b.c int not null generated always as identity": Expectation(
        "a", "b", "c", "int", not_null=True, generated="generated always as identity"
    ),
    "column a.b.c int GENERATED  ALWAYS AS (lower(d)) stored": Expectation(
        "a", "b", "c", "int", generated="generated always as (lower(d)) stored"
    ),
    "column a.column.null int": Expectation("a", "column", "null", "int"),
}


@pytest.mark.parametrize(("line", "expectation"), EXPECTATIONS.items())
def test_an_expect_line_is_read_as_sql_would(line: str, expectation: Expectation) -> None:
    assert parse_expectation(line) == expectation


TYPES = [
    "timestamptz",
    "timestamp with time zone",
    "timestamp(3) without time zone",
    "timestamptz(3)",
    "time(3) with time zone",
    "interval",
    "interval day to second(3)",
    "numeric(10,2)",
    "numeric(10,-2)",
    "varchar(255)",
    "character varying(10)",
    "national character varying(10)",
    "bit varying(5)",
    '"char"',
    "double precision",
    "float(24)",
    "text[]",
    "int[3][]",
    "int array[3]",
    "numeric(10,2)[]",
    "public.mood",
    'public."Mood"',
    'pg_catalog."char"[]',
    "geometry(Point,4326)",
]


@pytest.mark.parametrize("written_type", TYPES)
def test_any_spelling_of_a_type_survives(written_type: str) -> None:
    read = parse_expectation(f"column a.b.c {written_type} not null default 1")
    assert read == Expectation("a", "b", "c", written_type, not_null=True, default="1")


@pytest.mark.parametrize(
    ("spaced", "tight"),
    [
        ("numeric ( 10 , 2 )", "numeric(10,2)"),
        ("timestamp (3)  with time   zone", "timestamp(3) with time zone"),
        ("text [ ]", "text[]"),
        ('public . "Mood" []', 'public."Mood"[]'),
    ],
)
def test_spaces_in_a_type_do_not_matter(spaced: str, tight: str) -> None:
    assert parse_expectation(f"column a.b.c {spaced}").type == tight


BAD_EXPECTATIONS = {
    "": "only columns can be expected. Write  -- expect: column <schema>.<table>.<column> <type> ...",
    "table public.drivers": (
        "only columns can be expected. Write  -- expect: column <schema>.<table>.<column> <type> ..."
    ),
    "column": f"a name is expected, not ''. {QUOTE}",
    "column drivers.note text": f"the column is not named as schema.table.column. {THREE}",
    "column db.public.drivers.note text": f"the column is not named as schema.table.column. {THREE}",
    "column public.drivers. text": f"the type is missing or incomplete. {TYPE}",
    "column public..note text": f"a name is expected, not '.'. {QUOTE}",
    "column public.$1.note text": f"a name is expected, not '$'. {QUOTE}",
    "column public.'drivers'.note text": f"a name is expected, not \"'drivers'\". {QUOTE}",
    'column public.U&"drivers".note text': f"a name is expected, not 'U&\"drivers\"'. {QUOTE}",
    'column public."".note text': "a name is empty or longer than 63 bytes. Use the name as PostgreSQL stores it.",
    f"column public.{'a' * 64}.note text": (
        "a name is empty or longer than 63 bytes. Use the name as PostgreSQL stores it."
    ),
    f'column public."{"é" * 32}".note text': (
        "a name is empty or longer than 63 bytes. Use the name as PostgreSQL stores it."
    ),
    "column public.drivers.note": f"the type is missing or incomplete. {TYPE}",
    "column public.drivers.note not null": f"the type is missing or incomplete. {TYPE}",
    "column public.drivers.note varchar(": f"the type is missing or incomplete. {TYPE}",
    "column public.drivers.note text[": f"the type is missing or incomplete. {TYPE}",
    "column public.drivers.note (text)": f"the type is missing or incomplete. {TYPE}",
    "column public.drivers.note bigserial": (
        "bigserial is no type of its own. Write what \\d shows, such as  integer not null default nextval(...)"
    ),
    "column public.drivers.note text)": f"what follows the type is not understood from ')' on. {ORDER}",
    "column public.drivers.note text; DROP TABLE drivers": (
        f"what follows the type is not understood from '; DROP TABLE drivers' on. {ORDER}"
    ),
    "column public.drivers.note text::int": f"what follows the type is not understood from '::int' on. {ORDER}",
    "column public.drivers.note text, 1": f"what follows the type is not understood from ', 1' on. {ORDER}",
    "column public.drivers.note drivers.note%type": (
        f"what follows the type is not understood from '%type' on. {ORDER}"
    ),
    "column public.drivers.note text null collate x": (
        f"what follows the type is not understood from 'collate x' on. {ORDER}"
    ),
    "column public.drivers.note text not": "null is missing after not. Write  not null",
    "column public.drivers.note text not nul": "null is missing after not. Write  not null",
    "column public.drivers.note text collate": f"a name is expected, not ''. {QUOTE}",
    "column public.drivers.note text default": (
        "the expression is missing after default. Write the expression as \\d shows it."
    ),
    "column public.drivers.note text -- as reviewed": ("it holds a comment. Put the comment on a line of its own."),
    "column public.drivers.note text /* a */": "it holds a comment. Put the comment on a line of its own.",
}


@pytest.mark.parametrize(("line", "text"), BAD_EXPECTATIONS.items())
def test_an_expect_line_that_cannot_be_read_is_explained(line: str, text: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse_expectation(line)
    assert f"{caught.value.what}. {caught.value.advice}" == text


def test_an_expect_line_that_cannot_be_read_is_quoted_whole() -> None:
    assert refuse(f"--  expect: column drivers.note text  \n{ADD}") == (
        "has an expect line that can't be read (the column is not named as schema.table.column):"
        " --  expect: column drivers.note text. Name all three, such as public.drivers.active_since."
    )


stored_names = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=40
).filter(lambda name: len(name.encode()) <= NAME_LIMIT_BYTES)
plain_names = st.from_regex(r"[a-z_][a-z0-9_$]{0,30}", fullmatch=True)


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def randomly_cased(name: str) -> st.SearchStrategy[str]:
    return st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda ups: "".join(sign.upper() if up else sign for sign, up in zip(name, ups, strict=True))
    )


spellings = st.one_of(
    stored_names.map(lambda name: (name, quote(name))),
    stored_names.map(lambda name: (name, written(name))),
    plain_names.flatmap(lambda name: randomly_cased(name).map(lambda spelt: (name, spelt))),
)


@modest
@example(names=(("a", "a"), ('a"."b', '"a"".""b"'), ("Null", '"Null"')), written_type="text", dot=" . ")
@given(
    names=st.tuples(spellings, spellings, spellings),
    written_type=st.sampled_from(TYPES),
    dot=st.sampled_from([".", " . "]),
)
def test_a_name_is_stored_as_postgresql_stores_it_however_it_is_written(
    names: tuple[tuple[str, str], ...], written_type: str, dot: str
) -> None:
    read = parse_expectation(f"column {dot.join(spelt for _, spelt in names)} {written_type}")
    assert (read.schema, read.table, read.column) == tuple(name for name, _ in names)
    assert read.type == written_type


@modest
@given(st.tuples(stored_names, stored_names, stored_names), st.sampled_from(TYPES))
def test_the_name_shown_to_people_can_be_pasted_into_a_file(names: tuple[str, str, str], written_type: str) -> None:
    expectation = Expectation(*names, written_type)
    assert parse_expectation(f"column {expectation.name} {written_type}") == expectation
