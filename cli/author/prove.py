"""Hotfix files proved on a fresh database with filled tables, by the function's own run."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.author.added import ONCE_ONLY
from cli.author.columns import Name, drop_expected, expect_line, find_added, list_columns, tables_of, word_columns
from cli.author.fill import Filled, fill
from cli.author.footprint import Footprint, find_changes, find_rewritten, find_scanned, take_footprint
from cli.author.scratch import Scratch, Table, first_error, qualified, scratch_database, scratch_server
from cli.author.writes import try_writes
from cli.show import console
from laptop.errors import LocalError
from laptop.places import PROJECT, shown
from laptop.postgres import Server
from pg_hotfix.errors import HotfixError
from pg_hotfix.file.hotfix_file import Hotfix, as_revert, load_hotfix
from pg_hotfix.hotfix import apply, revert
from pg_hotfix.quoting import quoted
from pg_hotfix.report import Report

SQUAWK = Path(sys.executable).parent / "squawk"
WAY_BACK = "Let the revert lines drop what the file makes beside the column: triggers, functions, policies and views."
RESULTS = {True: ("ok", "green"), False: ("FAILED", "bold red")}


@dataclass(frozen=True)
class Finding:
    """What one check says of a file: what is so, or what is wrong and what to do."""

    check: str
    ok: bool
    text: str


@dataclass(frozen=True)
class Run:
    """What the function's own run did with a file, and the database before and after it."""

    report: Report
    before: Footprint
    after: Footprint
    unpromised: tuple[str, ...]
    columns_before: dict[Name, str]


def prove_files(files: Sequence[Path], schema: Path | None) -> int:
    """What each check says of each file was printed. Returns 1 if one of them failed, else 0.

    Raises: LocalError when nothing could be checked.
    """
    paths = [find_file(path) for path in files] or sorted((PROJECT / "sql").glob("*.sql"))
    with scratch_server() as server:
        failed = [path for path in paths if not show_findings(path, check_file(server, path, schema))]
    if failed:
        print(f"{len(failed)} of {len(paths)} files failed.", file=sys.stderr)
    return 1 if failed else 0


def find_file(typed: Path) -> Path:
    """The file of that path, or of that id in sql/.

    Raises: LocalError when there is none.
    """
    named = PROJECT / "sql" / f"{typed.name}.sql"
    found = next((path for path in (typed, named) if path.is_file()), None)
    if found is None:
        raise LocalError(f"There is no file {typed}. Name a file, such as sql/<id>.sql, or an id of sql/.")
    return found


def show_findings(path: Path, findings: Iterator[Finding]) -> bool:
    """The findings were printed as they came; returns whether all was well."""
    console.print(path.stem, style="bold")
    all_well = True
    for finding in findings:
        word, style = RESULTS[finding.ok]
        first, *rest = finding.text.splitlines()
        console.print(f"   {word:<6}  {finding.check:<8}  {first}", style=style)
        for line in rest:
            console.print(f"{'':21}{line}")
        all_well = all_well and finding.ok
    return all_well


def check_file(server: Server, path: Path, schema: Path | None = None) -> Iterator[Finding]:
    """What each check says of the file. Nothing is left of it in the server."""
    try:
        hotfix = load_hotfix(path.parent, path.stem)
    except HotfixError as error:
        yield Finding("file", ok=False, text=str(error))
        return
    yield check_words(path)
    tables = tables_of(hotfix)
    try:
        with scratch_database(server, tables, schema) as scratch:
            drop_expected(scratch, hotfix)
            yield describe_tables(scratch, {table: fill(scratch, table) for table in tables})
            writes = {table: try_writes(scratch, table) for table in tables} if hotfix.revert else {}
            run = run_once(scratch, hotfix)
            yield check_columns(run, schema or scratch.schema)
            yield check_rewrite(run, dict(hotfix.allowed))
            yield check_scan(run, dict(hotfix.allowed))
            yield check_second_run(scratch, hotfix, path, run.after)
            if hotfix.revert:
                yield check_revert(scratch, hotfix, run.columns_before, writes)
    except LocalError as error:
        yield Finding("tables", ok=False, text=str(error))
    except HotfixError as error:
        yield Finding("columns", ok=False, text=f"{type(error).__name__}: {error}")


def check_words(path: Path) -> Finding:
    command: Sequence[str | Path] = [SQUAWK, "--reporter=json", path.resolve()]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    try:
        said = json.loads(result.stdout)
    except ValueError:
        raise LocalError(f"squawk failed: {result.stderr.strip()}") from None
    lines = [f"line {one['line'] + 1}: {one['message']} {one['help'] or ''} ({one['rule_name']})" for one in said]
    return Finding("squawk", ok=not lines, text="\n".join(lines) or "nothing to say")


def describe_tables(scratch: Scratch, filled: dict[Table, Filled]) -> Finding:
    lines = []
    for table, result in filled.items():
        stub = f", a stub: {shown(scratch.schema)} does not have it" if qualified(table) in scratch.stubs else ""
        note = f", not filled: {result.refusal}" if result.refusal else ""
        lines.append(f"{qualified(table)} with {result.rows:,} rows{stub}{note}")
    return Finding("tables", ok=True, text="\n".join(lines))


