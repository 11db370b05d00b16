"""Reads the expected columns from the catalog, without a lock on any table."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pg_hotfix import errors
from pg_hotfix.promises.column import catalog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg_hotfix.file.hotfix_file import Hotfix
    from pg_hotfix.promises.column.catalog import Column, ColumnType, Found
    from pg_hotfix.server.session import Session


@dataclass(frozen=True)
class Seen:
    """What was there at one moment: the expected columns, and their types as the server understands them. `referenced`
    are the tables that foreign keys of the columns refer to, by oid, as SQL names them; a DROP COLUMN locks them."""

    columns: tuple[Column, ...]
    types: tuple[ColumnType | None, ...]
    reverting: bool = False
    referenced: dict[int | None, str] = field(default_factory=dict)

    @property
    def matches(self) -> bool:
        return all(column.matches for column in self.columns)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do for the hotfix."""
        return all(map(self.is_as_wanted, self.columns))

    @property
    def state(self) -> str:
        """What the server compares with under the lock, to prove that nothing has changed."""
        return ",".join(column.found.state for column in self.columns)

    @property
    def state_wanted(self) -> str:
        """The state that the job must reach, in these tables and not in others that have taken their place."""
        return ",".join(f"{column.found.relation_oid}{'-' if self.reverting else ''}" for column in self.columns)

    def is_as_wanted(self, column: Column) -> bool:
        return column.actual == catalog.MISSING if self.reverting else column.matches


def look(session: Session, hotfix: Hotfix) -> Seen:
    """What is there now. No table was locked.

    Raises:
        RelationError: an expected table is missing, or is not a table. LockNotAvailable: another session holds it.
    """
    types = catalog.read_types(session, hotfix)
    ((text,),) = session.query_prepared(catalog.read_columns_sql(session, hotfix.expectations, types))
    _, found = catalog.parse_columns(text)
    referenced = catalog.find_referenced_tables(session, hotfix) if hotfix.reverting else {}
    seen = Seen(compare_all(hotfix, found), tuple(types), hotfix.reverting, referenced)
    for column in seen.columns:
        table = column.expectation.qualified_table
        kind = column.found.relation_kind
        if kind is None:
            raise errors.relation_missing(
                table, session.facts.name, catalog.find_similar_tables(session, column.expectation)
            )
        if kind not in catalog.TABLE_KINDS:
            raise errors.relation_of_other_kind(table, catalog.OTHER_KINDS.get(kind, "relation of an unknown kind"))
    return seen


def compare_all(hotfix: Hotfix, found: Sequence[Found]) -> tuple[Column, ...]:
    """Each expectation compared with what was found of it."""
    return tuple(catalog.compare(expectation, one) for expectation, one in zip(hotfix.expectations, found, strict=True))


def differing(seen: Seen) -> list[dict[str, Any]]:
    return [column.describe() for column in seen.columns if not seen.is_as_wanted(column)]


def hash_plan(session: Session, hotfix: Hotfix, seen: Seen) -> str:
    """A hash that changes with the file, the database and the state of its columns."""
    facts = session.facts
    states = [[column.expectation.name, column.found.relation_oid, column.actual] for column in seen.columns]
    seen_so = [hotfix.id, hotfix.sha256, facts.host, facts.port, facts.name, facts.database_oid, states]
    return hashlib.sha256(json.dumps(seen_so).encode()).hexdigest()
