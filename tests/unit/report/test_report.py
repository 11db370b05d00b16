"""The report that people would write by hand after an incident, whole, for every way in which a run can end."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from markdown_it import MarkdownIt

from pg_hotfix_report import app as report
from pg_hotfix_report.app import LARGEST_STATE_BYTES, make_report, size_of
from pg_hotfix_report.document import describe_as_psql
from pg_hotfix_report.facts import collect_facts
from pg_hotfix_report.inert import block, code
from pg_hotfix_report.run import Run, moment, read_answer
from pg_hotfix_report.settings import Settings
from tests.samples import BLOCKER

if TYPE_CHECKING:
    from collections.abc import Iterable

GOLDEN = Path(__file__).with_name("golden")
INCIDENT: dict[str, Any] = json.loads((GOLDEN / "incident.json").read_text())
COLUMN = "public.drivers.active_since"
ARN = INCIDENT["request"]["correlation_id"]
HEADINGS = [
    *("Problem", "SQL", "Execution", "Log lines", "Validation", "Database and network", "What Prisma does next"),
    *("Objects", "Lock and blockers", "What was not checked", "Rollback"),
]
BUSY = (
    "public.drivers stayed locked for 30 s, so 20260212092000_add_drivers_active_since was not applied. Nothing was"
    " changed, and nobody waited behind this run.\n"
    "In the way: pid 4711 (billing, nightly-report), in a transaction for 370 s, ACCESS SHARE on public.drivers.\n"
    "Wait until it ends, or end it now:  SELECT pg_terminate_backend(4711);"
)
HOSTILE = (
    "`````\n# Heading\n<script>alert(1)</script>\n| a | b |\n|---|---|\n[x](javascript:alert(1)) ![y](//z) ~~~\n"
    "\n---\n- item\n\u202egnp.exe \x1b[31mred\u2028 &lt; \\` ``` ~~~~ <!-- "
)


def output(*names: str, **changes: Any) -> dict[str, Any]:
    """The incident's output with these parts only."""
    return copy.deepcopy({name: INCIDENT[name] for name in ("request", *names)}) | changes


SETTINGS = Settings("prod")


def event(output: dict[str, Any], error: str | None = None, cause: str = "") -> dict[str, Any]:
    """What the state machine's last task sends."""
    times = {"started": "2026-02-12T12:30:06.900Z", "ended": "2026-02-12T12:35:11.250Z"}
    state = {"run": {"output": output}, "as": {}, "checks": {}}
    return {
        "task": "report",
        "execution": {"arn": ARN, **times},
        "state": state | ({"failure": {"Error": error, "Cause": cause}} if error else {}),
    }


def end(event: dict[str, Any], settings: Settings = SETTINGS) -> dict[str, Any]:
    """What the report function answers, as the state machine gets it."""
    whole = report.answer(event, settings, connect=no_client)
    assert json.loads(json.dumps(whole)) == whole
    return whole


def no_client() -> Any:
    raise AssertionError("a report needs nothing of AWS")


def kept(event: dict[str, Any]) -> dict[str, Any]:
    """The report in the output that the function answers with."""
    found: dict[str, Any] = end(event)["run"]["output"]["report"]
    return found


def planned() -> dict[str, Any]:
    whole = output("plan", result="would_apply", summary=INCIDENT["plan"]["summary"])
    whole["plan"]["blockers"] = [BLOCKER]
    return whole


def already_applied() -> dict[str, Any]:
    whole = output("plan", "verify", result="already_applied")
    seen = {"result": "already_applied", "sql": None, "objects": whole["verify"]["objects"]}
    whole["plan"] |= seen | {"summary": "public.drivers.active_since already as expected; nothing was run."}
    return whole | {"summary": whole["plan"]["summary"]}


DROP = 'ALTER TABLE "drivers" DROP COLUMN IF EXISTS "active_since";'


def reverted() -> dict[str, Any]:
    """As the state machine has it, which keeps the answer of a revert where that of an apply would be."""
    whole = output("apply", result="reverted")
    whole["request"] |= {"action": "revert", "reason": "INC-4712: back to the old release", "record": None}
    seen = {"action": "revert", "result": "reverted", "sql": DROP, "revert": DROP, "reason": whole["request"]["reason"]}
    whole["apply"] |= seen | {"summary": f"{COLUMN} dropped, committed and proved gone; the lock was held for 1.3 ms."}
    whole["apply"]["objects"][0] |= {"actual": "missing", "matches": False, "changed": True}
    whole["apply"]["prisma"] = whole["apply"]["prisma"] | {
        "state": "not_recorded",
        "next_deploy": f"It runs prisma/migrations/{whole['request']['hotfix']} if that folder exists.",
        "recorded_here": False,
    }
    return whole | {"summary": whole["apply"]["summary"]}


