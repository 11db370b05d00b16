"""The Lambda function: turns an event into a request, and a report into a response, one log line and metrics."""

from __future__ import annotations

import os
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from pg_hotfix import hotfix
from pg_hotfix.errors import HotfixError, LockBusyError, defect
from pg_hotfix.file.hotfix_file import count_columns
from pg_hotfix.history.prisma import OTHER_CHECKSUM, RECORDED
from pg_hotfix.listing import counted
from pg_hotfix.next_command import commands_after
from pg_hotfix.promises.column.catalog import TABLE_KINDS
from pg_hotfix.request import parse_request
from pg_hotfix.results import read_result
from pg_hotfix.server.limits import elapsed_ms
from pg_hotfix.settings import read_settings, read_stack_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from pg_hotfix.promises.column.catalog import Column
    from pg_hotfix.report import Report
    from pg_hotfix.request import Request

logger = Logger(service="pg-hotfix", use_rfc3339=True, log_uncaught_exceptions=False)
metrics = Metrics(namespace="PgHotfix", service="pg-hotfix")
metrics.set_default_dimensions(environment=os.environ.get("ENVIRONMENT") or "unset")


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """The request in `event` was fulfilled; returns the response that docs/reference.md describes. Any failure is an
    exception, whose class name state machines match. Exactly one line, `hotfix finished` or `hotfix failed`, was
    logged.

    Raises:
        HotfixError: see errors.py. Its text ends in the command to type next.
    """
    started_at, started = datetime.now(UTC), time.monotonic()
    request: Request | None = None
    try:
        request = parse_request(event)
        logger.set_correlation_id(request.correlation_id or context.aws_request_id)
        report = hotfix.run(request, read_settings(os.environ), context.get_remaining_time_in_millis)
        response = respond(report)
    except Exception as error:
        failure = error if isinstance(error, HotfixError) else defect(error, place_of(error))
        failure.add_command(commands_after(request, read_stack_name(os.environ)))
        duration_ms = elapsed_ms(started)
        count_failure(failure, duration_ms)
        facts = describe_failure(failure) | describe_run(request, context, started_at, duration_ms)
        logger.error("hotfix failed", **facts)
        if failure is error:
            raise
        raise failure from None  # The original's text may hold a secret, and Lambda would log it.
    duration_ms = elapsed_ms(started)
    count_success(report, duration_ms)
    response |= describe_run(request, context, started_at, duration_ms)
    logger.info("hotfix finished", **response)
    return response


def respond(report: Report) -> dict[str, Any]:
    # A gate that has passed may have thousands of columns: too many for a log line.
    shown = [] if report.result == "passed" else report.columns
    return {
        "summary": summarise(report),
        "result": report.result,
        "objects": [column.describe() for column in shown],
        "steps": describe_steps(report),
        "tables": describe_tables(shown),
        "database": report.database,
        "attempts": report.attempts,
        "lock_wait_ms": report.lock_wait_ms,
        "lock_held_ms": report.lock_held_ms,
        "longest_stall_ms": report.longest_stall_ms,
        "limits": report.limits,
        "blockers": [blocker.describe() for blocker in report.blockers],
        "sql": report.sql,
        "revert": report.revert,
        "sql_sha256": report.sql_sha256,
        "plan_hash": report.plan_hash,
        "hotfixes": list(report.hotfixes),
        "prisma": report.history.describe() if report.history else None,
        "notes": list(report.notes),
    }


def summarise(report: Report) -> str:
    """The result in a sentence, and what follows from Prisma's history."""
    history, sentences = report.history, [summarise_result(report)]
    if history and history.recorded_here:
        sentences.append(f"Recorded in {history.table}.")
    if history and history.failed:
        sentences.append(f"The next prisma migrate deploy stops with P3009: {' and '.join(history.failed)} failed.")
    if report.result in ("reverted", "already_reverted") and history and history.state in (RECORDED, OTHER_CHECKSUM):
        sentences.append(f"{history.table} still has it as applied: no prisma migrate deploy will bring it back.")
    return " ".join(sentences)


