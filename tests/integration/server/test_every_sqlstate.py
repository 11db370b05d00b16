"""Every SQLSTATE, RAISEd on the real server in the file's own SQL and at COMMIT, ends as the name of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sqlstates import ALL, IN_A_FILE, name_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database, Outcome

    Invoke = Callable[..., Outcome]
    WriteHotfix = Callable[..., str]

pytestmark = pytest.mark.long_too

ADD = "ALTER TABLE drivers ADD COLUMN IF NOT EXISTS note text;"
# Unless every code is wanted: one of each class, and those with a name of their own. The other two codes of locks would
# be waited for as long as 40001.
SOME = {*{code[:2]: code for code in ALL}.values(), *(code for code in IN_A_FILE if len(code) == 5)} - {
    "40P01",
    "55P03",
}
RAISE = "DO $$ BEGIN RAISE EXCEPTION '%', (SELECT name FROM drivers LIMIT 1) USING ERRCODE = '{}'; END $$;"
# The trigger takes the code from the row, so that one trigger serves them all.
AT_COMMIT = """
CREATE TABLE codes (code text);
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'Confidential at COMMIT' USING ERRCODE = NEW.code; END $$;
CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON codes DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION fail()
"""


@pytest.mark.parametrize("statement", [RAISE, "INSERT INTO codes VALUES ('{}');"], ids=["in the file", "at COMMIT"])
def test_every_sqlstate_ends_as_its_name_and_changes_nothing(
    invoke: Invoke,
    write_hotfix: WriteHotfix,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    statement: str,
) -> None:
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "1")
    database.run_as_owner(f"{AT_COMMIT}; INSERT INTO drivers VALUES (gen_random_uuid(), 'Confidential')")
    seen = {}
    for sqlstate in sorted(ALL if request.config.getoption("--long") else SOME):
        outcome = invoke("apply", write_hotfix(f"{ADD} {statement.format(sqlstate)}", "public.drivers.note text"))
        assert "Nothing was changed" in outcome.text
        assert "Confidential" not in outcome.text + str(outcome.logs)
        seen[sqlstate] = outcome.error_name
    assert seen == {sqlstate: name_in(IN_A_FILE, sqlstate) for sqlstate in seen}
    assert database.run("SELECT * FROM codes") == []
    assert invoke("plan", write_hotfix(ADD, "public.drivers.note text")).result == "would_apply"