def headings(markdown: str) -> list[str]:
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    return [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"][1:]


def kinds(markdown: str) -> set[str]:
    """Every kind of element that a reader's browser would get."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    return {inner.type for token in tokens for inner in (token, *(token.children or ()))}


def texts(value: Any) -> Iterable[tuple[dict[str, Any] | list[Any], Any]]:
    """Every place in it that holds a text."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list):
            yield from texts(inner)
        elif isinstance(inner, str):
            yield value, key


# The whole


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("incident", event(INCIDENT)),
        ("lock_busy", event(planned(), "LockBusyError", BUSY)),
        ("already_applied", event(already_applied())),
        ("reverted", event(reverted())),
    ],
)
def test_the_whole_report_is_what_a_person_would_write(name: str, event: dict[str, Any]) -> None:
    made = kept(event)
    assert made["markdown"] == (GOLDEN / f"{name}.md").read_text()
    assert headings(made["markdown"]) == HEADINGS


def test_the_output_is_given_back_as_it_was_with_the_report_in_it() -> None:
    made = end(event(INCIDENT))
    written = made["run"]["output"].pop("report")
    assert made["run"] == {"output": INCIDENT}
    assert written.keys() == {"markdown", "json"}
    assert "failure" not in made


def test_the_saved_output_gives_the_report_that_it_holds() -> None:
    made = kept(event(INCIDENT))
    found = read_answer(INCIDENT | {"report": made})
    assert found
    assert make_report(found) == made


@pytest.mark.parametrize("action", ["plan", "apply", "verify"])
def test_one_response_alone_gives_a_report(action: str) -> None:
    found = read_answer(INCIDENT[action])
    assert found
    made = make_report(found)
    assert headings(made["markdown"]) == HEADINGS
    assert INCIDENT[action]["request_id"] in made["markdown"]
    assert made["json"]["execution"]["changed"] is (action == "apply")


# What it says


def facts(output: dict[str, Any], error: str | None = None, cause: str = "", **more: Any) -> dict[str, Any]:
    return collect_facts(Run(output, error, cause or None, **more))


def test_comments_for_people_are_the_problem_and_directives_are_not() -> None:
    whole = output("plan")
    whole["plan"]["sql"] = "-- why\n\n-- expect: column a.b.c text null\n--more\nSELECT 1;\n-- later\n"
    assert facts(whole)["problem"]["comment"] == ["why", "more"]


@pytest.mark.parametrize(
    ("made", "lines"),
    [
        ("text null", []),
        ('character varying(40) collate "C" null', []),
        ("text not null", ['ALTER TABLE "public"."drivers" DROP COLUMN "active""since";']),
        ("text null default ''::text", ['ALTER TABLE "public"."drivers" DROP COLUMN "active""since";']),
        (
            "bigint not null generated always as identity",
            ['ALTER TABLE "public"."drivers" DROP COLUMN "active""since";'],
        ),
    ],
)
def test_only_a_column_that_others_may_notice_gets_a_line_to_roll_it_back(made: str, lines: list[str]) -> None:
    whole = output("plan", "apply", "verify")
    for answer in ("plan", "apply", "verify"):
        whole[answer]["objects"][0] |= {"column": 'active"since', "actual": made, "expected": made}
    found = facts(whole)
    assert found["rollback"] == lines
    markdown = make_report(Run(whole))["markdown"]
    assert ("DROP COLUMN" in markdown) == ("deletes for good" in markdown) == bool(lines)


def test_a_column_that_was_there_is_never_to_be_dropped() -> None:
    whole = already_applied()
    for answer in ("plan", "verify"):
        whole[answer]["objects"][0] |= {"actual": "text not null", "expected": "text not null"}
    assert "DROP" not in make_report(Run(whole))["markdown"]


