"""What a report says, as data that JSON can hold: no secret is in it, and no row of any table."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pg_hotfix_report.explain import ENDPOINT, ERRORS, HAD_APPLIED, NAMES, UNCHANGED, WATCH
from pg_hotfix_report.logline import format_log_line
from pg_hotfix_report.results import read_result
from pg_hotfix_report.run import moment, object_in, objects_in, text_of

if TYPE_CHECKING:
    from pg_hotfix_report.run import Run

# Lines of a hotfix file that are for the function rather than for people.
DIRECTIVE = re.compile(r"--\s*(expect|allow|revert):", re.IGNORECASE)
DEFAULT = re.compile(r"\b(default|generated)\b")
ENDED_OTHERWISE = {"RUNNING", "TIMED_OUT", "ABORTED"}
SELF_DECLARED = "Who asked: names and reasons are self-declared. CloudTrail has the caller."


def collect_facts(run: Run) -> dict[str, Any]:
    """Every fact of the report, under the report's headings."""
    answers, request = run.answers, run.request
    last = next(reversed(answers.values()), {})
    hotfix = run.hotfix or text_of(last.get("hotfix"))
    sql = next((answer["sql"] for answer in answers.values() if isinstance(answer.get("sql"), str)), None)
    changed = tell_changed(run)
    columns = compare_columns(run)
    way_back = next((answer["revert"] for answer in answers.values() if isinstance(answer.get("revert"), str)), None)
    return {
        "hotfix": hotfix,
        "problem": {
            "reason": text_of(request.get("reason") or last.get("reason")),
            "comment": read_comment(sql or ""),
        },
        "sql": {"text": sql, "sha256": text_of(last.get("sql_sha256"))},
        "execution": describe_execution(run, last) | {"changed": changed},
        "log_lines": read_log_lines(run),
        "validation": {
            "columns": columns,
            "endpoint": object_in(run.output, "endpoint").get("status"),
            # After a failure of the watch the minutes before it prove nothing.
            "watch_minutes": run.watched_minutes or None if run.error not in (ERRORS, WATCH) else None,
        },
        "database": object_in(last, "database"),
        "tables": objects_in(last, "tables"),
        "prisma": read_prisma(run),
        "lock": describe_lock(run),
        "notes": list_notes(run),
        "not_checked": list_unchecked(run),
        "rollback": [drop_sql(column) for column in columns if column["changed"] and not is_harmless(column)],
        "revert": way_back,
    }


def read_comment(sql: str) -> list[str]:
    """The lines at the file's head that tell people why."""
    lines = []
    for line in map(str.strip, sql.splitlines()):
        if line and not line.startswith("--"):
            break
        if line and not DIRECTIVE.match(line):
            lines.append(line.removeprefix("--").strip())
    return lines


def describe_execution(run: Run, last: dict[str, Any]) -> dict[str, Any]:
    request, answers = run.request, list(run.answers.values())
    started = run.started or (moment(answers[0].get("started_at")) if answers else None)
    ended = run.ended or (ended_at(answers[-1]) if answers else None)
    return {
        "action": text_of(request.get("action")),
        "requested_by": text_of(request.get("requested_by") or last.get("requested_by")),
        "caller": text_of(last.get("caller")),
        "correlation_id": text_of(request.get("correlation_id")),
        "arn": run.arn,
        "started": started,
        "ended": ended,
        "seconds": seconds_between(started, ended),
        "calls": [
            {name: answer.get(name) for name in ("action", "request_id", "started_at", "duration_ms", "result")}
            for answer in answers
        ],
        "attempts": object_in(run.output, "apply").get("attempts"),
        "steps": list(run.steps),
        "result": None if run.error else text_of(run.output.get("result")),
        "outcome": run.error or read_result(run.output.get("result")).said,
        "summary": text_of(run.output.get("summary")),
        "error": run.error,
        "cause": run.cause,
    }


def ended_at(answer: dict[str, Any]) -> str | None:
    at = answer.get("finished_at_ms")
    return moment(at / 1000) if isinstance(at, int) else None


def seconds_between(started: str | None, ended: str | None) -> float | None:
    if not started or not ended:
        return None
    return round((datetime.fromisoformat(ended) - datetime.fromisoformat(started)) / timedelta(seconds=1), 3)


def tell_changed(run: Run) -> bool | None:
    """Whether this run changed the table; None when that is not known from here."""
    if apply := run.answers.get("apply"):
        if any(column.get("changed") is True for column in objects_in(apply, "objects")):
            return True
        # What it found done may have been done by an invocation of this very run whose answer was lost.
        planned = object_in(run.output, "plan").get("result")
        found_done = apply.get("result") == "already_reverted" or planned == "would_apply"
        return None if found_done else False
    if not run.error:
        return False
    cause = run.cause or ""
    open_ended = run.partial or run.failed_action in ("apply", "revert") or run.error in ENDED_OTHERWISE
    if open_ended and (UNCHANGED not in cause or HAD_APPLIED in cause):
        return None
    return False


def read_log_lines(run: Run) -> list[str]:
    """The function's lines, as far as its answers and failures were kept: its log has them whole."""
    lines = [
        format_log_line({"level": "INFO", "message": "hotfix finished"} | answer) for answer in run.answers.values()
    ]
    if run.error and is_of_function(run.error) and (run.failed_action or run.partial):
        who = {key: run.request.get(key) or None for key in ("requested_by", "reason")}
        facts = {"action": run.failed_action, "error": run.error, **who}
        lines.append(format_log_line({"level": "ERROR", "message": "hotfix failed"} | facts))
    return lines


