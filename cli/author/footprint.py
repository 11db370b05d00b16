"""What a run leaves behind in a database: in its schema, its files, its counters."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff

from cli.author.scratch import Scratch
from laptop.binaries import binary_directory
from laptop.errors import LocalError
from laptop.incident import Login
from laptop.psql import psql_environment

# https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ALL-TABLES-VIEW
# The file node changes when a table is rewritten or an index is rebuilt.
RELATIONS = """
SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text, c.relfilenode::bigint,
    coalesce(s.seq_scan, 0), coalesce(s.seq_tup_read, 0), coalesce(s.n_live_tup, 0),
    coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del, 0),
    (SELECT string_agg(a.attnum || ' ' || a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'm', 'i') AND n.nspname !~ '^pg_'
"""
OTHERS = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Relation:
    """A table or an index. `columns` tells with its numbers a column that was dropped and made again from one that
    stayed."""

    kind: str
    file: int
    scans: int
    rows_read: int
    rows: int
    rows_written: int
    columns: str | None


@dataclass(frozen=True)
class Footprint:
    """`dump` is the whole schema as pg_dump prints it, where it was asked for."""

    relations: dict[str, Relation]
    dump: str


def take_footprint(scratch: Scratch, *, dumped: bool = True) -> Footprint:
    """The database as it is when every other session has ended: a server process hands in its counters as it ends."""
    deadline = time.monotonic() + SETTLE_SECONDS
    with scratch.connect() as admin:
        while admin.run(OTHERS):
            if time.monotonic() > deadline:
                raise LocalError(f"A session stays in {scratch.name}: stop what else works in the scratch server.")
            time.sleep(0.01)
        relations = {name: Relation(*facts) for name, *facts in admin.run(RELATIONS)}
    return Footprint(relations, dump(scratch) if dumped else "")


def find_rewritten(before: Footprint, after: Footprint) -> list[str]:
    """The tables and indexes whose files were rewritten; of a table not also its indexes."""
    rewritten = [name for name, old in before.relations.items() if changed(after, name, old.file) and old.kind != "i"]
    return rewritten or [name for name, old in before.relations.items() if changed(after, name, old.file)]


def changed(after: Footprint, name: str, file: int) -> bool:
    return name in after.relations and after.relations[name].file != file


def find_scanned(before: Footprint, after: Footprint) -> dict[str, int]:
    """The tables that were read from end to end, and how many rows they have."""
    scanned = {}
    for name, old in before.relations.items():
        new = after.relations.get(name)
        if new and new.scans > old.scans and new.rows_read - old.rows_read >= old.rows:
            scanned[name] = old.rows
    return scanned


def find_changes(before: Footprint, after: Footprint) -> Iterator[str]:
    """What is no longer as it was, a few words each."""
    diff = unified_diff(before.dump.splitlines(), after.dump.splitlines(), n=0, lineterm="")
    for line in list(diff)[2:]:
        if not line.startswith("@@") and line[1:].strip() and not line[1:].startswith("--"):
            yield line
    for name, old in before.relations.items():
        new = after.relations.get(name)
        if new is None:
            continue
        if new.rows_written != old.rows_written:
            yield f"{new.rows_written - old.rows_written} rows of {name} written"
        if new.columns != old.columns:
            yield f"columns of {name} dropped and made again"
        if new.file != old.file:
            yield f"{name} rebuilt"


def dump(scratch: Scratch) -> str:
    command = [str(binary_directory() / "pg_dump"), "--schema-only", "--restrict-key=x"]
    admin = Login(scratch.server.admin_user, scratch.server.admin_password)
    environment = psql_environment(scratch.server, admin, scratch.name)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LocalError(f"pg_dump failed: {result.stderr.strip()}")
    return result.stdout