def test_a_reviewed_way_back_is_named_in_place_of_one_that_nobody_has_reviewed() -> None:
    whole = output("plan", "apply", "verify")
    for answer in ("plan", "apply", "verify"):
        whole[answer] |= {"revert": DROP}
        whole[answer]["objects"][0] |= {"actual": "text not null", "expected": "text not null"}
    rollback = make_report(Run(whole))["markdown"].partition("## Rollback\n\n")[2]
    assert rollback == (
        f"The file has its reviewed way back:\n\n```sql\n{DROP}\n```\n\n"
        "It takes ACCESS EXCLUSIVE and breaks an application that expects the column. pg-hotfix refuses it while a row"
        " holds a value of its own there. To run it:\n\n"
        f"```sh\n./pg-hotfix revert {whole['request']['hotfix']} --stack NAME\n```\n"
    )


REFUSED = f"{COLUMN} is in use. Nothing was changed."


@pytest.mark.parametrize(
    ("error", "cause", "changed", "rollback", "unchecked"),
    [
        (
            "RevertRefusedError",
            REFUSED,
            False,
            "None: this run changed nothing.",
            "The revert itself: it failed, and dropped nothing.",
        ),
        (
            "OutcomeUnknownError",
            "It was lost.",
            None,
            "Whether there is anything",
            "Whether the column was dropped: the",
        ),
    ],
)
def test_a_revert_that_failed_is_told_as_one(
    error: str, cause: str, changed: bool | None, rollback: str, unchecked: str
) -> None:
    whole = reverted()
    del whole["apply"]
    made = make_report(Run(whole, error, cause))
    assert made["json"]["execution"]["changed"] is changed
    assert made["json"]["log_lines"][-1].startswith(f"ERROR hotfix failed action=revert error={error}")
    assert made["json"]["not_checked"][0].startswith(unchecked)
    assert f"## Rollback\n\n{rollback}" in made["markdown"]
    assert headings(made["markdown"]) == HEADINGS


def test_of_a_revert_that_found_nothing_nobody_knows_whether_a_lost_try_of_it_was_the_one() -> None:
    whole = reverted()
    whole["apply"] |= {"result": "already_reverted", "sql": None, "lock_held_ms": 0.0}
    whole["apply"]["objects"][0] |= {"changed": False}
    made = make_report(Run(whole | {"result": "already_reverted"}))
    assert made["json"]["execution"]["changed"] is None
    assert made["json"]["validation"]["columns"][0]["before"] == "missing"


def test_of_an_apply_that_found_what_was_planned_nobody_knows_whether_a_lost_try_of_it_was_the_one() -> None:
    whole = output("plan", "apply", "verify")
    whole["apply"] |= {"result": "already_applied", "sql": None}
    whole["apply"]["objects"][0] |= {"changed": False}
    assert facts(whole)["execution"]["changed"] is None


def test_the_answer_of_a_revert_alone_gives_the_same_columns() -> None:
    found = read_answer(reverted()["apply"])
    assert found
    assert collect_facts(found)["validation"] == facts(reverted())["validation"]


@pytest.mark.parametrize(
    ("worded", "row"),
    [
        ("timestamp with time zone null", ["c", "timestamp with time zone", "", "", ""]),
        ("smallint not null default 5", ["c", "smallint", "", "not null", "5"]),
        (
            "character varying(40) collate \"C\" null default 'a null default'::text",
            ["c", "character varying(40)", '"C"', "", "'a null default'::text"],
        ),
        (
            "bigint not null generated always as identity",
            ["c", "bigint", "", "not null", "generated always as identity"],
        ),
        (
            "integer null generated always as (a + 1) stored",
            ["c", "integer", "", "", "generated always as (a + 1) stored"],
        ),
        ("text not null (not valid)", ["c", "text", "", "not null (not valid)", ""]),
        ("missing", ["c", "missing", "", "", ""]),
        (None, ["c", "unknown", "", "", ""]),
    ],
)
def test_a_column_is_shown_as_psql_describes_it(worded: str | None, row: list[str]) -> None:
    assert describe_as_psql("c", worded) == row


def test_what_prisma_does_next_is_what_was_seen_last_and_the_row_is_the_applys() -> None:
    assert facts(INCIDENT)["prisma"]["state"] == "recorded"
    assert facts(INCIDENT)["prisma"]["recorded_here"] is True
    assert facts(output("plan"))["prisma"]["state"] == "not_recorded"
    assert facts(output("plan"))["prisma"]["recorded_here"] is False
    whole = output("plan")
    whole["plan"]["prisma"] |= {"blocked_by": ["20260101000000_other"]}
    assert (
        "- Failed migrations, which block every deploy: `20260101000000_other`" in make_report(Run(whole))["markdown"]
    )
    whole["plan"]["prisma"] = None
    assert "## What Prisma does next\n\nNo answer says anything about Prisma.\n" in make_report(Run(whole))["markdown"]


