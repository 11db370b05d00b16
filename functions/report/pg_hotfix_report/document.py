"""The report as people read it: Markdown under the headings that they write by hand after an incident."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pg_hotfix_report.commands import ask, read_report
from pg_hotfix_report.inert import block, code, grid
from pg_hotfix_report.run import NOT_TOLD

if TYPE_CHECKING:
    from collections.abc import Mapping

CHANGED = {True: "yes", False: "no", None: "unknown"}
NEVER_ANALYSED = "size unknown: never analysed"
# How an expect line words a column, cut into what psql's \d shows of it.
WORDED = re.compile(
    r"(?P<type>.+?)(?: collate (?P<collation>\S.*?))? (?P<nullable>not null|null)(?P<invalid> \(not valid\))?"
    r"(?: default (?P<default>.+)| (?P<generated>generated .+))?",
    re.DOTALL,
)


def write_document(facts: Mapping[str, Any]) -> str:
    execution = facts["execution"]
    outcome = code(execution["outcome"])
    title = f"Hotfix {code(facts['hotfix'])}" if facts["hotfix"] else "A hotfix"
    sections = {
        f"# {title}: {outcome}": "" if execution["error"] else code(execution["summary"] or ""),
        "## Problem": write_problem(facts["problem"]),
        "## SQL": write_sql(facts["sql"]),
        "## Execution": write_execution(execution),
        "## Log lines": write_log_lines(facts["log_lines"]),
        "## Validation": write_validation(facts["validation"], execution["action"]),
        "## Database and network": write_database(facts["database"], facts["tables"]),
        "## What Prisma does next": write_prisma(facts["prisma"]),
        "## Objects": write_columns(facts["validation"]["columns"]),
        "## Lock and blockers": write_lock(facts["lock"], execution),
        **({"## What else to know": "\n".join(f"- {code(note)}" for note in facts["notes"])} if facts["notes"] else {}),
        "## What was not checked": "\n".join(f"- {line}" for line in facts["not_checked"]),
        "## Rollback": write_rollback(facts),
    }
    parts = [part for section in sections.items() for part in section if part]
    if execution["arn"]:
        parts.append(joined("To print this report again:", block(read_report(execution["arn"]), "sh")))
    return "\n\n".join(parts) + "\n"


def listed(values: Mapping[str, object]) -> str:
    """One line for each, the value as code; what was not told says so."""
    return "\n".join(
        f"- {name}: {NOT_TOLD if value is None or value == '' else code(str(value))}" for name, value in values.items()
    )


def joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def write_problem(problem: Mapping[str, Any]) -> str:
    comment = problem["comment"]
    said = joined("The file says:", block("\n".join(comment))) if comment else ""
    return joined(listed({"Reason": problem["reason"]}), said)


def write_sql(sql: Mapping[str, Any]) -> str:
    text = sql["text"]
    shown = (
        block(text, "sql") if text else "No answer has the SQL: the run executed nothing, or ended without an answer."
    )
    return joined(shown, listed({"sha256 of the file": sql["sha256"]}))


def write_execution(execution: Mapping[str, Any]) -> str:
    seconds = execution["seconds"]
    exit_ = execution["error"] or execution["result"]
    told = listed(
        {
            "Action": execution["action"],
            "Asked for by (self-declared)": execution["requested_by"],
            "From": execution["caller"],
            "Correlation id": execution["correlation_id"],
            "Execution": execution["arn"],
            "Started": execution["started"],
            "Ended": execution["ended"],
            "Duration": None if seconds is None else f"{seconds:.3f} s",
            "Attempts at the lock": execution["attempts"],
            "Exit": exit_,
            "Changed the schema": CHANGED[execution["changed"]],
        }
    )
    calls = [[str(call[key]) for key in call] for call in execution["calls"]]
    table = grid([["action", "request id", "started", "ms", "result"], *calls]) if calls else ""
    steps = joined("What was called:", block("\n".join(execution["steps"]))) if execution["steps"] else ""
    error = joined("The error:", block(f"{execution['error']}: {execution['cause']}")) if execution["error"] else ""
    return joined(told, table, steps, error)


def write_log_lines(lines: list[str]) -> str:
    if not lines:
        return "No answer of the function was kept, so its log lines are unknown here."
    return joined(block("\n".join(lines)), "Abridged. The function's log has each line in full, under its request id.")


def write_validation(validation: Mapping[str, Any], action: str | None) -> str:
    endpoint, minutes = validation["endpoint"], validation["watch_minutes"]
    answered = f"answered {code(str(endpoint))}."
    log_said = f"had no line with the error for {code(str(minutes))} min after the verify."
    sentences = [
        f"- The endpoint {'was not called, or did not work.' if endpoint is None else answered}",
        f"- The application's log {'was not watched, or the error came again.' if minutes is None else log_said}",
    ]
    columns, reverting = validation["columns"], action == "revert"
    times = ("before (revert)", "after (revert)") if reverting else ("before (plan)", "after (verify)")
    seen = [
        [f"{column['schema']}.{column['table']}", when, *describe_as_psql(column["column"], column[key])]
        for column in columns
        for when, key in zip(times, ("before", "after"), strict=True)
    ]
    titles = ["table", "seen", "Column", "Type", "Collation", "Nullable", "Default"]
    what, fact = ("gone", "gone") if reverting else ("as expected", "as_expected")
    held = [f"- {code(column['name'] or '')} is {what}: {CHANGED[column[fact]]}." for column in columns]
    shown = joined("As `\\d` shows it:", grid([titles, *seen])) if seen else "No answer has a column."
    return joined(shown, "\n".join(held if reverting else [*held, *sentences]))


def describe_as_psql(column: str, worded: str | None) -> list[str]:
    """The column as a row of psql's `\\d`: https://www.postgresql.org/docs/current/app-psql.html"""
    found = WORDED.fullmatch(worded or "")
    if found is None:
        return [column, worded or "unknown", "", "", ""]
    nullable = "not null" if found["nullable"] == "not null" else ""
    default = found["default"] or found["generated"] or ""
    return [column, found["type"], found["collation"] or "", f"{nullable}{found['invalid'] or ''}", default]