def run_once(scratch: Scratch, hotfix: Hotfix) -> Run:
    """The function itself has applied the file.

    Raises: HotfixError when it would not.
    """
    names = list_columns(scratch)
    columns_before = word_all(scratch)
    before = take_footprint(scratch, dumped=False)
    with scratch.open_session() as session:
        report = apply(session, hotfix, scratch.open_session)
    after = take_footprint(scratch)
    promised = {(one.schema, one.table, one.column) for one in hotfix.expectations}
    added = [name for name in find_added(names, list_columns(scratch)) if name not in promised]
    with scratch.open_session() as session:
        lines = [expect_line(name, worded) for name, worded in word_columns(session, added).items()]
    return Run(report, before, after, tuple(lines), columns_before)


def word_all(scratch: Scratch) -> dict[Name, str]:
    names = list_columns(scratch)
    with scratch.open_session() as session:
        return word_columns(session, names)


def check_columns(run: Run, schema: Path) -> Finding:
    if run.unpromised:
        lines = ["It adds columns that it does not promise. Add to its head:", *run.unpromised]
        return Finding("columns", ok=False, text="\n".join(lines))
    if run.report.result != "applied":
        text = f"The columns are made by something else: {run.report.result}. Look what {shown(schema)} does."
        return Finding("columns", ok=False, text=text)
    names = ", ".join(column.expectation.name for column in run.report.columns)
    return Finding("columns", ok=True, text=f"missing before, as expected after: {names}")


def check_rewrite(run: Run, allowed: dict[str, str]) -> Finding:
    rewritten = find_rewritten(run.before, run.after)
    return judge(
        "rewrite",
        [f"{name} is rewritten under ACCESS EXCLUSIVE: nobody can read it meanwhile." for name in rewritten],
        "A constant default, now() included, is stored in the catalog only: add the column with one or with none, and"
        " fill it later.",
        allowed,
    )


def check_scan(run: Run, allowed: dict[str, str]) -> Finding:
    rewritten = find_rewritten(run.before, run.after)
    scanned = {name: rows for name, rows in find_scanned(run.before, run.after).items() if name not in rewritten}
    return judge(
        "scan",
        [f"{name} is read from end to end under the lock, all {rows:,} rows of it." for name, rows in scanned.items()],
        "NOT NULL needs no scan in ADD COLUMN with a constant default, nor does a constraint that is NOT VALID: leave"
        " the rest to a migration.",
        allowed,
    )


def judge(check: str, found: Sequence[str], advice: str, allowed: dict[str, str]) -> Finding:
    if found and check not in allowed:
        mark = f"Or say why it does no harm:  -- allow: {check} <reason>"
        return Finding(check, ok=False, text="\n".join([*found, advice, mark]))
    if found:
        return Finding(check, ok=True, text=f"allowed: {allowed[check]}")
    if check in allowed:
        return Finding(check, ok=False, text=f"There is none: take the line out.  -- allow: {check} {allowed[check]}")
    return Finding(check, ok=True, text="none")


def check_second_run(scratch: Scratch, hotfix: Hotfix, path: Path, before: Footprint) -> Finding:
    """The function runs nothing; what the file would do, were it run all the same, psql tells."""
    with scratch.open_session() as session:
        again = apply(session, hotfix, scratch.open_session)
    schemas = ", ".join(dict.fromkeys(quoted(one.schema) for one in hotfix.expectations))
    arguments = ["--single-transaction", f"--command=SET search_path = {schemas}, public", f"--file={path.resolve()}"]
    result = scratch.psql(*arguments)
    if result.returncode != 0:
        text = f"It can't run twice: {first_error(result.stderr)}\n{ONCE_ONLY}"
        return Finding("again", ok=False, text=text)
    changes = list(find_changes(before, take_footprint(scratch)))
    if changes:
        text = "\n".join(["It does its work again when it runs again:", *changes[:5], ONCE_ONLY])
        return Finding("again", ok=False, text=text)
    return Finding("again", ok=True, text=f"{again.result}; run by psql all the same, it changes nothing")


def check_revert(
    scratch: Scratch, hotfix: Hotfix, columns_before: dict[Name, str], writes_before: dict[Table, dict[str, str | None]]
) -> Finding:
    """The function has reverted the file, which left every other column as it was and every write as good as it was,
    and applied it again."""
    back, results = as_revert(hotfix), []
    try:
        with scratch.open_session() as session:
            # What the file itself wrote into the column is no reason against it here.
            results += [revert(session, back, scratch.open_session, force=True).result for _ in range(2)]
        left = word_all(scratch)
        broken = [
            f"{kind} of {qualified(table)}: {refusal}"
            for table, before in writes_before.items()
            for kind, refusal in try_writes(scratch, table).items()
            if refusal and refusal != before.get(kind)
        ]
        with scratch.open_session() as session:
            results.append(apply(session, hotfix, scratch.open_session).result)
    except HotfixError as error:
        return Finding("revert", ok=False, text=f"{type(error).__name__}: {error}")
    changed = [
        f"{qualified(name[:2])}.{name[2]}  was {columns_before.get(name, 'not there')}, is {left.get(name, 'gone')}"
        for name in dict.fromkeys([*columns_before, *left])
        if columns_before.get(name) != left.get(name)
    ]
    if changed:
        lines = ["The way back leaves other columns than were there before the file:", *changed]
        return Finding("revert", ok=False, text="\n".join(lines))
    if broken:
        advice = (
            "Let the revert lines drop what the file makes beside the column: triggers, functions, policies and views."
        )
        lines = ["After the way back rows can't be written as before the file:", *broken, advice]
        return Finding("revert", ok=False, text="\n".join(lines))
    text = f"{', '.join(results)}; every other column is as before, and a row can be added, changed and deleted"
    return Finding("revert", ok=True, text=text)