@pytest.mark.parametrize(
    ("names", "error", "cause", "changed"),
    [
        ((), "RequestError", "No such key. Nothing was contacted.", False),
        (("plan",), "SqlRefusedError", "PostgreSQL refused it. Nothing was changed.", False),
        (("plan",), "OutcomeUnknownError", "The connection was lost at COMMIT.", None),
        (("plan",), "FunctionCallError", "The function gave no answer.", None),
        (("plan",), "TIMED_OUT", "It ran out of time.", None),
        (("plan", "apply"), "MismatchError", "It differs. Nothing was changed.", True),
        (("plan", "apply", "verify"), "EndpointCheckError", "HEAD answered 500.", True),
    ],
)
def test_whether_the_table_was_changed_is_told_or_said_to_be_unknown(
    names: tuple[str, ...], error: str, cause: str, changed: bool | None
) -> None:
    assert facts(output(*names), error, cause)["execution"]["changed"] is changed


@pytest.mark.parametrize(
    ("cause", "changed"),
    [
        ("It is busy. Nothing was changed.", False),
        ("It was lost.", None),
        ("It differs. Nothing was changed.\nBefore this failure the apply answered: applied.", None),
    ],
)
def test_of_a_failure_alone_no_more_is_said_than_its_text_does(cause: str, changed: bool | None) -> None:
    found = read_answer({"error": "MismatchError", "cause": cause})
    assert found
    assert collect_facts(found)["execution"]["changed"] is changed
    assert headings(make_report(found)["markdown"]) == HEADINGS


def test_what_was_not_checked_is_said_plainly() -> None:
    said = facts(planned(), "LockBusyError", BUSY)["not_checked"]
    assert said == [
        "The change itself: the apply failed, and changed nothing.",
        "The objects over a new connection: no verify answered.",
        "The endpoint: nobody called it.",
        "The application's log: nobody watched it.",
        "Who asked: names and reasons are self-declared. CloudTrail has the caller.",
        "The rows: this run read none. The owner of the data checks them.",
    ]
    assert facts(INCIDENT)["not_checked"] == said[-2:]


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (Run(planned()), "no apply ran."),
        (Run(output(), "RequestError", "No such key. Nothing was contacted."), "no apply ran."),
        # The failure alone does not tell at which of them it was.
        (Run({}, "LockBusyError", BUSY, partial=True), "this run changed nothing."),
    ],
)
def test_that_no_apply_ran_is_said_only_where_it_is_known(run: Run, line: str) -> None:
    assert f"The change itself: {line}" in collect_facts(run)["not_checked"]


@pytest.mark.parametrize(
    ("error", "names", "line"),
    [
        ("EndpointCheckError", (), "The endpoint: it failed, see the error."),
        ("WatchError", ("endpoint",), "The application's log: the watch failed, see the error."),
        # The minutes before the error prove nothing.
        ("ErrorsContinueError", ("endpoint", "watch"), "The application's log: the watch failed, see the error."),
    ],
)
def test_a_check_that_failed_is_not_told_as_one_that_nobody_made(error: str, names: tuple[str, ...], line: str) -> None:
    found = facts(output("plan", "apply", "verify", *names), error, "...")
    assert line in found["not_checked"]
    assert found["validation"]["watch_minutes"] is None


def test_a_check_of_the_machine_that_failed_is_no_line_of_the_functions_log() -> None:
    lines = facts(output("plan", "apply", "verify"), "EndpointCheckError", "HEAD answered 500.")["log_lines"]
    assert [line.split(" action=")[0] for line in lines] == ["INFO hotfix finished"] * 3
    lines = facts(planned(), "LockBusyError", BUSY)["log_lines"]
    assert lines[-1].startswith("ERROR hotfix failed action=apply error=LockBusyError requested_by=ana.souza")


@pytest.mark.parametrize(
    "value", ["2026-02-12T09:30:07.12-03:00", "2026-02-12T12:30:07.120Z", 1770899407.12, moment(1770899407.12)]
)
def test_a_time_is_told_in_utc_in_whatever_form_it_came(value: object) -> None:
    assert moment(value) == "2026-02-12T12:30:07.120+00:00"


@pytest.mark.parametrize("value", [None, "", "yesterday", 1e300, [], {}])
def test_what_is_no_time_is_left_out(value: object) -> None:
    assert moment(value) is None