def is_of_function(error: str) -> bool:
    """Lambda's and Step Functions' own names have a dot. The log has a line `hotfix failed` of no other failure."""
    return "." not in error and error not in NAMES | ENDED_OTHERWISE


def compare_columns(run: Run) -> list[dict[str, Any]]:
    """Each column as it was (the plan) and as it is (the verify, else the apply); None where nobody looked. What a
    revert has dropped was as expected: anything else it refuses."""
    answers = run.answers
    apply = by_name(answers.get("apply"))
    before = by_name(answers.get("plan"))
    if run.reverting:
        dropped = {name: column["expected"] for name, column in apply.items() if column.get("changed") is True}
        before = {name: column | {"actual": dropped.get(name, column.get("actual"))} for name, column in apply.items()}
    after = by_name(answers.get("verify")) or apply
    latest = after | {name: column for name, column in before.items() if name not in after}
    return [
        {
            **{key: text_of(column.get(key)) for key in ("schema", "table", "column", "name", "expected")},
            "before": text_of(before.get(name, {}).get("actual")),
            "after": text_of(after.get(name, {}).get("actual")),
            "as_expected": after[name].get("matches") is True if name in after else None,
            "gone": after[name].get("actual") == "missing" if name in after else None,
            "changed": apply.get(name, {}).get("changed") is True,
        }
        for name, column in latest.items()
    ]


def by_name(answer: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    return {str(column.get("name")): column for column in objects_in(answer or {}, "objects")}


def describe_lock(run: Run) -> dict[str, Any]:
    apply = run.answers.get("apply", {})
    figures = {key: apply.get(key) for key in ("lock_wait_ms", "lock_held_ms", "longest_stall_ms")}
    plan = run.answers.get("plan", {})
    # Only of what is still to do a plan tells who is in the way.
    return figures | {"planned": plan.get("result") == "would_apply", "blockers": objects_in(plan, "blockers")}


def read_prisma(run: Run) -> dict[str, Any]:
    """What the last answer saw of Prisma's history, and whether the apply has written to it; {} if none tells."""
    seen = [found for answer in run.answers.values() if (found := object_in(answer, "prisma"))]
    if not seen:
        return {}
    failed = seen[-1].get("blocked_by")
    return {
        **{key: text_of(seen[-1].get(key)) for key in ("table", "state", "next_deploy")},
        "blocked_by": [str(one) for one in failed] if isinstance(failed, list) else [],
        "recorded_here": any(one.get("recorded_here") is True for one in seen),
    }


def list_notes(run: Run) -> list[str]:
    """What the answers say may surprise somebody later, each text once."""
    notes = (note for answer in run.answers.values() for note in objects_in(answer, "notes"))
    return list(dict.fromkeys(text for note in notes if (text := text_of(note.get("text")))))


def list_unchecked(run: Run) -> list[str]:
    """What a reader might take for done, and is not."""
    answers, unchecked = run.answers, []
    if run.reverting:
        return list_unchecked_after_revert(run)
    if "plan" not in answers:
        unchecked.append("The schema before the run: no plan answered.")
    if tell_changed(run) is None:
        unchecked.append(
            "Whether the file was applied: the failure does not say. The command under Rollback finds out."
        )
    elif "apply" not in answers:
        unchecked.append(f"The change itself: {tell_no_change(run)}")
    if "verify" not in answers:
        unchecked.append("The objects over a new connection: no verify answered.")
    if "endpoint" not in run.output:
        failed = run.error == ENDPOINT
        unchecked.append(f"The endpoint: {'it failed, see the error.' if failed else 'nobody called it.'}")
    if "watch" not in run.output or run.error in (ERRORS, WATCH):
        failed = run.error in (ERRORS, WATCH)
        unchecked.append(
            f"The application's log: {'the watch failed, see the error.' if failed else 'nobody watched it.'}"
        )
    return [*unchecked, SELF_DECLARED, "The rows: this run read none. The owner of the data checks them."]


def tell_no_change(run: Run) -> str:
    """Of a run that has changed nothing, and of which no apply has answered."""
    if run.failed_action == "apply":
        return "the apply failed, and changed nothing."
    # Whether it began is told by what had answered before it, and of a partial run nobody has that.
    return "this run changed nothing." if run.partial else "no apply ran."


def list_unchecked_after_revert(run: Run) -> list[str]:
    unchecked = []
    if tell_changed(run) is None:
        unchecked.append(
            "Whether the column was dropped: the failure does not say. The command under Rollback finds out."
        )
    elif "apply" not in run.answers:
        unchecked.append("The revert itself: it failed, and dropped nothing.")
    unchecked.append("The application without the column: nobody called it, and nobody watched its log.")
    return [*unchecked, SELF_DECLARED]


def is_harmless(column: dict[str, Any]) -> bool:
    """A nullable column without default: what does not know of it never notices it."""
    made = column["after"] or column["expected"] or ""
    return made.endswith(" null") and not made.endswith(" not null") and not DEFAULT.search(made)


def drop_sql(column: dict[str, Any]) -> str:
    schema, table, name = (quoted(column[key] or "") for key in ("schema", "table", "column"))
    return f"ALTER TABLE {schema}.{table} DROP COLUMN {name};"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