def summarise_result(report: Report) -> str:
    names = ", ".join(column.expectation.name for column in report.columns)
    match report.result:
        case "applied":
            changed = ", ".join(column.expectation.name for column in report.columns if column.changed_here)
            return f"{changed} applied, committed and proved; the lock was held for {report.lock_held_ms} ms."
        case "already_applied":
            if report.lock_held_ms:  # Another run changed it first.
                return f"{names} already as expected when the lock was granted; the file was run as well."
            return f"{names} already as expected; nothing was run."
        case "reverted":
            dropped = ", ".join(column.expectation.name for column in report.columns if column.changed_here)
            forced = " Forced: the rows were not checked." if report.forced else ""
            held = f"the lock was held for {report.lock_held_ms} ms."
            return f"{dropped} dropped, committed and proved gone; {held}{forced}"
        case "already_reverted":
            return f"{names} already missing; nothing was run."
        case "would_apply":
            missing = ", ".join(column.expectation.name for column in report.columns if not column.matches)
            way = (
                f"{counted(len(report.blockers), 'transaction')} in the way now"
                if report.blockers
                else "nobody is in the way now"
            )
            unknown = (
                "; a type does not exist yet" if any("(no such type)" in c.expected for c in report.columns) else ""
            )
            return f"{missing} missing{unknown}; apply would run the file; {way}."
        case "verified":
            return f"{names} as expected, and can be selected by {report.database['user']}."
        case "passed":
            return f"As the application expects: {count_columns([column.expectation for column in report.columns])}."
        case _:
            return f"Secret, network, TLS, login and ownership work for {counted(len(report.hotfixes), 'hotfix file')}."


def describe_steps(report: Report) -> list[dict[str, Any]]:
    """The file's one step: whether it was needed, and what was done under which locks. Empty where none could run."""
    if report.result not in ("would_apply", "applied", "already_applied", "reverted", "already_reverted"):
        return []
    needed = report.result in ("would_apply", "applied", "reverted")
    tables = dict.fromkeys(
        column.expectation.qualified_table
        for column in report.columns
        if needed and (column.changed_here or not column.matches)
    )
    return [
        {
            "title": None,
            "needed": needed,
            "result": None if report.result == "would_apply" else "applied" if needed else "skipped",
            "locks": [f"ACCESS EXCLUSIVE on {table}" for table in tables],
            "lock_held_ms": report.lock_held_ms,
            "progress": None,
        }
    ]


def describe_tables(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Each table once. Sizes are the server's estimates since its last VACUUM or ANALYZE; -1 rows means never."""
    tables = {
        column.expectation.qualified_table: {
            "schema": column.expectation.schema,
            "table": column.expectation.table,
            "kind": TABLE_KINDS.get(column.found.relation_kind or ""),
            "owner": column.found.owner,
            "estimated_rows": column.found.estimated_rows,
            "estimated_bytes": column.found.estimated_bytes,
        }
        for column in columns
    }
    return list(tables.values())


def describe_run(
    request: Request | None, context: LambdaContext, started_at: datetime, duration_ms: float
) -> dict[str, Any]:
    """Who asked for what, and when. `requested_by`, `reason` and `caller` are self-declared: CloudTrail knows who
    called."""
    return {
        "hotfix": request.hotfix if request else None,
        "action": request.action if request else None,
        "caller": request.caller if request else None,
        "requested_by": request.requested_by if request else None,
        "reason": request.reason if request else None,
        "request_id": context.aws_request_id,
        "started_at": started_at.isoformat(timespec="milliseconds"),
        # A number as well: Step Functions searches the application's log from here on, and cannot convert a date.
        "finished_at_ms": time.time_ns() // 1_000_000,
        "duration_ms": round(duration_ms),
    }


def describe_failure(failure: HotfixError) -> dict[str, Any]:
    return {
        "error": type(failure).__name__,
        "retryable": failure.retryable,
        "advice": failure.message,
        **failure.facts,
    }


def place_of(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(place.filename).name}:{place.lineno}"


def count_success(report: Report, duration_ms: float) -> None:
    counted = read_result(report.result).metric
    if counted:
        metrics.add_metric(counted, MetricUnit.Count, 1)
    if report.attempts:
        metrics.add_metric("LockWaitMs", MetricUnit.Milliseconds, report.lock_wait_ms)
        metrics.add_metric("LockHeldMs", MetricUnit.Milliseconds, report.lock_held_ms)
    metrics.add_metric("DurationMs", MetricUnit.Milliseconds, round(duration_ms))


def count_failure(failure: HotfixError, duration_ms: float) -> None:
    metrics.add_metric("Failed", MetricUnit.Count, 1)
    if isinstance(failure, LockBusyError):
        metrics.add_metric("LockBusy", MetricUnit.Count, 1)
        metrics.add_metric("LockWaitMs", MetricUnit.Milliseconds, failure.facts.get("lock_wait_ms", 0))
    metrics.add_metric("DurationMs", MetricUnit.Milliseconds, round(duration_ms))