def test_what_may_surprise_somebody_later_is_told_once_and_as_text() -> None:
    whole = output("plan", "apply", "verify", result="applied")
    text = "revert drops these with the column, so revert needs --force: index public.by_rating."
    for name in ("plan", "apply"):
        whole[name]["notes"] = [{"code": "revert_dependents", "text": text}, {"code": "other", "text": HOSTILE}]
    markdown = make_report(Run(whole))["markdown"]
    assert f"## What else to know\n\n- `{text}`\n- `" in markdown
    assert headings(markdown) == [*HEADINGS[:-2], "What else to know", *HEADINGS[-2:]]
    assert facts(whole)["notes"] == [text, HOSTILE]
    assert "What else to know" not in make_report(Run(output("plan")))["markdown"]


# What others have written


@pytest.mark.parametrize("failed", [False, True])
def test_no_text_from_outside_is_more_than_text(failed: bool) -> None:
    whole = output("plan", "apply", "verify", "endpoint", "watch", "result", "summary")
    whole["plan"]["blockers"] = [dict(BLOCKER)]
    for place, key in list(texts(whole)):
        place[key] = HOSTILE
    for column in (column for name in ("plan", "apply", "verify") for column in whole[name]["objects"]):
        column |= {"changed": True}
    markdown = make_report(Run(whole, HOSTILE if failed else None, HOSTILE, HOSTILE, steps=(HOSTILE,)))["markdown"]
    assert headings(markdown) == HEADINGS
    assert not kinds(markdown) & {"html_block", "html_inline", "table_open", "link_open", "image", "hr", "code_block"}
    assert not [sign for sign in "\u202e\x1b\u2028" if sign in markdown]


def test_each_single_text_from_outside_leaves_the_headings_as_they_are() -> None:
    for at in range(len(list(texts(INCIDENT)))):
        whole = copy.deepcopy(INCIDENT)
        place, key = list(texts(whole))[at]
        place[key] = HOSTILE
        assert headings(make_report(Run(whole))["markdown"]) == HEADINGS, key


@pytest.mark.parametrize(
    "whole", [{}, {"request": []}, {"plan": 3, "request": {"action": {}}}, {"apply": {"objects": 1}}]
)
def test_whatever_an_execution_was_started_with_there_is_a_report(whole: dict[str, Any]) -> None:
    made = kept(event(whole, "RequestError", "What is that? Nothing was contacted."))
    assert headings(made["markdown"]) == HEADINGS


def test_code_shows_backticks_as_they_are() -> None:
    assert code("a `b` c") == "``a `b` c``"
    assert code("`") == "`` ` ``"
    assert code(" ") == "`-`"
    assert block("a\n````\n") == "`````\na\n````\n`````"


def test_a_report_that_does_not_fit_is_left_out_and_all_else_is_there() -> None:
    whole = output("plan", "apply", "verify", "result", "summary")
    whole["plan"]["sql"] = "-- long\n" * 12_000
    made = end(event(whole))
    assert made["run"] == {"output": whole}
    assert made["message"]["subject"] == "pg-hotfix prod: applied"


@pytest.mark.parametrize("part", ["collect_facts", "write_document"])
def test_a_defect_in_the_report_costs_neither_the_message_nor_the_text(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed = event(planned(), "LockBusyError", BUSY)
    whole = end(failed)

    def fail(_: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(report, part, fail)
    assert end(failed) == whole | {"run": {"output": planned()}}
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "report failed")
    assert "KeyError: 'a defect'" in caplog.text


def test_a_report_ends_in_the_line_that_prints_it_again() -> None:
    assert kept(event(INCIDENT))["markdown"].endswith(
        f"\n\nTo print this report again:\n\n```sh\n./pg-hotfix report {ARN}\n```\n"
    )
    assert "report again" not in make_report(Run(INCIDENT))["markdown"]


def test_whatever_the_function_answers_the_state_machine_can_hold() -> None:
    """The nearest to its limit that a report comes."""
    whole = output("plan", "apply", "verify", "result", "summary")
    sizes = set()
    for length in range(20_000, 100_000, 500):
        whole["plan"]["sql"] = "-" * length
        made = end(event(whole))
        if "report" in made["run"]["output"]:
            sizes.add(size_of(made))
    assert LARGEST_STATE_BYTES - 3 * report.RESERVED_BYTES < max(sizes) <= LARGEST_STATE_BYTES - report.RESERVED_BYTES
