"""`revert` leaves nothing behind that needs what it drops, and takes nothing along without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pg8000.native import DatabaseError

from pg_hotfix.change import dependents
from pg_hotfix.file.mentions import Mention
from tests.integration.change.test_apply import columns_of
from tests.integration.change.test_revert import NAME, before_the_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

__all__ = ["before_the_lock"]

RATING = "public.drivers.rating"
DROP = "ALTER TABLE drivers DROP COLUMN IF EXISTS rating;"
ADD = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating smallint;"
FORCE = {"force": True, "reason": "INC-4712"}
FORCE_LINE = (
    "To drop it all the same, with everything in it, for good:"
    f"  ./pg-hotfix revert {NAME} --force --reason '<why the data may go>'"
)
STAYS = (
    f"Other objects need {RATING}, so {NAME} was not reverted: PostgreSQL would refuse to drop it, or writes to its"
    " table would fail. Nothing was changed.\n"
)
MIGRATE = "Change or drop them by a migration.\n--force does not help here."
LOST = f"Dropping {RATING} would lose more than the column, so {NAME} was not reverted. Nothing was changed.\n"
NOTE = """CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.rating := 1; RETURN NEW; END $$;"""
TRIGGER = "CREATE OR REPLACE TRIGGER noting BEFORE UPDATE ON drivers FOR EACH ROW EXECUTE FUNCTION note();"


@pytest.fixture
def applied(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> Callable[..., str]:
    """A hotfix that adds `rating`, and does `more`, is applied to a table of three rows. Returns its id."""

    def apply(more: str = "", back: str = DROP, column: str = "smallint", expected: str | None = None) -> str:
        lines = "".join(f"-- revert: {line}\n" for line in back.splitlines())
        add = ADD.replace("smallint", column)
        hotfix_id = write_hotfix(f"{lines}{add}\n{more}", f"{RATING} {expected or column}")
        database.run_as_owner("INSERT INTO drivers (id, name) SELECT gen_random_uuid(), 'x' FROM generate_series(1, 3)")
        outcome = invoke("apply", hotfix_id)
        assert outcome.result in ("applied", "already_applied"), outcome.text
        return hotfix_id

    return apply


def has_rating(database: Database) -> bool:
    return "rating" in columns_of(database)


def write_a_row(database: Database) -> None:
    database.run_as_owner("INSERT INTO drivers (id, name) VALUES (gen_random_uuid(), 'y')")
    database.run_as_owner("UPDATE drivers SET name = 'z'")
    database.run_as_owner("DELETE FROM drivers WHERE name = 'z'")


# What stays behind


@pytest.mark.parametrize("fields", [{}, FORCE], ids=["", "with force"])
def test_a_trigger_whose_function_needs_the_column_is_not_left_behind(
    invoke: Invoke, applied: Callable[..., str], database: Database, fields: dict[str, Any]
) -> None:
    outcome = invoke("revert", applied(f"{NOTE}\n{TRIGGER}"), **fields)
    assert outcome.error_name == "RevertRefusedError"
    assert outcome.text == (
        f"{STAYS}  trigger noting on public.drivers, whose function public.note() names the column\n"
        f"Let sql/{NAME}.sql drop what it makes before the column, have it reviewed, and deploy it:\n"
        "  -- revert: DROP TRIGGER IF EXISTS noting on public.drivers;\n"
        "  -- revert: DROP FUNCTION IF EXISTS public.note();\n"
        "--force does not help here."
    )
    assert has_rating(database)
    write_a_row(database)


def test_the_way_back_that_is_advised_is_accepted_and_leaves_nothing(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    views = (
        "CREATE OR REPLACE VIEW ratings AS SELECT rating FROM drivers;"
        "CREATE MATERIALIZED VIEW IF NOT EXISTS best AS SELECT * FROM ratings;"
        "CREATE OR REPLACE VIEW very_best AS SELECT * FROM best;"
    )
    more = f"{NOTE}\n{TRIGGER}\n{views}"
    refused = invoke("revert", applied(more))
    (_, *lines) = refused.text.split("  -- revert: ")
    back = "\n".join(line.splitlines()[0] for line in lines)
    assert back.splitlines() == [
        "DROP TRIGGER IF EXISTS noting on public.drivers;",
        "DROP VIEW IF EXISTS public.very_best;",
        "DROP MATERIALIZED VIEW IF EXISTS public.best;",
        "DROP VIEW IF EXISTS public.ratings;",
        "DROP FUNCTION IF EXISTS public.note();",
    ]
    hotfix_id = applied(more, f"{back}\n{DROP}")
    outcome = invoke("revert", hotfix_id)
    assert outcome.result == "reverted", outcome.text
    assert outcome.response["notes"] == []
    assert database.run("SELECT count(*) FROM pg_proc WHERE proname = 'note'") == [[0]]
    write_a_row(database)
    assert invoke("apply", hotfix_id).result == "applied"


# PostgreSQL refuses to drop a column under the most of these, and says so only once it holds the lock.
STAYING = {
    "a view": ("CREATE VIEW ratings AS SELECT rating FROM drivers", ["view public.ratings"]),
    "a view on a view": (
        "CREATE VIEW ratings AS SELECT rating FROM drivers; CREATE VIEW best AS SELECT * FROM ratings",
        ["view public.ratings", "view public.best"],
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW ratings AS SELECT rating FROM drivers",
        ["materialized view public.ratings"],
    ),
    "a policy": ("CREATE POLICY best ON drivers USING (rating > 3)", ["policy best on public.drivers"]),
    "a policy of another table": (
        (
            "CREATE TABLE other (id uuid);"
            "CREATE POLICY best ON other USING (id IN (SELECT d.id FROM drivers d WHERE d.rating > 3))"
        ),
        ["policy best on public.other"],
    ),
    "a rule": (
        "CREATE RULE noting AS ON UPDATE TO drivers WHERE NEW.rating > 9 DO NOTHING",
        ["rule noting on public.drivers"],
    ),
    "a generated column": (
        "ALTER TABLE drivers ADD twice int GENERATED ALWAYS AS (rating * 2) STORED",
        ["column public.drivers.twice"],
    ),
    "UPDATE OF": (
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER noting BEFORE UPDATE OF rating ON drivers FOR EACH ROW EXECUTE FUNCTION f()"
        ),
        ["trigger noting on public.drivers"],
    ),
    "WHEN": (
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER noting BEFORE UPDATE ON drivers FOR EACH ROW WHEN (NEW.rating > 3) EXECUTE FUNCTION f()"
        ),
        ["trigger noting on public.drivers"],
    ),
    "a body of standard SQL": (
        (
            "CREATE FUNCTION best() RETURNS bigint LANGUAGE sql"
            " BEGIN ATOMIC SELECT count(*) FROM drivers WHERE rating > 3; END"
        ),
        ["function public.best()"],
    ),
    "a key of another table": (
        (
            "ALTER TABLE drivers ADD CONSTRAINT one UNIQUE (rating);"
            "CREATE TABLE other (rating smallint CONSTRAINT to_one REFERENCES drivers (rating))"
        ),
        ["constraint to_one on public.other"],
    ),
    "a partial exclusion": (
        "ALTER TABLE drivers ADD CONSTRAINT apart EXCLUDE (name WITH =) WHERE (rating > 3)",
        ["constraint apart on public.drivers"],
    ),
    "a trigger that is given the column": (
        (
            "ALTER TABLE drivers ADD words tsvector;"
            "CREATE TRIGGER words BEFORE INSERT OR UPDATE ON drivers FOR EACH ROW"
            " EXECUTE FUNCTION tsvector_update_trigger(words, 'pg_catalog.english', name, rating)"
        ),
        ["trigger words on public.drivers, which gets the name of the column"],
    ),
    "a trigger that updates the table": (
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN UPDATE drivers SET rating = 0 WHERE id = NEW.id AND rating = 1; RETURN NULL; END';"
            "CREATE TRIGGER noting AFTER INSERT ON drivers FOR EACH ROW EXECUTE FUNCTION f()"
        ),
        ["trigger noting on public.drivers, whose function public.f() names the column"],
    ),
    "a trigger that puts its SQL together": (
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN EXECUTE 'SELECT $1.' || '\"x\"' || '' || $q$, $1.RATING$q$ USING NEW; RETURN NULL; END$$;"
            "CREATE TRIGGER noting AFTER DELETE ON drivers FOR EACH ROW EXECUTE FUNCTION f()"
        ),
        ["trigger noting on public.drivers, whose function public.f() names the column"],
    ),
    "a trigger that is disabled": (
        f"{NOTE} {TRIGGER} ALTER TABLE drivers DISABLE TRIGGER noting",
        ["trigger noting on public.drivers, whose function public.note() names the column"],
    ),
}


@pytest.mark.parametrize("kind", STAYING)
def test_what_needs_the_column_is_named_before_any_lock(
    invoke: Invoke, applied: Callable[..., str], database: Database, kind: str
) -> None:
    made, named = STAYING[kind]
    hotfix_id = applied()
    database.run_as_owner(made)
    with database.connect() as other:
        other.run("BEGIN; LOCK TABLE drivers IN ROW EXCLUSIVE MODE")  # Whoever asked for the lock would not get it.
        outcome = invoke("revert", hotfix_id, **FORCE)
    assert outcome.error_name == "RevertRefusedError", outcome.text
    lines = "".join(f"  {line}\n" for line in named or [])
    assert outcome.text == f"{STAYS}{lines}{MIGRATE}"
    assert has_rating(database)


def test_the_index_without_which_a_published_table_refuses_updates_is_named(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied(column="smallint not null default 0")
    database.run_as_owner(
        "CREATE UNIQUE INDEX own ON drivers (rating, id); ALTER TABLE drivers REPLICA IDENTITY USING INDEX own"
    )
    outcome = invoke("revert", hotfix_id, **FORCE)
    assert outcome.text == f"{STAYS}  replica identity of public.drivers\n{MIGRATE}"


def test_a_publication_that_lists_or_filters_by_the_column_is_named(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    if database.run("SELECT current_setting('server_version_num')::int < 150000") == [[True]]:
        pytest.skip("PostgreSQL 14 publishes whole tables")
    hotfix_id = applied()
    database.run("CREATE PUBLICATION listed FOR TABLE drivers (id, rating)")
    database.run("CREATE PUBLICATION filtered FOR TABLE drivers WHERE (rating > 3) WITH (publish = 'insert')")
    assert invoke("revert", hotfix_id, **FORCE).text == (
        f"{STAYS}  publication of public.drivers in publication listed\n"
        f"  publication of public.drivers in publication filtered\n{MIGRATE}"
    )


def test_what_only_a_partition_has_is_named(invoke: Invoke, write_hotfix: WriteHotfix, database: Database) -> None:
    database.run_as_owner(
        "CREATE TABLE rides (id int) PARTITION BY RANGE (id); CREATE TABLE rides_1 PARTITION OF rides DEFAULT;"
    )
    hotfix_id = write_hotfix(
        "-- revert: ALTER TABLE rides DROP COLUMN a;\nALTER TABLE rides ADD COLUMN IF NOT EXISTS a int;",
        "public.rides.a int",
    )
    invoke("apply", hotfix_id)
    database.run_as_owner(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.a := 1; RETURN NEW; END';"
        "CREATE TRIGGER here BEFORE INSERT ON rides_1 FOR EACH ROW EXECUTE FUNCTION f();"
        "CREATE TRIGGER all_over BEFORE UPDATE OF a ON rides FOR EACH ROW EXECUTE FUNCTION f();"
        "CREATE TABLE rides_2 PARTITION OF rides FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (a);"
        "CREATE VIEW one AS SELECT a FROM rides_1"
    )
    outcome = invoke("revert", hotfix_id, **FORCE)
    assert sorted(outcome.text.splitlines()[1:-2]) == [
        "  partition key of public.rides_2",
        "  trigger all_over on public.rides, whose function public.f() names the column",
        "  trigger here on public.rides_1, whose function public.f() names the column",
        "  view public.one",
    ]


def test_what_a_child_has_of_its_own_stays_and_does_not_count(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    database.run_as_owner(
        "CREATE TABLE old_drivers (rating smallint) INHERITS (drivers);"
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.rating := 1; RETURN NEW; END';"
        "CREATE TRIGGER noting BEFORE INSERT ON old_drivers FOR EACH ROW EXECUTE FUNCTION f();"
        "CREATE INDEX by_rating ON old_drivers (rating)"
    )
    outcome = invoke("revert", applied())
    assert outcome.result == "reverted", outcome.text
    assert columns_of(database, "public.old_drivers") == ["id", "name", "rating"]
    database.run_as_owner("INSERT INTO old_drivers (id, name) VALUES (gen_random_uuid(), 'y')")


def test_what_a_child_inherits_counts(invoke: Invoke, applied: Callable[..., str], database: Database) -> None:
    database.run_as_owner("CREATE TABLE old_drivers () INHERITS (drivers)")
    hotfix_id = applied()
    database.run_as_owner(f"{NOTE} {TRIGGER.replace('ON drivers', 'ON old_drivers')}")
    assert invoke("revert", hotfix_id).text == (
        f"{STAYS}  trigger noting on public.old_drivers, whose function public.note() names the column\n{MIGRATE}"
    )


# What only looks like it

HARMLESS = {
    "a comment": "-- NEW.rating\n/* OLD.rating */ RETURN NEW",
    "a longer name": "NEW.name := NEW.name || 'x'; PERFORM 1 AS ratings, 2 AS rating_of, 3 AS berating; RETURN NEW",
    "another case in quotes": 'PERFORM 1 AS "Rating", 2 AS "RATING"; RETURN NEW',
    "a dollar and a digit": "PERFORM 1 AS rating$1, 2 AS rating1; RETURN NEW",
    "prose": "RAISE DEBUG 'the driver''s overrating'; RETURN NEW",
}


@pytest.mark.parametrize("body", HARMLESS.values(), ids=HARMLESS)
def test_a_trigger_that_only_seems_to_need_the_column_is_no_reason(
    invoke: Invoke, applied: Callable[..., str], database: Database, body: str
) -> None:
    hotfix_id = applied()
    database.run_as_owner(
        f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body}; END$$;"
        f"CREATE TRIGGER noting BEFORE UPDATE ON drivers FOR EACH ROW EXECUTE FUNCTION f();"
        "CREATE TABLE other (rating int);"
        "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.rating := 1; RETURN NEW; END';"
        "CREATE TRIGGER noting BEFORE UPDATE ON other FOR EACH ROW EXECUTE FUNCTION g();"
        "CREATE VIEW others AS SELECT rating FROM other; CREATE INDEX by_name ON drivers (name)"
    )
    outcome = invoke("revert", hotfix_id)
    assert outcome.result == "reverted", outcome.text
    assert outcome.response["notes"] == []
    write_a_row(database)


STRANGE = ['a"b', "it's", "Größe", "SELECT", "x.y", "a*(b|c)+", "order by", "$tag$", "\\000"]


@pytest.mark.parametrize("name", STRANGE)
def test_a_column_of_any_name_is_found_in_a_body(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database, name: str
) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    hotfix_id = write_hotfix(
        f"-- revert: ALTER TABLE drivers DROP COLUMN {quoted};\n"
        f"ALTER TABLE drivers ADD COLUMN IF NOT EXISTS {quoted} int;",
        f"public.drivers.{quoted} int",
    )
    assert invoke("apply", hotfix_id).result == "applied"
    database.run_as_owner(
        f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $f$BEGIN NEW.{quoted} := 1; RETURN NEW; END$f$;"
        "CREATE TRIGGER noting BEFORE UPDATE ON drivers FOR EACH ROW EXECUTE FUNCTION f()"
    )
    outcome = invoke("revert", hotfix_id)
    assert "trigger noting on public.drivers, whose function public.f() names the column" in outcome.text
    database.run_as_owner("DROP FUNCTION f CASCADE")
    assert invoke("revert", hotfix_id).result == "reverted"


# What may need it

GUESSED = {
    "a helper that takes any record": (
        (
            "CREATE FUNCTION score(r record) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN r.rating; END';"
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM score(NEW); RETURN NEW; END';"
        ),
        "function public.score(pg_catalog.record)",
    ),
    "a helper that takes jsonb": (
        (
            "CREATE FUNCTION score(j jsonb) RETURNS text LANGUAGE sql AS $$ SELECT j->>'rating' $$;"
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM public . score (to_jsonb(NEW)); RETURN NEW; END';"
        ),
        "function public.score(pg_catalog.jsonb)",
    ),
    "whole rows in a log": (
        (
            "CREATE TABLE log AS SELECT *, now() AS at FROM drivers;"
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN INSERT INTO log VALUES (NEW.*, now()); RETURN NEW; END';"
        ),
        "trigger noting on public.drivers, whose function public.f() uses whole rows (NEW.* or OLD.*)",
    ),
    "a column of that name in a log that is told the table's": (
        (
            "CREATE TABLE log (tbl text, rating int);"
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN INSERT INTO log (tbl, rating) VALUES ('drivers', 1); RETURN NEW; END$$;"
        ),
        "trigger noting on public.drivers, whose function public.f() names the column",
    ),
}


@pytest.mark.parametrize(("made", "named"), GUESSED.values(), ids=GUESSED)
def test_what_only_may_need_the_column_is_named_and_force_gets_past_it(
    invoke: Invoke, applied: Callable[..., str], database: Database, made: str, named: str
) -> None:
    hotfix_id = applied()
    database.run_as_owner(f"{made} CREATE TRIGGER noting BEFORE UPDATE ON drivers FOR EACH ROW EXECUTE FUNCTION f()")
    outcome = invoke("revert", hotfix_id)
    assert (
        str(outcome.error)
        == f"{LOST}The code of these uses the column's name, and may fail without it:\n  {named}\n{FORCE_LINE}"
    )
    assert invoke("revert", hotfix_id, **FORCE).result == "reverted"


def test_a_function_that_the_file_only_uses_is_not_offered_to_be_dropped(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(
        "CREATE FUNCTION clamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.rating := 1; RETURN NEW; END'"
    )
    hotfix_id = write_hotfix(
        "-- revert: ALTER TABLE drivers DROP COLUMN rating;\n"
        "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating smallint;\n"
        "CREATE OR REPLACE TRIGGER clamping BEFORE UPDATE ON drivers FOR EACH ROW EXECUTE FUNCTION clamp();",
        "public.drivers.rating smallint",
    )
    assert invoke("apply", hotfix_id).result == "applied"
    text = invoke("revert", hotfix_id).text
    assert "-- revert: DROP TRIGGER IF EXISTS clamping on public.drivers;" in text
    assert "DROP FUNCTION" not in text


# What goes along

GOING = {
    "an index": ("CREATE INDEX by_rating ON drivers (rating)", "index public.by_rating"),
    "an index over another column": ("CREATE INDEX pair ON drivers (name, rating)", "index public.pair"),
    "a partial index": ("CREATE INDEX best ON drivers (name) WHERE rating > 3", "index public.best"),
    "an index on an expression": ("CREATE INDEX twice ON drivers ((rating * 2))", "index public.twice"),
    "a covering index": ("CREATE INDEX cover ON drivers (name) INCLUDE (rating)", "index public.cover"),
    "a CHECK": (
        "ALTER TABLE drivers ADD CONSTRAINT fair CHECK (rating < 9 OR name = '')",
        "constraint fair on public.drivers",
    ),
    "a UNIQUE": ("ALTER TABLE drivers ADD CONSTRAINT one UNIQUE (id, rating)", "constraint one on public.drivers"),
    "an exclusion": (
        "ALTER TABLE drivers ADD CONSTRAINT apart EXCLUDE (rating WITH =)",
        "constraint apart on public.drivers",
    ),
    "a foreign key": (
        (
            "CREATE TABLE other (rating smallint PRIMARY KEY);"
            "ALTER TABLE drivers ADD CONSTRAINT known FOREIGN KEY (rating) REFERENCES other"
        ),
        "constraint known on public.drivers",
    ),
    "statistics": ("CREATE STATISTICS together ON name, rating FROM drivers", "statistics public.together"),
    "a sequence": ("CREATE SEQUENCE numbers OWNED BY drivers.rating", "sequence public.numbers"),
    "what PostgreSQL would call the column's own": (
        "ALTER TABLE drivers ADD CHECK (rating > 0)",
        "constraint drivers_rating_check on public.drivers",
    ),
}


@pytest.mark.parametrize(("made", "named"), GOING.values(), ids=GOING)
def test_what_goes_along_is_told_by_plan_and_needs_force(
    invoke: Invoke, applied: Callable[..., str], database: Database, made: str, named: str
) -> None:
    hotfix_id = applied()
    database.run_as_owner(made)
    plan = invoke("plan", hotfix_id)
    assert (plan.result, plan.response["notes"]) == (
        "already_applied",
        [
            {
                "code": "revert_dependents",
                "text": f"revert drops these with the column, so revert needs --force: {named}.",
            }
        ],
    )
    outcome = invoke("revert", hotfix_id)
    assert outcome.text == (f"{LOST}PostgreSQL drops these with it, and the file does not make them:\n  {named}")
    assert has_rating(database)
    forced = invoke("revert", hotfix_id, **FORCE)
    assert (forced.result, forced.response["notes"]) == (
        "reverted",
        [{"code": "revert_dependents", "text": f"revert dropped these with the column: {named}."}],
    )
    assert forced.line["notes"] == forced.response["notes"]


OWN = {
    "UNIQUE": ("smallint UNIQUE", ""),
    "CHECK": ("smallint CHECK (rating > 0) CHECK (rating < 9)", ""),
    "REFERENCES": ("uuid REFERENCES drivers (id)", ""),
    "serial": ("bigserial", ""),
    "an index by its name": ("smallint", "CREATE INDEX IF NOT EXISTS by_rating ON drivers (name, rating);"),
    "a constraint in a DO block": (
        "smallint",
        (
            "DO $$ BEGIN ALTER TABLE drivers ADD CONSTRAINT fair CHECK (rating < 9 OR name = '');"
            " EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        ),
    ),
    "statistics by their name": ("smallint", "CREATE STATISTICS IF NOT EXISTS together ON name, rating FROM drivers;"),
}
EXPECTED = {
    "REFERENCES": "uuid",
    "serial": "bigint not null default nextval('public.drivers_rating_seq'::regclass)",
}


@pytest.mark.parametrize("kind", OWN)
def test_what_the_file_itself_makes_goes_without_force(
    invoke: Invoke, applied: Callable[..., str], database: Database, kind: str
) -> None:
    column, more = OWN[kind]
    hotfix_id = applied(more, column=column, expected=EXPECTED.get(kind, "smallint"))
    if kind == "serial":
        database.run_as_owner("TRUNCATE drivers")
    outcome = invoke("revert", hotfix_id)
    assert outcome.result == "reverted", outcome.text
    assert outcome.response["notes"] == []


def test_the_parts_of_what_goes_along_are_not_told_one_by_one(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    database.run_as_owner(
        "CREATE TABLE rides (id int) PARTITION BY RANGE (id); CREATE TABLE rides_1 PARTITION OF rides DEFAULT;"
        "CREATE TABLE other (a int PRIMARY KEY)"
    )
    hotfix_id = write_hotfix(
        "-- revert: ALTER TABLE rides DROP COLUMN a;\nALTER TABLE rides ADD COLUMN IF NOT EXISTS a int;",
        "public.rides.a int",
    )
    invoke("apply", hotfix_id)
    database.run_as_owner(
        "ALTER TABLE rides ADD CONSTRAINT one UNIQUE (id, a), ADD CONSTRAINT small CHECK (a < 9),"
        " ADD CONSTRAINT known FOREIGN KEY (a) REFERENCES other; CREATE INDEX by_a ON rides (a);"
        "CREATE INDEX only_here ON rides_1 (a)"
    )
    outcome = invoke("revert", hotfix_id)
    assert sorted(outcome.line["going"]) == [
        "constraint known on public.rides",
        "constraint one on public.rides",
        "constraint small on public.rides",
        "index public.by_a",
        "index public.only_here",
    ]


# What can only be guessed

GUESSED = {
    "a function that names both": (
        "CREATE FUNCTION best() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM Drivers WHERE rating > 3'",
        "function public.best()",
    ),
    "a procedure": (
        (
            "CREATE PROCEDURE best(a int) LANGUAGE plpgsql AS"
            " $$BEGIN EXECUTE 'UPDATE drivers SET rating = $1' USING a; END$$"
        ),
        "procedure public.best(integer)",
    ),
    "a function of the table's rows": (
        "CREATE FUNCTION best(d drivers) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN d.rating > 3; END'",
        "function public.best(public.drivers)",
    ),
    "a trigger that is given the column": (
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER noting AFTER UPDATE ON drivers FOR EACH ROW EXECUTE FUNCTION f('{id,rating}')"
        ),
        "trigger noting on public.drivers, which gets the name of the column",
    ),
    "a trigger of another table": (
        (
            "CREATE TABLE rides (id int);"
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN UPDATE drivers SET rating = 1; RETURN NEW; END';"
            "CREATE TRIGGER noting AFTER INSERT ON rides FOR EACH ROW EXECUTE FUNCTION f()"
        ),
        "function public.f()",
    ),
    "a trigger in which it may be another's": (
        (
            "CREATE TABLE notes (rating int);"
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN INSERT INTO notes (rating) VALUES (1); RETURN NEW; END';"
            "CREATE TRIGGER noting AFTER UPDATE ON drivers FOR EACH ROW EXECUTE FUNCTION f()"
        ),
        "trigger noting on public.drivers, whose function public.f() names the column",
    ),
}


@pytest.mark.parametrize(("made", "named"), GUESSED.values(), ids=GUESSED)
def test_what_may_need_the_column_is_told_and_force_is_enough(
    invoke: Invoke, applied: Callable[..., str], database: Database, made: str, named: str
) -> None:
    hotfix_id = applied()
    database.run_as_owner(made)
    text = f"These may fail without the column, so revert needs --force: {named}."
    assert invoke("plan", hotfix_id).response["notes"] == [{"code": "revert_dependents", "text": text}]
    outcome = invoke("revert", hotfix_id)
    assert (
        str(outcome.error)
        == f"{LOST}The code of these uses the column's name, and may fail without it:\n  {named}\n{FORCE_LINE}"
    )
    forced = invoke("revert", hotfix_id, **FORCE)
    assert forced.result == "reverted", forced.text
    text = f"These may fail without the column: {named}."
    assert forced.response["notes"] == [{"code": "revert_dependents", "text": text}]


def test_a_function_stays_known_when_only_its_trigger_is_dropped(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied(f"{NOTE}\n{TRIGGER}", f"DROP TRIGGER IF EXISTS noting ON drivers;\n{DROP}")
    outcome = invoke("revert", hotfix_id)
    assert outcome.text == (
        f"{LOST}The code of these uses the column's name, and may fail without it:\n  function public.note()"
    )


def test_what_another_schema_has_of_the_same_name_is_not_dropped_by_the_line(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied(
        f"{NOTE}\n{TRIGGER}", f"DROP TRIGGER IF EXISTS noting ON drivers;\nDROP FUNCTION IF EXISTS note();\n{DROP}"
    )
    database.run_as_owner(
        "CREATE SCHEMA other; ALTER FUNCTION note() SET SCHEMA other;"
        f"ALTER ROLE {database.user} SET search_path = other, public"
    )
    assert invoke("revert", hotfix_id).text.endswith("\n  function other.note()")


def test_what_needs_what_the_lines_drop_is_named_too(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    more = f"{NOTE}\n{TRIGGER}\nCREATE OR REPLACE VIEW ratings AS SELECT rating FROM drivers;"
    lines = "DROP TRIGGER noting ON drivers;\nDROP VIEW ratings;\nDROP FUNCTION note();"
    hotfix_id = applied(more, f"{lines}\n{DROP}")
    database.run_as_owner(
        "CREATE TABLE other (rating int); CREATE VIEW best AS SELECT * FROM ratings;"
        "CREATE TRIGGER noting BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION note()"
    )
    outcome = invoke("revert", hotfix_id, **FORCE)
    assert sorted(outcome.text.splitlines()[1:3]) == ["  trigger noting on public.other", "  view public.best"]


def test_of_hundreds_of_functions_the_first_are_named_and_the_rest_counted(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    database.run_as_owner(
        "DO $$ BEGIN FOR n IN 100..399 LOOP EXECUTE format("
        "'CREATE FUNCTION f%s() RETURNS bigint LANGUAGE sql AS ''SELECT count(rating) FROM drivers''', n);"
        " END LOOP; END $$"
    )
    outcome = invoke("revert", hotfix_id)
    *_, last, and_more = outcome.text.splitlines()
    assert (last, and_more) == ("  function public.f119()", "  and 280 more")
    assert len(outcome.line["guessed"]) == 200


# What happens between the look and the lock

MEANWHILE = {
    "an index": "CREATE INDEX by_rating ON drivers (rating)",
    "a trigger": f"{NOTE} {TRIGGER}",
    "a function's body": NOTE.replace("BEGIN", "BEGIN NEW.name := 'y';"),
    "a view": "CREATE VIEW ratings AS SELECT rating FROM drivers",
}


@pytest.mark.parametrize("made", MEANWHILE.values(), ids=MEANWHILE)
def test_what_comes_between_look_and_lock_is_seen_under_the_lock(
    invoke: Invoke,
    applied: Callable[..., str],
    database: Database,
    before_the_lock: Callable[[Callable[[], Any]], list[int]],
    made: str,
) -> None:
    hotfix_id = applied()
    if "BEGIN NEW.name" in made:
        database.run_as_owner(f"{NOTE.replace('NEW.rating', 'NEW.name')} {TRIGGER}")
    before_the_lock(lambda: database.run_as_owner(made))
    outcome = invoke("revert", hotfix_id)
    assert outcome.text == (
        f"Another session has changed what depends on {RATING} during this run, so {NAME} was not reverted. Nothing"
        " was changed."
    )
    assert has_rating(database)


def test_what_others_have_written_is_no_part_of_our_sql(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    hotfix_id = applied()
    database.run_as_owner(
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $f$BEGIN /* drivers.rating"
        " $pg_hotfix$; ' \" \\ CREATE TABLE public.hijacked (); */ END$f$"
    )
    outcome = invoke("revert", hotfix_id)
    assert outcome.result == "reverted", outcome.text
    assert database.run("SELECT to_regclass('public.hijacked')") == [[None]]


def test_a_body_in_no_encoding_can_be_looked_at(
    invoke: Invoke, applied: Callable[..., str], database: Database
) -> None:
    with database.server.connect() as admin:
        database.line.close()
        admin.run(f"DROP DATABASE {database.name} WITH (FORCE)")
        admin.run(
            f"CREATE DATABASE {database.name} OWNER {database.user} TEMPLATE template0 ENCODING 'SQL_ASCII'"
            " LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    database.run(f"ALTER SCHEMA public OWNER TO {database.user}")
    database.run_as_owner("CREATE TABLE drivers (id uuid PRIMARY KEY, name text NOT NULL)")
    hotfix_id = applied()
    database.run_as_owner(
        "DO $$ BEGIN EXECUTE 'CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS ''SELECT count(rating) /* '"
        " || convert_from('\\xe9', 'SQL_ASCII') || ' */ FROM drivers'''; END $$"
    )
    outcome = invoke("revert", hotfix_id)
    assert outcome.text == (
        f"{LOST}The code of these uses the column's name, and may fail without it:\n  function public.f()"
    )


def test_a_plan_of_what_is_missing_has_nothing_to_tell_of_its_way_back(
    invoke: Invoke, write_hotfix: WriteHotfix
) -> None:
    hotfix_id = write_hotfix(f"-- revert: {DROP}\n{ADD}", f"{RATING} smallint")
    assert invoke("plan", hotfix_id).response["notes"] == []


def test_the_trigger_that_was_left_behind_does_break_every_write(
    invoke: Invoke, applied: Callable[..., str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the refusals above are for: without them this is what happens."""
    monkeypatch.setattr(dependents, "tell_mention", lambda *_: (Mention.NONE, False))
    hotfix_id = applied(f"{NOTE}\n{TRIGGER}")
    assert invoke("revert", hotfix_id).result == "reverted"
    with pytest.raises(DatabaseError, match='record "new" has no field "rating"'):
        database.run_as_owner("UPDATE drivers SET name = 'z'")


def test_names_that_postgresql_has_cut_are_known_as_the_columns_own(
    invoke: Invoke, write_hotfix: WriteHotfix, database: Database
) -> None:
    for table, column in (("t" * 63, "c" * 63), ("t" * 20, "ä" * 30), ("ü" * 30, "c" * 20)):
        database.run_as_owner(f'CREATE TABLE "{table}" (id smallint PRIMARY KEY)')
        hotfix_id = write_hotfix(
            f'-- revert: ALTER TABLE "{table}" DROP COLUMN "{column}";\n'
            f'ALTER TABLE "{table}" ADD COLUMN IF NOT EXISTS "{column}" smallint UNIQUE CHECK ("{column}" > 0)'
            f' REFERENCES "{table}" (id);',
            f'public."{table}"."{column}" smallint',
        )
        assert invoke("apply", hotfix_id).result == "applied"
        outcome = invoke("revert", hotfix_id)
        assert outcome.result == "reverted", outcome.text
