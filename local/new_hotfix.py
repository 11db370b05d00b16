"""`make new`: the next file of sql/, with its expect lines worked out by running its SQL on a throw-away database."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from local.added import Added, find_added_columns
from local.check_sql import check_file
from local.errors import LocalError
from local.places import PROJECT, STATE, shown
from local.postgres import Server
from local.scratch import SCHEMA, scratch_server
from pg_hotfix.file.hotfix_file import cut_statements, cut_tokens
from pg_hotfix.promises.column.line import Unreadable

SQL = PROJECT / "sql"
NAME = re.compile(r"[a-z0-9_]{1,200}")


@dataclass(frozen=True)
class Draft:
    """What was asked for. `allow` is such as "rewrite the table has 300 rows"."""

    name: str
    sql: str
    reason: str
    allow: str
    schema: Path | None


def main(environment: Mapping[str, str]) -> int:
    try:
        draft = read_draft(environment, SQL)
        with scratch_server() as server:
            added = find_added_columns(server, draft.sql, draft.schema)
            hotfix_id = f"{datetime.now(UTC):%Y%m%d%H%M%S}_{draft.name}"
            content = write_content(draft, added)
            prove(server, hotfix_id, content, draft.schema)
        path, event = write_files(hotfix_id, content, draft)
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(describe(path, event, content, draft, added))
    return 0


def read_draft(environment: Mapping[str, str], folder: Path) -> Draft:
    """The request, with nothing in it that a run is needed to refuse.

    Raises: LocalError with what to write instead.
    """
    name, sql = environment.get("NAME", ""), environment.get("HOTFIX_SQL", "").strip()
    example = "make new NAME=add_drivers_rating SQL='ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating smallint'"
    if not name or not sql:
        raise LocalError(f"{'NAME' if not name else 'SQL'} is missing:  {example}")
    if not NAME.fullmatch(name):
        better = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:200] or "add_drivers_rating"
        raise LocalError(f"{name!r} is no name of a hotfix: it has lower-case letters, digits and _.  NAME={better}")
    if taken := sorted(folder.glob(f"{'[0-9]' * 14}_{name}.sql")):
        raise LocalError(f"{shown(taken[0])} has this name already: edit that file, or choose another NAME.")
    reason, allow = (environment.get(key, "").strip() for key in ("HOTFIX_REASON", "HOTFIX_ALLOW"))
    if re.search(r"[\r\n]", reason + allow):
        raise LocalError("REASON and ALLOW are one line each: put more into the file itself, once it is there.")
    try:
        found = cut_tokens(sql.encode(errors="surrogateescape"))[1]
        cut_statements(found)
    except Unreadable as error:
        raise LocalError(f"The SQL {error.what}. {error.advice}") from None
    if [token.text for token in found if token.kind not in ("space", "comment")][-1] != ";":
        sql += "\n;" if found[-1].kind == "comment" else ";"
    schema = environment.get("SCHEMA")
    return Draft(name, sql, reason, allow, Path(schema) if schema else None)


def write_content(draft: Draft, added: Added) -> bytes:
    reason = [f"-- {draft.reason}"] if draft.reason else []
    allow = [f"-- allow: {draft.allow}"] if draft.allow else []
    return "\n".join([*reason, *added.expect_lines, *added.revert_lines, *allow, draft.sql, ""]).encode()


def prove(server: Server, hotfix_id: str, content: bytes, schema: Path | None) -> None:
    """The file passes `make check-sql`.

    Raises: LocalError with what it would say.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{hotfix_id}.sql"
        path.write_bytes(content)
        failed = [finding for finding in check_file(server, path, schema) if not finding.ok]
    if failed:
        lines = [f"  {one.check}: {line}" for one in failed for line in one.text.splitlines()]
        raise LocalError(
            "\n".join(
                [
                    "The file would not pass `make check-sql`, so it was not written:",
                    *lines,
                    "Change the SQL. Or, to allow a rewrite or a scan:  ALLOW='rewrite <reason>'",
                ]
            )
        )


def write_files(hotfix_id: str, content: bytes, draft: Draft) -> tuple[Path, Path]:
    """The hotfix is in sql/, and an event that asks for its plan is at hand, but not in the repository: an event holds
    nothing that its id does not say."""
    path, event = SQL / f"{hotfix_id}.sql", STATE / "events" / f"{hotfix_id}.json"
    with path.open("xb") as file:
        file.write(content)
    event.parent.mkdir(parents=True, exist_ok=True)
    request = {"hotfix": hotfix_id, "action": "plan"} | ({"reason": draft.reason} if draft.reason else {})
    event.write_text(json.dumps(request, indent=2, ensure_ascii=False) + "\n")
    return path, event


def describe(path: Path, event: Path, content: bytes, draft: Draft, added: Added) -> str:
    lines = [shown(path), *(f"   {line}" for line in content.decode().splitlines())]
    if added.stubs:
        lines.append(f"Proved on a stub only: {shown(SCHEMA)} does not have {' and '.join(added.stubs)}. Add it there.")
    schema = f" SCHEMA={draft.schema}" if draft.schema else ""
    return "\n".join(
        [
            *lines,
            "Next:",
            f"   make check-sql SQL={shown(path)}{schema}",
            f"   make invoke EVENT={shown(event)}",
            "   a review, a deploy, and then",
            f"   make hotfix ENV=prod ID={path.stem} ACTION=plan",
            f"   make formal-migration ID={path.stem} TO=../app/prisma/migrations",
        ]
    )


if __name__ == "__main__":
    sys.exit(main(os.environ))
