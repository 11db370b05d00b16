"""The files that were deployed with the function, read before anything is contacted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg_hotfix import errors
from pg_hotfix.file.hotfix_file import ExpectedSchema, as_revert, list_hotfixes, load_hotfix, load_schema

if TYPE_CHECKING:
    from pathlib import Path

    from pg_hotfix.file.hotfix_file import Hotfix


def load_list(sql_dir: Path) -> ExpectedSchema:
    """The list that the gate compares with."""
    schema = load_schema(sql_dir)
    if schema is None:
        raise errors.no_list(ExpectedSchema.file)
    return schema


def load_hotfixes(sql_dir: Path, hotfix_id: str | None, *, reverting: bool = False) -> list[Hotfix]:
    """The file with this id, or all of them."""
    if not hotfix_id:
        load_schema(sql_dir)  # `check` reads the list as well, if there is one.
    ids = [hotfix_id] if hotfix_id else list_hotfixes(sql_dir)
    if not ids:
        raise errors.bad_setting("SQL_DIR", f"contains no hotfix ({sql_dir})", "Deploy with at least one file in sql/.")
    hotfixes = [load_hotfix(sql_dir, one) for one in ids]
    return [as_revert(hotfix) for hotfix in hotfixes] if reverting else hotfixes
