"""Which trigger or function of the database refused a file. Its own message is not shown: it may quote row data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.quoting import quoted
from pg_hotfix.server.session import literal, read_as, with_names
from pg_hotfix.server.signals import LockNotAvailable
from pg_hotfix.server.sqlstates import WITHHELD, find_raisers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.server.session import Session

ENABLED = {"O": "ENABLE", "A": "ENABLE ALWAYS"}


@dataclass(frozen=True)
class Raiser:
    """A function, by its bare name and as SQL writes it, and a trigger that calls it: in words, and with its table. An
    event trigger has a name and a way in which it is enabled instead of a table."""

    name: str
    function: str
    trigger: str | None
    schema: str | None
    table: str | None
    event_trigger: str | None
    enabled: str | None

    @property
    def switch(self) -> tuple[str, str] | None:
        if not self.event_trigger:
            return None
        alter = f"ALTER EVENT TRIGGER {quoted(self.event_trigger)}"
        return f"{alter} DISABLE;", f"{alter} {ENABLED[self.enabled or 'O']};"


def name_trigger(session: Session, hotfix: Hotfix, error: errors.HotfixError) -> errors.HotfixError:
    """The same error, with the trigger or the function of the database that raised it; then the transaction is rolled
    back. The error stays as it is if the file's own code raised it, if its message is shown, or if several functions
    may have raised it, since the server names a function without its schema."""
    sqlstate, names = find_raisers(error.__cause__)
    if not names or WITHHELD not in error.message:
        return error
    session.roll_back()
    try:
        found = read_as(Raiser, session.query(with_names(find_raisers_sql(names))))
    except (errors.HotfixError, LockNotAvailable):
        return error
    # The context has the innermost function first, and the trigger's function further out.
    by_triggers = [one for name in names for one in found if one.name == name and one.trigger]
    suspects = [one for one in by_triggers if one.event_trigger or is_on_table_of(hotfix, one)] or by_triggers or found
    if len({one.function for one in suspects if one.name == suspects[0].name}) != 1:
        return error
    first, *others = (one for one in suspects if one.name == suspects[0].name)
    trigger, switch = (None, None) if others else (first.trigger, first.switch)
    return errors.refused_by_code(error, hotfix.id, sqlstate, first.function, trigger, switch)


def is_on_table_of(hotfix: Hotfix, one: Raiser) -> bool:
    """Whether the file names the trigger's table."""
    return any(named.name == one.table and named.schema in (None, one.schema) for named in hotfix.named_tables)


def find_raisers_sql(names: Sequence[str]) -> str:
    """Every function of these names, with each trigger that is enabled and calls it.

    https://www.postgresql.org/docs/current/catalog-pg-event-trigger.html
    """
    listed = ", ".join(f"{literal(name)}::pg_catalog.name" for name in names)
    return f"""
WITH function (oid, name, written) AS (
    SELECT p.oid, p.proname, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.proname)
        || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')'
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.proname IN ({listed})
), called (oid, words, schema, relation, event_trigger, enabled) AS (
    SELECT evtfoid, 'event trigger ' || pg_catalog.quote_ident(evtname) || ' (' || evtevent || ')', NULL, NULL, evtname,
        evtenabled
    FROM pg_catalog.pg_event_trigger WHERE evtenabled IN ('O', 'A')
    UNION ALL
    SELECT t.tgfoid, 'trigger ' || pg_catalog.quote_ident(t.tgname) || ' on ' || pg_catalog.quote_ident(n.nspname)
        || '.' || pg_catalog.quote_ident(c.relname), n.nspname, c.relname, NULL, NULL
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    -- What a partition has of its parent's is not told of its own.
    WHERE t.tgenabled IN ('O', 'A') AND NOT t.tgisinternal AND t.tgparentid = 0
)
SELECT f.name, f.written AS function, c.words AS trigger, c.schema, c.relation AS table, c.event_trigger, c.enabled
FROM function f LEFT JOIN called c ON c.oid = f.oid ORDER BY c.event_trigger, c.words"""
