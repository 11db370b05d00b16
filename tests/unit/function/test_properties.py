"""Whatever comes in, the right result comes out or an error of the contract: never anything else, never a secret."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import struct
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pg8000.native import literal

import app
from pg_hotfix import errors
from pg_hotfix.errors import ConfigurationError, HotfixError, RequestError, SecretError
from pg_hotfix.file.hotfix_file import parse_hotfix
from pg_hotfix.file.hotfix_id import HOTFIX_ID
from pg_hotfix.promises.column import catalog
from pg_hotfix.promises.column.line import (
    NAME_LIMIT_BYTES,
    SYSTEM_COLUMNS,
    Expectation,
    Unreadable,
    parse_expectation,
    written,
)
from pg_hotfix.quoting import quoted
from pg_hotfix.request import ACTIONS, PLAN_HASH, TEXT_LIMIT, parse_request
from pg_hotfix.server import credentials, transport
from pg_hotfix.server.credentials import MISPLACED, Target, parse_secret
from pg_hotfix.server.limits import derive_limits
from pg_hotfix.server.session import Session, open_session
from pg_hotfix.server.signals import LockNotAvailable
from pg_hotfix.server.sqlstates import LoginRefused
from pg_hotfix.settings import Settings, read_settings
from tests.conftest import PATIENCE_SECONDS, FakeContext

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.long_too

ID = "20260212092000_add_drivers_active_since"
ARN = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:kaviar/database-AbCdEf"
SETTINGS = Settings(ARN, "db.settings", 6432, "settings", Path(__file__), Path("sql"), 30, 5000)
ADD = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS note text;"

# Half of a surrogate pair can't be written in UTF-8, but JSON can hold it.
any_text = st.text(st.characters(exclude_categories=()), max_size=30)
one_line = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=30)


def any_json(texts: st.SearchStrategy[str], keys: st.SearchStrategy[str] = any_text) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
        max_leaves=8,
    )


def shown_of(error: BaseException) -> str:
    """All that a log could show of it."""
    return "".join(traceback.format_exception(error)) + repr(error)


# The head of a file

names = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=30)
    | st.from_regex(r"[a-z_][a-z0-9_$]*", fullmatch=True)
    | st.sampled_from(
        ["null", "NULL", "column", "default", "collate", "a.b", 'a"b', "--", "/*", "'", "$$", " ", "\u00a0"]
    )
).filter(lambda name: len(name.encode()) <= NAME_LIMIT_BYTES and name not in SYSTEM_COLUMNS)
types = st.sampled_from(
    [
        "timestamptz",
        "character varying(20)",
        "numeric(10,2)[]",
        "timestamp(3) without time zone",
        "interval day to second(3)",
    ]
) | st.tuples(names, names).map(lambda name: ".".join(map(quoted, name)))
# As pg_get_expr prints them: CASE on several lines, strings and names with anything in them.
expressions = st.lists(
    st.sampled_from(
        ["now()", "CASE\n    WHEN x THEN 1\n    ELSE 2\nEND", "nextval('a.b_seq'::regclass)", "(- 3)", " || "]
    )
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=15).map(literal)
    | names.map(quoted),
    min_size=1,
    max_size=4,
).map("\n  ".join)
expectations = st.builds(
    Expectation,
    names,
    names,
    names,
    types,
    collation=st.none() | names.map(written),
    not_null=st.booleans(),
    default=st.none() | st.sampled_from(["now()", "'a  -- b'::text", "'it''s'::text", "1 + 2", "not null"]),
)
blank = st.text(" \t", max_size=3)
blanks = st.text(" \t", min_size=1, max_size=3)


@st.composite
def expect_lines(draw: st.DrawFn, expectation: Expectation) -> str:
    """One of the many ways to write it."""
    dot = draw(st.sampled_from([".", " . "]))
    nullable: list[list[str]] = [["not", "null"], ["NOT", "NULL"]] if expectation.not_null else [[], ["null"]]
    words = [
        draw(st.sampled_from(["column", "COLUMN", "Column"])),
        dot.join(map(quoted, (expectation.schema, expectation.table, expectation.column))),
        expectation.type,
        *(["collate", expectation.collation] if expectation.collation else []),
        *draw(st.sampled_from(nullable)),
        *(["Default", expectation.default] if expectation.default else []),
    ]
    marker = draw(st.sampled_from(["expect", "EXPECT", "Expect"]))
    return f"--{draw(blank)}{marker}{draw(blank)}:{draw(blank)}{draw(blanks).join(words)}{draw(blank)}"


other_lines = st.one_of(
    blank,
    one_line.filter(lambda text: not re.match(r"\W*ex", text, re.IGNORECASE)).map("--".__add__),
    one_line.filter(lambda text: "*" not in text and "/" not in text).map("/* -- expect: {}\n */".format),
)


@given(st.data(), st.lists(expectations, min_size=1, max_size=3, unique_by=lambda e: e.name))
def test_expectations_are_read_whatever_stands_around_them(data: st.DataObject, promised: list[Expectation]) -> None:
    lines = []
    for expectation in promised:
        lines += [*data.draw(st.lists(other_lines, max_size=2)), data.draw(expect_lines(expectation))]
    lines += [*data.draw(st.lists(other_lines, max_size=2)), ADD, *data.draw(st.lists(other_lines, max_size=2))]
    content = data.draw(st.sampled_from(["\n", "\r\n", "\r"])).join(lines)
    assert list(parse_hotfix(ID, content.encode()).expectations) == promised


stray_signs = st.text(st.sampled_from(" \t\u00a0\u200b\u3000:;-\u2014#*!."), max_size=3)


@example("\u00a0", ":")
@example("- ", ": ")
@given(stray_signs, stray_signs)
def test_a_promise_with_a_stray_sign_is_kept_or_refused_and_never_lost(before: str, between: str) -> None:
    line = f"--{before}expect{between}column public.drivers.note text"
    try:
        hotfix = parse_hotfix(ID, f"-- expect: column public.drivers.id int\n{line}\n{ADD}".encode())
    except Unreadable:
        return
    assert [expectation.name for expectation in hotfix.expectations] == ["public.drivers.id", "public.drivers.note"]


@example("text", None, False, "'a\nb'::text", "")
@example("text", None, False, "'a\\\r\n''b'::text", "")
@given(
    types,
    st.none() | names.map(written),
    st.booleans(),
    st.none() | expressions,
    st.sampled_from(["", "a", "d", "s", "v"]),
)
def test_the_line_that_a_mismatch_prints_is_read_as_what_is_there(
    column_type: str, collation: str | None, not_null: bool, printed: str | None, kind: str
) -> None:
    identity, generated = (kind, "") if kind in ("", "a", "d") else ("", kind)
    assume(bool(printed) == bool(generated) or kind == "")
    found = catalog.Found(
        relation_oid=1,
        relation_kind="r",
        owner="app",
        owned=True,
        schema_usable=True,
        lockable=True,
        has_children=False,
        estimated_rows=0,
        estimated_bytes=0,
        expected_type=column_type,
        type_matches=True,
        collation_matches=True,
        actual_type=column_type,
        collation=collation,
        not_null=not_null,
        not_valid=False,
        identity=identity,
        generated=generated,
        printed=printed,
        changed_here=False,
        state="1",
    )
    column = catalog.compare(Expectation("public", "drivers", "note", "int"), found)
    (line,) = errors.lines_to_paste([column.describe()])
    (pasted,) = parse_hotfix(ID, f"{line.strip()}\n{ADD}".encode()).expectations
    assert (pasted.type, pasted.collation) == (column_type, collation)
    assert catalog.compare(pasted, found).matches


@given(st.text(st.characters(codec="utf-8"), max_size=40) | st.lists(st.sampled_from(
    ["column", "a.b.c", '"a', '"', ".", " ", "text", "(", ")", "[", "]", "1", "-", ",", "not", "null", "default",
     "collate", "generated", "always", "as", "identity", "stored", "setof", "serial", "'", "::", "$$", "--", "%type"]
), max_size=12).map(" ".join))  # fmt: skip
def test_any_expect_line_is_refused_or_can_be_written_again(text: str) -> None:
    try:
        expectation = parse_expectation(text)
    except Unreadable:
        return
    nullability = "not null" if expectation.not_null else "null"
    words = catalog.describe_column(
        expectation.type, expectation.collation, nullability, expectation.default, expectation.generated
    )
    assert parse_expectation(f"column {expectation.name} {words}") == expectation


# The secret

# Unlike any text of ours, so that finding one is no coincidence. A password that was cut shows in pieces.
MARKS = ("Kq7xZv", "Wj9pQm", "Rt5yBn")
SIGNS = st.text(st.sampled_from("/@:?#[]&=+%\\\"' {}\u00e9\uff0f\u2100" + "12"), max_size=4)
passwords = st.tuples(SIGNS, SIGNS).map(lambda signs: f"{MARKS[0]}{signs[0]}{MARKS[1]}{signs[1]}{MARKS[2]}")
fields = st.fixed_dictionaries(
    {},
    optional={
        "username": any_text | any_json(any_text),
        "password": passwords | any_json(passwords),
        "host": any_text | any_json(any_text),
        "port": st.integers() | st.integers(1, 65_535).map(str) | any_json(any_text),
        "dbname": any_text | any_json(any_text),
        "engine": st.sampled_from(["postgres", "aurora-postgresql", "mysql", ""]) | any_json(any_text),
        "masterarn": any_json(passwords),
    },
)
all_settings = st.builds(
    replace,
    st.just(SETTINGS),
    db_host=st.sampled_from([None, "db.settings"]),
    db_port=st.sampled_from([None, 6432]),
    db_name=st.sampled_from([None, "settings"]),
)


def refused_or_target(value: object, settings: Settings) -> Target | None:
    """The target. None if it is refused, without a word of the password."""
    try:
        target = parse_secret(value, settings)
        "".join((target.host, target.database, target.user, target.password)).encode()  # As a login has to.
        return target
    except SecretError as error:
        shown = shown_of(error)
    assert not [mark for mark in MARKS if mark in shown]
    return None


@example({"username": "\ud800", "password": "x"}, SETTINGS)
@given(fields, all_settings)
def test_the_json_of_rds_with_any_values_is_the_right_target_or_refused(
    document: dict[str, Any], settings: Settings
) -> None:
    target = refused_or_target(json.dumps(document), settings)
    if target is None:
        return
    assert (target.user, target.password) == (str(document["username"]), str(document["password"]))
    assert target.host == str(document.get("host") or settings.db_host)
    assert target.database == str(document.get("dbname") or settings.db_name)
    assert str(target.port) == str(document.get("port") or settings.db_port or 5432)
    assert not [mark for mark in MARKS if mark in repr(replace(target, user="", host="", database=""))]


encodable = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
# Several hosts and Unix sockets are refused.
hosts = encodable.filter(lambda host: "," not in host and host[0] not in "/@")


@given(encodable, encodable, st.none() | hosts, st.none() | encodable, st.none() | st.integers(1, 65_535))
def test_a_whole_secret_is_the_right_target_and_the_settings_fill_what_it_lacks(
    user: str, password: str, host: str | None, database: str | None, port: int | None
) -> None:
    document = {"username": user, "password": password, "host": host, "dbname": database, "port": port}
    target = parse_secret(json.dumps(document), SETTINGS)
    assert target == Target(host or "db.settings", port or 6432, database or "settings", user, password)


@example("app", f"{MARKS[0]}@12/{MARKS[1]}", "db.example", "6432", "kaviar", "", SETTINGS)
@example("app", f"{MARKS[0]}@h?{MARKS[1]}", "db.example", "", "kaviar", "", SETTINGS)
@example("app", f"{MARKS[0]}@h?{MARKS[1]}", "db.example", "5432", "", "#", SETTINGS)
@given(
    st.sampled_from(["app", "a@b", "app_clone"]),
    passwords.filter(lambda password: not re.search("%[0-9a-fA-F]{2}", password)),
    st.sampled_from(["db.example", "DB.example", "10.0.0.1", "[fd00::1]", "db-1.c1a2.sa-east-1.rds.amazonaws.com"]),
    st.sampled_from(["", "6432", "0", "65536", "x"]),
    st.sampled_from(["kaviar", "", "a%20b"]),
    st.sampled_from(["", "?", "?schema=public&sslmode=disable", "?a=b%40c", "#", "#x"]),
    all_settings,
)
def test_a_url_whose_password_nobody_encoded_is_the_right_target_or_refused(
    user: str, password: str, host: str, port: str, database: str, query: str, settings: Settings
) -> None:
    target = refused_or_target(f"postgres://{user}:{password}@{host}:{port}/{database}{query}", settings)
    if target is not None:
        name = database.replace("%20", " ") or settings.db_name
        assert (target.user, target.password, target.database) == (user, password, name)
        assert (target.host, target.port) == (host.strip("[]").lower(), int(port or settings.db_port or 5432))


@given(*[encodable] * 5, st.sampled_from(["postgres", "postgresql"]), st.booleans(), all_settings)
def test_an_encoded_url_with_any_values_is_the_right_target(
    user: str, password: str, database: str, name: str, value: str, scheme: str, in_json: bool, settings: Settings
) -> None:
    assume(name.lower() not in MISPLACED)
    login, path = f"{quote(user, safe='')}:{quote(password, safe='')}", quote(database, safe="")
    url = f"{scheme}://{login}@db.example:5433/{path}?{quote(name, safe='')}={quote(value, safe='')}"
    secret = json.dumps({"DATABASE_URL": url}) if in_json else url
    assert parse_secret(secret, settings) == Target("db.example", 5433, database, user, password)


@given(
    st.one_of(
        st.none() | st.integers() | any_text | st.binary(max_size=60) | any_json(passwords),
        any_json(passwords, st.sampled_from(["username", "password", "DATABASE_URL"])).map(json.dumps),
        st.tuples(any_text, passwords, any_text).map("".join),
        st.tuples(any_text, passwords, any_text).map(lambda parts: f"postgres://{''.join(parts)}"),
        passwords.map(lambda password: f'{{"password": "{password}"'),
    ),
    all_settings,
)
def test_junk_is_no_target_and_shows_nothing(value: object, settings: Settings) -> None:
    target = refused_or_target(value, settings)
    if target is not None:
        assert all((target.host, target.database, target.user, target.password))
        assert 0 < target.port < 65_536


# Settings and events

UNTOUCHED = "Nothing was contacted and nothing was changed."
ODD_PATHS = ["x" * 300, "/" * 5000, "README.md/x", "README.md", "sql"]


@given(
    st.fixed_dictionaries(
        {"DB_SECRET_ARN": one_line, "SQL_DIR": st.just("sql") | st.sampled_from(ODD_PATHS)},
        optional=dict.fromkeys(
            ["DB_HOST", "DB_PORT", "DB_NAME", "LOCK_WAIT_SECONDS", "STATEMENT_TIMEOUT_MS", "DB_CA_BUNDLE"],
            one_line | st.integers().map(str) | st.sampled_from([*ODD_PATHS, "0", "840", "9" * 5000]),
        ),
    )
)
def test_any_environment_gives_settings_within_bounds_or_names_the_wrong_one(environment: dict[str, str]) -> None:
    try:
        settings = read_settings(environment)
    except ConfigurationError as error:
        text = str(error)
    else:
        text = f"DB_SECRET_ARN {UNTOUCHED}"
        assert 1 <= settings.lock_wait_seconds <= 840
        assert 100 <= settings.statement_timeout_ms <= 840_000
        assert settings.db_port is None or 0 < settings.db_port < 65_536
    assert text.split(" ")[0] in environment
    assert UNTOUCHED in text


texts = any_text | st.integers(TEXT_LIMIT - 1, TEXT_LIMIT + 1).map("\u6f22".__mul__)
requests = st.fixed_dictionaries(
    {},
    optional={
        "hotfix": st.just(ID) | st.from_regex(HOTFIX_ID) | any_json(texts),
        "action": st.sampled_from(list(ACTIONS)) | any_json(texts),
        "plan_hash": st.just("0" * 64) | st.from_regex(PLAN_HASH) | any_json(texts),
        "record": st.just("prisma") | any_json(texts),
        "force": st.booleans() | st.just("true") | any_json(texts),
        "reason": texts | any_json(texts),
        "requested_by": texts | any_json(texts),
        "correlation_id": texts | any_json(texts),
        "password": st.nothing() | any_json(texts),
    },
)


def envelopes(details: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"detail-type": any_json(texts), "source": any_json(texts), "detail": details},
        optional={"id": texts | any_json(texts), "resources": any_json(texts)},
    )


def nested(depth: int) -> Any:
    event: Any = {}
    for _ in range(depth):
        event = {"detail": [event], "detail-type": event, "source": event}
    return event


events = st.one_of(
    requests,
    envelopes(requests),
    envelopes(any_json(texts)),
    any_json(texts),
    st.lists(requests, max_size=2),
    st.integers(100, 10_000).map(lambda size: {str(key): ID for key in range(size)}),
    st.integers(1, 12).map(nested),
)


# What breaks a line, moves a terminal's cursor, or can't be written in UTF-8.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@example({"hotfix": ID, "reason": "INC-4711\u2028{}"})
@example({"hotfix": ID, "reason": "\x9b2J"})
@example({"x" * 100_000: 1})
@example({"action": "gate"})
@example({"hotfix": ID, "action": "gate"})
@example({"hotfix": ID, "action": "revert", "force": True})
@example({"hotfix": ID, "action": "apply", "force": True, "reason": "INC-4711"})
@example({"hotfix": ID, "action": "revert", "force": "true", "reason": "INC-4711"})
@example({"hotfix": ID, "detail-type": "", "source": "", "id": "\ud800", "detail": {"hotfix": ID}})
@example({"hotfix": ID, "detail-type": "", "source": "", "id": "x" * 100_000, "detail": {"hotfix": ID}})
@given(events)
def test_any_event_is_a_request_of_printable_lines_or_refused_in_a_short_text(event: object) -> None:
    try:
        request = parse_request(event)
    except RequestError as refused:
        text = str(refused)
    else:
        text = UNTOUCHED
        assert request.action in ACTIONS
        if request.hotfix is None:
            assert request.action in ("check", "gate")
        else:
            assert HOTFIX_ID.fullmatch(request.hotfix)
            assert request.action != "gate"
        assert not request.force or (request.action == "revert" and request.reason)
        assert request.plan_hash is None or request.action == "apply"
        assert request.record is None or (request.record, request.action) == ("prisma", "apply")
        for field in (request.reason, request.requested_by, request.correlation_id):
            assert field is None or (len(field) <= TEXT_LIMIT and not UNPRINTABLE.search(field))
    assert UNTOUCHED in text
    assert len(text) < 1000
    assert not UNPRINTABLE.search(text)


# The whole function, with neither AWS nor a server


class AnyProvider:
    """Secrets Manager, with any secret in it."""

    def __init__(self, value: object) -> None:
        self.value = value

    def get(self, *_: object, **__: object) -> object:
        return self.value


@pytest.fixture(scope="module")
def deployed() -> Iterator[pytest.MonkeyPatch]:
    """A function whose every connection is refused."""

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", refuse)
        for name in ("DB_HOST", "DB_PORT", "DB_NAME", "DB_CA_BUNDLE", "LOCK_WAIT_SECONDS", "STATEMENT_TIMEOUT_MS"):
            patch.delenv(name, raising=False)
        patch.setenv("DB_SECRET_ARN", ARN)
        patch.setenv("SQL_DIR", "sql")
        yield patch


secrets = fields.map(json.dumps) | passwords.map("postgres://app:{}@db.example:5432/kaviar".format)


@example({"detail-type": "", "source": "", "id": "\ud800", "detail": {"hotfix": ID}}, "{}")
@given(events, secrets)
def test_any_event_ends_as_an_error_of_the_contract_and_one_line_of_the_log(
    deployed: pytest.MonkeyPatch, event: object, secret: str
) -> None:
    deployed.setattr(credentials, "secrets_provider", lambda: AnyProvider(secret))
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # As strict as Lambda's.
    for handler in app.logger.handlers:
        cast("Any", handler).stream = printed
    everywhere = contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed)
    with everywhere[0], everywhere[1], pytest.raises(HotfixError) as caught:
        app.lambda_handler(event, cast("Any", FakeContext()))
    assert not isinstance(caught.value, errors.InternalError)
    printed.seek(0)
    output = printed.read()
    lines = [json.loads(line) for line in output.split("\n") if line]
    assert [line["message"] for line in lines if "_aws" not in line] == ["hotfix failed"]
    assert [line["error"] for line in lines if "_aws" not in line] == [type(caught.value).__name__]
    assert not [mark for mark in MARKS if mark in output + shown_of(caught.value)]


# What a server sends


class Answering(socket.socket):
    """A socket whose peer has said all that it will ever say."""

    def version(self) -> str:
        return "TLSv1.3"

    @classmethod
    @contextlib.contextmanager
    def with_answer(cls, answer: bytes) -> Iterator[Answering]:
        ours, theirs = socket.socketpair()
        with cls(fileno=ours.detach()) as answering, theirs:
            answering.settimeout(PATIENCE_SECONDS)
            theirs.sendall(answer)
            theirs.shutdown(socket.SHUT_WR)
            yield answering


def message(kind: bytes, body: bytes, wrong_by: int = 0) -> bytes:
    return kind + struct.pack("!i", len(body) + 4 + wrong_by) + body


LOGGED_IN = message(b"R", struct.pack("!i", 0)) + message(b"Z", b"I")
BODIES = [
    *(struct.pack("!i", method) + rest for method in range(14) for rest in (b"", b"abcd", b"SCRAM-SHA-256\0\0")),
    *(struct.pack("!i", step) + rest for step in (11, 12) for rest in (b"r=x,s=YQ==,i=1", b"r=,s=,i=0", b"v=YQ==")),
    *(b"client_encoding\0" + name + b"\0" for name in (b"UTF8", b"LATIN1", b"MULE_INTERNAL", b"nonsense")),
    b"I",
    b"SELECT 1\0",
    b"COMMIT\0",
    b"SERROR\0C57014\0Mcancelled\0\0",
    struct.pack("!h", 1) + b"a\0" + struct.pack("!ihihih", 0, 0, 20, 8, -1, 0),
    struct.pack("!hi", 1, 1) + b"x",
]
answers = st.binary(max_size=60) | st.lists(
    st.builds(
        message,
        st.sampled_from([bytes([kind]) for kind in b"RSKZTENDCI123nstAGHWcdv\0"]),
        st.sampled_from(BODIES) | st.binary(max_size=30),
        st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, -1, -20, 1000]),
    ),
    max_size=6,
).map(b"".join)
LIMITS = derive_limits(SETTINGS, 55_000)
TARGET = Target("db.example", 5432, "kaviar", "app", "".join(MARKS))


def log_in(answer: bytes, then: str | None = None) -> str:
    """The name of the error that a server's answer to a login, or to a query after it, ends with."""
    with pytest.MonkeyPatch.context() as patch, Answering.with_answer(answer) as answering:
        patch.setattr(transport, "connect_socket", lambda *_: None)
        patch.setattr(transport, "encrypt", lambda *_: answering)
        patch.setattr(Session, "read_facts", lambda *_: None)
        try:
            with open_session(TARGET, LIMITS, SETTINGS.ca_bundle) as session:
                if then:
                    session.query(then)
        except (HotfixError, LoginRefused, LockNotAvailable) as error:
            assert not [mark for mark in MARKS if mark in shown_of(error)]  # noqa: PT017 - not each answer is an error
            return type(error).__name__
    return ""


@given(answers)
def test_whatever_a_server_answers_to_a_login_is_a_refusal_or_no_connection(answer: bytes) -> None:
    possible = {"", "DatabaseUnavailableError", "LoginError", "LoginRefused", "ConfigurationError"}
    assert log_in(answer) in possible


def test_a_refusal_is_not_hidden_by_a_good_bye_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def send_once(answering: Answering, words: bytes) -> int:
        monkeypatch.setattr(Answering, "send", send_to_nobody)
        return socket.socket.send(answering, words)

    def send_to_nobody(*_: object) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(Answering, "send", send_once)
    assert log_in(message(b"E", b"SFATAL\0C28P01\0Mno\0\0")) == "LoginRefused"


@example(message(b"S", b"client_encoding\0MULE_INTERNAL\0") + message(b"E", b"C57014\0Mx\0\0"))
@example(message(b"d", b""))
@given(answers.filter(lambda answer: b"R" not in answer))
def test_whatever_a_server_answers_to_a_query_is_an_error_of_the_contract(answer: bytes) -> None:
    assert log_in(LOGGED_IN + answer, "SELECT 1") not in ("LoginRefused", "InternalError")
