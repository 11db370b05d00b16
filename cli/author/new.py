"""The next file of sql/, with its expect lines worked out by running its SQL on a throw-away database."""

import json
import os
import re
import shlex
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cli.author.added import Added, find_added_columns
from cli.author.prove import check_file
from cli.author.scratch import SCHEMA, scratch_server
from cli.program import PROGRAM
from laptop.errors import LocalError
from laptop.places import PROJECT, STATE, shown
from laptop.postgres import Server
from pg_hotfix.file.hotfix_file import cut_statements, cut_tokens
from pg_hotfix.promises.column.line import Unreadable

SQL = PROJECT / "sql"
EXAMPLE = f"{PROGRAM} new add_drivers_rating --sql 'ALTER TABLE drivers ADD COLUMN IF NOT EXISTS rating smallint'"
NAME = re.compile(r"[a-z0-9_]{1,200}")


@dataclass(frozen=True)
class Draft:
    """What was asked for. `allow` is such as "rewrite the table has 300 rows"."""

    name: str
    sql: str
    reason: str
    allow: str
    schema: Path | None


def write_new(name: str, sql: str, reason: str, allow: str, schema: Path | None) -> int:
    """The hotfix is in sql/, proved, and was printed with what to do next. Returns 0.

    Raises: LocalError with what to write instead; nothing was written.
    """
    draft = read_draft(Draft(name, read_sql(sql), reason.strip(), allow.strip(), schema), SQL)
    with scratch_server() as server:
        added = find_added_columns(server, draft.sql, draft.schema)
        hotfix_id = f"{datetime.now(UTC):%Y%m%d%H%M%S}_{draft.name}"
        content = write_content(draft, added)
        prove(server, hotfix_id, content, draft.schema)
    path, event = write_files(hotfix_id, content, draft)
    print(describe(path, event, content, draft, added))
    return 0


def read_sql(typed: str) -> str:
    """The SQL as typed, or of the file after an @."""
    if not typed.startswith("@"):
        return typed
    try:
        return Path(typed[1:]).read_bytes().decode(errors="surrogateescape")
    except OSError as error:
        raise LocalError(f"{typed[1:]} cannot be read: {error.strerror}.") from error


def read_draft(draft: Draft, folder: Path) -> Draft:
    """The draft with its last semicolon, and with nothing in it that a run is needed to refuse.

    Raises: LocalError with what to write instead.
    """
    name, sql = draft.name, draft.sql.strip()
    if not sql:
        raise LocalError(f"--sql is empty:  {EXAMPLE}")
    if not NAME.fullmatch(name):
        better = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:200] or "add_drivers_rating"
        raise LocalError(
            f"{name!r} cannot name a hotfix: a name has lower-case letters, digits and _.  {PROGRAM} new {better} ..."
        )
    if re.match(r"[0-9]{14}_", name):
        raise LocalError(f"{name!r} begins with a time, which `new` writes itself:  {PROGRAM} new {name[15:]} ...")
    if taken := sorted(folder.glob(f"{'[0-9]' * 14}_{name}.sql")):
        raise LocalError(f"{shown(taken[0])} has this name already: edit that file, or choose another name.")
    if re.search(r"[\r\n]", draft.reason + draft.allow):
        raise LocalError("--reason and --allow are one line each: put more into the file itself, once it is written.")
    try:
        found = cut_tokens(sql.encode(errors="surrogateescape"))[1]
        cut_statements(found)
    except Unreadable as error:
        raise LocalError(f"The SQL {error.what}. {error.advice}") from None
    if [token.text for token in found if token.kind not in ("space", "comment")][-1] != ";":
        sql += "\n;" if found[-1].kind == "comment" else ";"
    return replace(draft, sql=sql)


def write_content(draft: Draft, added: Added) -> bytes:
    reason = [f"-- {draft.reason}"] if draft.reason else []
    allow = [f"-- allow: {draft.allow}"] if draft.allow else []
    return "\n".join([*reason, *added.expect_lines, *added.revert_lines, *allow, draft.sql, ""]).encode()


def prove(server: Server, hotfix_id: str, content: bytes, schema: Path | None) -> None:
    """The file passes `./pg-hotfix prove`.

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
                    "The file was not written, because it would not pass `prove`:",
                    *lines,
                    "Change the SQL. Or, to allow a rewrite or a scan:  --allow 'rewrite <reason>'",
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
    event.write_text(json.dumps(request, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path, event


def typed(path: Path) -> str:
    """The path as one types it in the current directory."""
    return shlex.quote(os.path.relpath(path))


def describe(path: Path, event: Path, content: bytes, draft: Draft, added: Added) -> str:
    lines = [shown(path), *(f"   {line}" for line in content.decode().splitlines())]
    if added.stubs:
        lines.append(f"Proved on a stub only: {shown(SCHEMA)} does not have {' and '.join(added.stubs)}. Add it there.")
    schema = f" --schema {shlex.quote(str(draft.schema))}" if draft.schema else ""
    return "\n".join(
        [
            *lines,
            "Next:",
            f"   {PROGRAM} prove {typed(path)}{schema}",
            f"   {PROGRAM} invoke {typed(event)}",
            "   a review, a deploy, and then",
            f"   {PROGRAM} plan {path.stem} --env prod",
            f"   {PROGRAM} formalize {path.stem} --to ../app/prisma/migrations",
        ]
    )
