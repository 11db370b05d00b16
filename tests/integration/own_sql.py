"""Judges every message that the function sends: whatever another role has created, it means PostgreSQL's own."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pglast import ast, parse_sql
from pglast.visitors import Skip, Visitor

from pg_hotfix.server.pinned import END_OF_FILE, PIN, READ_OWN

# A comment, a name, a body, or a value, which may be a number.
QUOTED = re.compile(
    r"""(?s:--[^\n]*|"[^"]*"|\$(\w*)\$.*?\$\1\$|(?P<value>\b[eE]'(?:[^'\\]|\\.)*'|'[^']*')|(?P<number>\b\d[\d.]*\b))"""
)
# The session's own settings, set right before a file's statements; and END_OF_FILE, right after them.
OWN_SETTINGS = re.compile(r";SELECT pg_catalog\.set_config\('search_path', .*?, false\);\n", re.DOTALL)


class UnsafeError(AssertionError):
    """A message whose names another role may have a say in."""


def judge_session(messages: list[str]) -> None:
    """Every message of one session, in order, is safe."""
    pinned = False
    for message in messages:
        ours, pinned = split_ours(message, pinned)
        for text in ours:
            judge_pinned(without_values(text))


def without_values(sql: str) -> str:
    """The statements with '...' for each value, as no value but the name of this setting is judged: what differs in
    values only need not be parsed again."""
    return QUOTED.sub(replace_value, sql)


def replace_value(found: re.Match[str]) -> str:
    if found["number"]:
        return "1"
    return "'...'" if found["value"] and "search_path" not in found[0] else found[0]


def split_ours(message: str, pinned: bool) -> tuple[list[str], bool]:
    """The parts of the message that are not a file's, all of them to run under PIN, and whether PIN holds after it."""
    if not pinned:
        if message == READ_OWN:
            judge_unpinned(message)
            return [], False
        if not message.startswith(f"{PIN};"):
            raise UnsafeError(f"runs before the settings are pinned: {message}")
        judge_unpinned(PIN)
        return [message.removeprefix(f"{PIN};")], True
    before, of_file, after = message.partition(f"\n;{END_OF_FILE};")
    if not of_file:
        return [message], True
    own = OWN_SETTINGS.search(before)
    if not own:
        raise UnsafeError(f"runs a file's statements without the session's own settings: {message}")
    judge_unpinned(own[0].strip(";\n"))
    return [before[: own.start()], after], True


@lru_cache(maxsize=10_000)
def judge_unpinned(sql: str) -> None:
    """One SELECT that only calls functions of pg_catalog by their whole name, with constants: nothing of it is looked
    up along a search_path."""
    (raw,) = parse_sql(sql)
    if not isinstance(raw.stmt, ast.SelectStmt) or raw.stmt.fromClause or raw.stmt.whereClause:
        raise UnsafeError(f"is more than a SELECT of function calls: {sql}")

    class Judge(Visitor):
        def visit(self, _: Any, node: Any) -> None:
            if isinstance(node, ast.FuncCall):
                if (node.funcname or ())[0].sval != "pg_catalog":
                    raise UnsafeError(f"calls a function without its schema: {sql}")
            elif not isinstance(
                node, ast.RawStmt | ast.SelectStmt | ast.ResTarget | ast.A_Const | ast.String | ast.Boolean
            ):
                raise UnsafeError(f"uses {type(node).__name__} before the settings are pinned: {sql}")

    Judge()(raw)


@lru_cache(maxsize=10_000)
def judge_pinned(sql: str) -> None:
    """Statements for an empty search_path: they change nothing of that, and name every table with its schema, so that
    not even one of the session's own temporary tables is meant."""

    class Judge(Visitor):
        def __init__(self, statement: Any) -> None:
            super().__init__()
            self.statement = statement
            self.named = {cte.ctename for cte in find_all(statement, ast.CommonTableExpr)}

        def visit_RangeVar(self, _: Any, node: Any) -> None:  # noqa: N802 - pglast's own naming
            if not node.schemaname and node.relname not in self.named:
                raise UnsafeError(f"names the table {node.relname} without its schema: {sql}")

        def visit_FuncCall(self, _: Any, node: Any) -> None:  # noqa: N802 - pglast's own naming
            name = node.funcname[-1].sval
            if node.funcname[0].sval != "pg_catalog":
                raise UnsafeError(f"calls {name} without its schema: {sql}")
            if name == "set_config" and node.args[0].val.sval.lower() == "search_path":
                raise UnsafeError(f"changes the search_path: {sql}")

        def visit_RangeTableFuncCol(self, _: Any, node: Any) -> Any:  # noqa: N802 - pglast's own naming
            """The expression of an expect line is parsed, and never run: see promises/column/expression.py."""
            return Skip if node.coldefexpr and isinstance(self.statement.stmt, ast.PrepareStmt) else None

        def visit_VariableSetStmt(self, _: Any, node: Any) -> None:  # noqa: N802 - pglast's own naming
            if (node.name or "search_path").lower() == "search_path":
                raise UnsafeError(f"changes the search_path: {sql}")

    for raw in parse_sql(sql):
        Judge(raw)(raw)


def find_all(statement: Any, kind: type) -> list[Any]:
    found: list[Any] = []

    class Find(Visitor):
        def visit(self, _: Any, node: Any) -> None:
            if isinstance(node, kind):
                found.append(node)

    Find()(statement)
    return found