def write_database(database: Mapping[str, Any], tables: list[dict[str, Any]]) -> str:
    told = {
        "Host": database.get("host"),
        "Port": database.get("port"),
        "Database": database.get("name"),
        "User": database.get("user"),
        "PostgreSQL": database.get("server_version"),
        "TLS, verified": database.get("tls"),
    }
    for table in tables:
        rows = table.get("estimated_rows")
        size = f"about {rows} rows" if isinstance(rows, int) and rows >= 0 else NEVER_ANALYSED
        name = f"{table.get('schema')}.{table.get('table')}"
        told["Table"] = "; ".join(
            filter(
                None, [str(told.get("Table") or ""), f"{name} ({table.get('kind')} of {table.get('owner')}, {size})"]
            )
        )
    return listed(told)


def write_prisma(prisma: Mapping[str, Any]) -> str:
    if not prisma:
        return "No answer says anything about Prisma."
    return listed(
        {
            "The next prisma migrate deploy": prisma.get("next_deploy"),
            "History": prisma.get("table") or "none found",
            "State of this hotfix there": prisma.get("state"),
            "Recorded by this run": CHANGED[prisma["recorded_here"]],
        }
        | (
            {"Failed migrations, which block every deploy": ", ".join(prisma["blocked_by"])}
            if prisma["blocked_by"]
            else {}
        )
    )


def write_columns(columns: list[dict[str, Any]]) -> str:
    if not columns:
        return "No answer has a column."
    rows = [[str(column["name"]), str(column["expected"]), CHANGED[column["changed"]]] for column in columns]
    return grid([["object", "expected", "changed by this run"], *rows])


def write_lock(lock: Mapping[str, Any], execution: Mapping[str, Any]) -> str:
    if lock["lock_held_ms"] is not None:
        told = listed(
            {
                "Waited for the lock (ms)": lock["lock_wait_ms"],
                "Held ACCESS EXCLUSIVE (ms)": lock["lock_held_ms"],
                "Longest time that another session may have waited (ms)": lock["longest_stall_ms"],
            }
        )
    elif execution["changed"] is False:
        told = "This run changed nothing, and kept no lock."
    else:
        action = "revert" if execution["action"] == "revert" else "apply"
        told = f"No {action} answered, so how long it held a lock is unknown."
    blockers = [
        [
            str(blocker.get("pid") or blocker.get("prepared_transaction")),
            str(blocker.get("user")),
            str(blocker.get("application_name")),
            str(blocker.get("state")),
            str(blocker.get("transaction_seconds")),
            f"{blocker.get('lock_mode')} on {blocker.get('table')}",
        ]
        for blocker in lock["blockers"]
    ]
    titles = ["pid", "user", "application", "state", "seconds", "lock"]
    met = "The plan found no blocker." if lock["planned"] else "Blockers are unknown: no plan looked for them."
    if blockers:
        met = joined("Blockers that the plan found:", grid([titles, *blockers]))
    return joined(told, met)


def write_rollback(facts: Mapping[str, Any]) -> str:
    lines, changed = facts["rollback"], facts["execution"]["changed"]
    if changed is False:
        return "None: this run changed nothing."
    if changed is None:
        return joined("Whether there is anything to roll back is unknown. Find out first:", paste(facts, "plan"))
    if facts["execution"]["action"] == "revert":
        return joined(
            "This run was the rollback. To add the column again, without the values it had:", paste(facts, "apply")
        )
    if facts["revert"]:
        return joined(
            "The file has its reviewed way back:",
            block(facts["revert"], "sql"),
            "It takes ACCESS EXCLUSIVE and breaks an application that expects the column. pg-hotfix refuses it while a "
            "row holds a value of its own there. To run it:",
            paste(facts, "revert"),
        )
    if not lines:
        return "None needed. The column is nullable and has no default, so code that does not know it still works."
    return joined(
        "Have this reviewed before you run it. It takes ACCESS EXCLUSIVE, breaks an application that expects the "
        "column, and **deletes for good what was written to the column since**:",
        block("\n".join(lines), "sql"),
    )


def paste(facts: Mapping[str, Any], action: str) -> str:
    return block(ask(action, facts["hotfix"], facts["execution"]["arn"]), "sh")
