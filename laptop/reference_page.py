"""`make reference`: writes docs/reference.md from the function's code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from laptop.functions import errors, request, results
from laptop.places import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PAGE = PROJECT / "docs" / "reference.md"

# Key, unit or type, meaning. A dot leads into an object, [] into the objects of a list.
RESPONSE = (
    ("summary", "text", "The result in a sentence."),
    ("result", "word", "One of the results below."),
    ("objects[].kind", "word", "`column`."),
    ("objects[].name", "text", "The column as an expect line writes it, such as `public.drivers.active_since`."),
    ("objects[].step", "number", "The number of the file's step, from 1."),
    ("objects[].schema", "text", "Schema, as PostgreSQL stores it."),
    ("objects[].table", "text", "Table, as PostgreSQL stores it."),
    ("objects[].column", "text", "Column, as PostgreSQL stores it."),
    ("objects[].expected", "text", "The rest of the expect line, in PostgreSQL's words."),
    ("objects[].actual", "text", "What is there, as the rest of an expect line, or `missing`."),
    ("objects[].matches", "boolean", "Whether the column is as expected."),
    ("objects[].changed", "boolean", "Whether this run made, or dropped, the column."),
    ("steps[].title", "text or null", "Title of the step. A file has one step, without a title."),
    ("steps[].needed", "boolean", "Whether something was missing, or was to be dropped."),
    ("steps[].result", "word or null", "`applied` or `skipped`; null in a plan that would apply."),
    ("steps[].locks[]", "text", "Lock and table, such as `ACCESS EXCLUSIVE on public.drivers`."),
    ("steps[].lock_held_ms", "ms", "How long the step held its locks, at most."),
    ("steps[].progress", "null", "Reserved for steps that go on after the answer."),
    ("tables[].schema", "text", "Schema of the table."),
    ("tables[].table", "text", "Table."),
    ("tables[].kind", "word", "`table` or `partitioned table`."),
    ("tables[].owner", "text", "Role that owns the table."),
    ("tables[].estimated_rows", "rows", "The server's estimate; -1 if the table was never analyzed."),
    ("tables[].estimated_bytes", "bytes", "The server's estimate."),
    ("database.host", "text", "Host that the function connects to."),
    ("database.port", "number", "Port."),
    ("database.name", "text", "Database."),
    ("database.user", "text", "Role that logs in."),
    ("database.server_version", "text", "Version of PostgreSQL."),
    ("database.tls", "text", "Version of TLS; certificate and host name are verified."),
    ("attempts", "number", "How often the run tried to take the lock."),
    ("lock_wait_ms", "ms", "How long the run waited for the lock, outside the lock queue most of the time."),
    ("lock_held_ms", "ms", "How long the run held the lock, at most."),
    ("longest_stall_ms", "ms", "How long another session waited behind this run, at most."),
    ("limits", "ms by name", "The time limits in force, by the server's names for them."),
    ("blockers[].pid", "number or null", "Process with a lock in the way; null for a prepared transaction."),
    ("blockers[].user", "text or null", "Its role."),
    ("blockers[].application_name", "text or null", "Its `application_name`; null without `pg_read_all_stats`."),
    ("blockers[].state", "text or null", "Its state in pg_stat_activity; null without `pg_read_all_stats`."),
    ("blockers[].transaction_seconds", "s or null", "Age of its transaction; null without `pg_read_all_stats`."),
    ("blockers[].lock_mode", "text", "The strongest lock that it holds or awaits."),
    ("blockers[].granted", "boolean", "Whether it holds that lock, or awaits it."),
    ("blockers[].waiting", "boolean", "Whether it waits for any lock itself."),
    ("blockers[].table", "text or null", "Table of that lock; null for the lock of Prisma Migrate."),
    ("blockers[].prepared_transaction", "text or null", "Name of the prepared transaction."),
    ("blockers[].autovacuum", "text or null", "Kind of the autovacuum, if it is one."),
    ("blockers[].waits_for[]", "number", "Processes that it waits for, the nearest first; 0: a prepared transaction."),
    ("blockers[].text", "text", "All of this in words."),
    ("sql", "text or null", "What was run, or would run."),
    ("revert", "text or null", "The SQL of the file's revert lines."),
    ("sql_sha256", "text or null", "SHA-256 of the file; Prisma's checksum of the same file."),
    ("plan_hash", "text or null", "Binds an apply to this plan: file, database, and state of the columns."),
    ("hotfixes[]", "text", "Ids that the run was about."),
    ("prisma", "object or null", "null in `check` and `gate`."),
    ("prisma.table", "text or null", "Where Prisma keeps its history."),
    ("prisma.state", "word", "State of the hotfix there, such as `recorded` or `not_recorded`."),
    ("prisma.blocked_by[]", "text", "Failed migrations, which stop every deploy."),
    ("prisma.next_deploy", "text", "What the next `prisma migrate deploy` does."),
    ("prisma.recorded_here", "boolean", "Whether this run wrote the row."),
    ("notes[].code", "word", "One of `column_grants`, `trigger_whole_row`, `revert_dependents`."),
    ("notes[].text", "text", "The same in words."),
    ("hotfix", "text or null", "The id of the request."),
    ("action", "word", "The action of the request."),
    ("caller", "word", "`direct`, `eventbridge`, `step_functions`, `runbook` or `ci`. Self-declared."),
    ("requested_by", "text or null", "As in the request."),
    ("reason", "text or null", "As in the request."),
    ("request_id", "text", "Lambda's id of the invocation."),
    ("started_at", "RFC 3339", "When the invocation began, UTC."),
    ("finished_at_ms", "ms", "When it ended, since 1970, UTC."),
    ("duration_ms", "ms", "How long it took."),
)
# What a failure logs beside the request and the times.
FAILURE = (
    ("error", "word", "The error's name."),
    ("retryable", "boolean", "Whether the state machine tries again."),
    ("advice", "text", "The whole text of the error. Its last line is the command to type next."),
    ("blockers", "objects", "With LockBusyError: as in the response."),
    ("attempts", "number", "With LockBusyError: how often the run tried to take the lock."),
    ("lock_wait_ms", "ms", "With LockBusyError: how long the run waited."),
    ("longest_stall_ms", "ms", "With LockBusyError: how long another session waited behind this run, at most."),
    ("columns", "objects", "With MismatchError: the columns that differ, as in the response."),
    ("trigger", "text", "The trigger whose function refused the SQL."),
    ("refusal", "text", "What the server said about a catalog query."),
    ("staying", "texts", "With RevertRefusedError: what would stay and needs a column."),
    ("going", "texts", "With RevertRefusedError: what PostgreSQL would drop with a column."),
    ("guessed", "texts", "With RevertRefusedError: what may fail without a column."),
    ("limits", "ms by name", "The time limits in force."),
)
# Beside those of the results.
METRICS = {
    "Failed": ("Count", "A run ended in an error."),
    "LockBusy": ("Count", "A run ended in LockBusyError."),
    "LockWaitMs": ("Milliseconds", "How long a run waited for the lock, if it tried to take it."),
    "LockHeldMs": ("Milliseconds", "How long a run held the lock at most, if it tried to take it."),
    "DurationMs": ("Milliseconds", "How long a run took."),
}
# Name, default, meaning.
ENVIRONMENT = (
    ("DB_SECRET_ARN", "required", "ARN of the secret with the database's credentials."),
    ("DB_HOST", "none", "Host, if the secret has none."),
    ("DB_PORT", "5432", "Port, if the secret has none."),
    ("DB_NAME", "none", "Database, if the secret has none."),
    ("DB_CA_BUNDLE", "the bundle of RDS", "File with the certificates that the server's certificate is verified with."),
    ("SQL_DIR", "`/opt`", "Folder with the hotfix files."),
    ("LOCK_WAIT_SECONDS", "30", "How long a run waits for the lock in all: 1 to 840 s."),
    ("STATEMENT_TIMEOUT_MS", "5000", "How long a statement may take: 100 to 840,000 ms."),
    ("ENVIRONMENT", "`unset`", "Dimension of the metrics."),
    ("STACK_NAME", "none", "Name of the stack, for the command at the end of an error's text."),
)

OF_ERRORS = (
    "A failure is an exception with one of these names. Its text says what happened, what state the database is in, "
    "and what to do; the last line is a command to paste. The state machine tries a retryable one again."
)


def main() -> int:
    PAGE.write_text(render())
    print(f"{PAGE.relative_to(PROJECT)} is written.")
    return 0


def render() -> str:
    """The whole page, as the code is now."""
    return "\n\n".join(
        [
            "<!-- `make reference` writes this page from the code. -->",
            "# Reference",
            "What the function accepts, answers, raises, logs and counts.",
            "## Request",
            "JSON, bare or as the `detail` of an EventBridge event. Other keys are refused. `events/` has examples.",
            table(("action", "does"), ((code(name), text) for name, text in request.ACTIONS.items())),
            table(("key", "meaning"), ((code(name), text) for name, text in request.KEYS.items())),
            "## Response",
            (
                "The same keys are in the one log line `hotfix finished`, which leaves out those that are null. [An"
                " example](response.json)."
            ),
            table(("key", "unit or type", "meaning"), ((code(key), kind, text) for key, kind, text in RESPONSE)),
            "## Results",
            table(("result", "shown as", "metric", "a success"), map(describe_result, results.RESULTS.items())),
            "## Errors",
            OF_ERRORS,
            table(("error", "retryable", "when, and what state the database is in"), map(describe_error, all_errors())),
            "The one log line `hotfix failed` has the keys of the request and of the times, and these:",
            table(("key", "unit or type", "meaning"), ((code(key), kind, text) for key, kind, text in FAILURE)),
            "## Metrics",
            "In the namespace `PgHotfix`, with the dimensions `service` and `environment`.",
            table(("metric", "unit", "counts"), describe_metrics(METRICS)),
            "## Environment of the function",
            table(("variable", "default", "meaning"), ((code(name), *rest) for name, *rest in ENVIRONMENT)),
            "",
        ]
    )


def describe_result(named: tuple[str, results.Result]) -> tuple[str, ...]:
    name, result = named
    return code(name), result.said, code(result.metric) if result.metric else "", "yes" if result.done else "not yet"


def all_errors() -> list[type[errors.HotfixError]]:
    return errors.HotfixError.__subclasses__()


def describe_error(error: type[errors.HotfixError]) -> tuple[str, ...]:
    return code(error.__name__), "yes" if error.retryable else "no", " ".join((error.__doc__ or "").split())


def describe_metrics(others: Mapping[str, tuple[str, str]]) -> list[tuple[str, ...]]:
    counted: list[tuple[str, ...]] = [
        (code(result.metric), "Count", f"A run ended with `{name}`.")
        for name, result in results.RESULTS.items()
        if result.metric
    ]
    return counted + [(code(name), unit, text) for name, (unit, text) in others.items()]


def code(text: str) -> str:
    return f"`{text}`"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
