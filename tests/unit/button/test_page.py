"""The widget's HTML, made from data: every state, and no text from outside ever becomes markup."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_hotfix_button import style
from pg_hotfix_button.executions import Execution, Step
from pg_hotfix_button.markup import REPLACEMENT, UNPRINTABLE, Html, element, escape
from pg_hotfix_button.overview import Seen, show_overview
from pg_hotfix_button.parts import Viewer, show_notice
from pg_hotfix_button.progress import show_execution
from pg_hotfix_button.words import say_duration, say_size, say_steps
from tests.samples import BLOCKER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ID = "20260212092000_add_drivers_active_since"
OLDER = "20260101080000_add_orders_note"
HASH = "57b1ed0e" * 8
ENDPOINT = "arn:aws:lambda:sa-east-1:123456789012:function:pg-hotfix-prod-button"
MACHINE = "arn:aws:states:sa-east-1:123456789012:execution:pg-hotfix-prod-hotfix"
NOW = datetime(2026, 2, 12, 12, 30, tzinfo=UTC)
VIEWER = Viewer(ENDPOINT, "prod")

COLUMN = {
    "schema": "public",
    "table": "drivers",
    "name": "public.drivers.active_since",
    "expected": "timestamp with time zone null",
    "actual": "missing",
    "matches": False,
}
PLAN: dict[str, Any] = {
    "objects": [COLUMN],
    "tables": [
        {
            "schema": "public",
            "table": "drivers",
            "owner": "kaviar_app",
            "estimated_rows": 1200,
            "estimated_bytes": 98304,
        }
    ],
    "database": {"host": "db.example", "name": "kaviar", "user": "kaviar_app", "server_version": "16.4"},
    "blockers": [],
    "sql": 'ALTER TABLE "drivers" ADD COLUMN IF NOT EXISTS "active_since" TIMESTAMPTZ NULL;\n',
    "plan_hash": HASH,
}


def make_execution(action: str = "plan", status: str = "SUCCEEDED", **fields: Any) -> Execution:
    made = Execution(
        arn=f"{MACHINE}:{action}-{ID}-0a1b2c3d",
        name=f"{action}-{ID}-0a1b2c3d",
        status=status,
        started=NOW - timedelta(seconds=90),
        stopped=None if status == "RUNNING" else NOW - timedelta(seconds=88),
        request={"action": action, "hotfix": ID, "requested_by": "ana", "reason": "INC-4711"},
        output={},
        error=None,
        cause=None,
    )
    return replace(made, **fields)


def missing(**plan: Any) -> Execution:
    summary = "public.drivers.active_since missing; apply would run the file; nobody is in the way now."
    return make_execution(output={"result": "would_apply", "summary": summary, "plan": PLAN | plan})


def there() -> Execution:
    column = COLUMN | {"actual": COLUMN["expected"], "matches": True}
    summary = "public.drivers.active_since already as expected; nothing was run."
    plan = PLAN | {"objects": [column], "sql": None}
    return make_execution(output={"result": "already_applied", "summary": summary, "plan": plan})


def overview(look: Execution, *recent: Execution, steps: Sequence[Step] = (), viewer: Viewer = VIEWER) -> Page:
    return parse(show_overview(viewer, Seen([ID, OLDER], ID, look, steps, recent, NOW)))


def progress(execution: Execution, *steps: Step) -> Page:
    return parse(show_execution(VIEWER, execution, steps, NOW))


def entered(*states: str) -> list[Step]:
    return [Step(NOW, state, "Task") for state in states]


def failing(state: str, error: str, attempt: int = 1, text: str = "Why, and what to do.") -> Step:
    return Step(NOW, state, "Task", attempt, error, text)


# Reading HTML as a browser does


@dataclass
class Action:
    """A button, and what a click on it does."""

    label: str
    attributes: dict[str, str | None]
    event: Any


@dataclass
class Page:
    """`skeleton` is all the markup that there is: tags, and names of attributes."""

    text: str = ""
    skeleton: list[Any] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def action(self, label: str) -> Action:
        (found,) = [action for action in self.actions if action.label == label]
        return found

    @property
    def labels(self) -> list[str]:
        return [action.label for action in self.actions]


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page, self.open = Page(), list[str]()
        self.last = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.skeleton.append((tag, [name for name, _ in attrs]))
        self.page.values += [value or "" for _, value in attrs]
        if tag == "cwdb-action":
            self.page.actions.append(Action(self.last, dict(attrs), None))
        if tag != "input":
            self.open.append(tag)
        self.last = ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.page.skeleton.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if self.open[-1] == "cwdb-action":
            self.page.actions[-1].event = json.loads(data)
        elif self.open[-1] != "style":
            self.last += data
            self.page.text += data

    def refuse(self, data: str) -> None:
        raise AssertionError(f"neither tag nor text: {data}")

    handle_comment = handle_decl = handle_pi = unknown_decl = refuse  # type: ignore[assignment]


def parse(page: Html) -> Page:
    reader = Reader()
    reader.feed(page.source)
    reader.close()
    assert reader.open == []
    return reader.page


# What is offered


def test_a_missing_column_is_shown_with_the_button_bound_to_the_plan() -> None:
    page = overview(missing())
    for said in ("pg-hotfix · prod", "Not applied yet", "public.drivers.active_since", "No, missing", "db.example"):
        assert said in page.text
    assert "about 1,200 rows, 96 kB, owned by kaviar_app" in page.text
    assert 'ADD COLUMN IF NOT EXISTS "active_since"' in page.text
    apply = page.action("Apply to prod")
    assert apply.event == {"action": "apply", "hotfix": ID, "plan_hash": HASH}
    assert apply.attributes == {
        "action": "call",
        "display": "popup",
        "endpoint": ENDPOINT,
        "event": "click",
        "confirmation": f"Apply {ID} to prod (database kaviar on db.example)? "
        "It runs under a short lock, is proved, and committed.",
    }


def test_the_form_asks_for_reason_and_name_and_keeps_what_is_typed() -> None:
    page = overview(missing(), viewer=replace(VIEWER, typed={"reason": "INC-4711"}))
    fields = [names for tag, names in (part for part in page.skeleton if isinstance(part, tuple)) if tag == "input"]
    assert [("name" in names, "value" in names) for names in fields] == [(True, True), (True, False)]
    assert {"reason", "requested_by", "INC-4711"} <= set(page.values)


@pytest.mark.parametrize(
    ("look", "word"),
    [
        (there(), "Already applied"),
        (make_execution(status="RUNNING"), "Planning"),
        (make_execution(status="FAILED", error="TlsError", cause="No."), "The plan failed"),
        (make_execution(status="TIMED_OUT"), "The plan failed"),
        (make_execution(status="ABORTED"), "The plan failed"),
        (make_execution(status="PENDING_REDRIVE"), "The plan failed"),
        (make_execution(output={"result": "odd", "plan": PLAN}), "Unknown result: odd"),
        (make_execution(output={"plan": PLAN}), "Ended without a result"),
        (replace(missing(), status="FAILED"), "The plan failed"),
        (missing(plan_hash=None), "Not applied yet"),
    ],
)
def test_without_something_to_do_there_is_no_apply(look: Execution, word: str) -> None:
    page = overview(look)
    assert word in page.text
    assert "apply" not in [(action.event or {}).get("action") for action in page.actions]


def test_while_an_apply_runs_its_progress_is_offered_instead_of_another() -> None:
    running = make_execution("apply", "RUNNING")
    page = overview(missing(), running)
    assert "ana has started an apply." in page.text
    assert "Apply to prod" not in page.labels
    assert page.action("Show its progress").event == {"execution": running.arn}


def test_an_apply_of_another_hotfix_is_not_in_the_way() -> None:
    running = make_execution("apply", "RUNNING", request={"action": "apply", "hotfix": OLDER})
    assert "Apply to prod" in overview(missing(), running).labels


def test_other_hotfixes_are_links_to_the_widget_itself() -> None:
    link = overview(there()).action(OLDER)
    assert (link.event, link.attributes["display"]) == ({"hotfix": OLDER}, "widget")


# What is said


def test_the_notes_of_a_plan_stand_beside_its_button() -> None:
    notes = [{"code": "column_grants", "text": f"{role} has no right on the new column."} for role in ("api", "jobs")]
    text = overview(missing(notes=notes)).text
    assert "What else to know" in text
    assert all(note["text"] in text for note in notes)
    assert "What else to know" not in overview(missing()).text


def test_each_blocker_is_named_by_its_text() -> None:
    others = [f"pid {number} (billing), ROW EXCLUSIVE on public.drivers." for number in (9, 10)]
    text = overview(missing(blockers=[BLOCKER, *({"pid": 9, "text": other} for other in others)])).text
    assert f"In the way now{BLOCKER['text']}{''.join(others)}An apply waits for them" in text


def test_a_look_that_takes_long_says_how_far_it_is_and_what_it_meets() -> None:
    look = make_execution(status="RUNNING", started=NOW - timedelta(seconds=20))
    steps = [
        *entered("Plan"),
        failing("Plan", "DatabaseUnavailableError"),
        failing("Plan", "DatabaseUnavailableError", 2),
    ]
    text = overview(look, steps=steps).text
    assert "The plan has been running for 20 s. Refresh to see how it ends." in text
    assert "Plan: DatabaseUnavailableError, tried 2 times" in text
    assert "The state machine tries again after DatabaseUnavailableError:Why, and what to do." in text


def test_a_look_that_failed_gives_its_advice_and_the_rest_is_shown() -> None:
    cause = "The certificate does not verify.\nUpdate the bundle."
    failed = make_execution("apply", "FAILED", error="LockBusyError", cause="Busy.")
    page = overview(make_execution(status="FAILED", error="TlsError", cause=cause), failed)
    assert f"TlsError: {cause}" in page.text
    assert "Failed: LockBusyError" in page.text
    assert OLDER in page.labels


def test_the_last_executions_tell_who_asked_why_when_and_how_long() -> None:
    applied = make_execution("apply", output={"result": "applied"})
    unnamed = make_execution("verify", "RUNNING", request={"action": "verify", "hotfix": ID})
    page = overview(there(), unnamed, applied, viewer=replace(VIEWER, zone=timezone(timedelta(hours=-3))))
    assert "State: ✓ AppliedWhat: applyAsked by: anaWhy: INC-4711When: 2026-02-12 09:28:30 UTC-03:00 for 2.0 s" in (
        page.text.replace(f" {ID}", "")
    )
    assert "State: … RunningWhat: verifyAsked by: no name givenWhy: no reason givenWhen: 2026-02-12 09:28:30" in (
        page.text.replace(f" {ID}", "")
    )
    assert page.action(f"apply {ID}").event == {"execution": applied.arn}


def test_before_the_first_execution_there_is_none() -> None:
    assert "None yet." in overview(there()).text


def test_among_a_thousand_looks_there_may_be_none() -> None:
    page = parse(show_overview(VIEWER, Seen([ID], ID, there(), (), [], NOW, searched=1000)))
    assert "None among the last 1,000." in page.text
    assert "None yet." not in page.text


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE"])
def test_no_failure_is_shown_as_success(status: str) -> None:
    """Whatever its output says."""
    output = {"result": "applied", "summary": "All is well."}
    ended = make_execution("apply", status, output=output, error="SomeError")
    for source in (
        show_execution(VIEWER, ended, entered("Plan"), NOW).source,
        show_overview(VIEWER, Seen([ID], ID, make_execution(status="RUNNING"), (), [ended], NOW)).source,
    ):
        assert "✗" in source
        assert "✓" not in source
        assert "Applied" not in source
        assert "All is well" not in source
        assert 'class="pgh-state pgh-good"' not in source


def test_progress_shows_the_steps_the_last_failure_and_a_way_to_look_again() -> None:
    running = make_execution("apply", "RUNNING")
    busy = "public.drivers stayed locked.\nIn the way: pid 4711 (billing, nightly-report)."
    page = progress(running, *entered("Plan", "Apply"), failing("Apply", "LockBusyError", text=busy))
    assert "Running" in page.text
    assert "PlanApply: LockBusyError, tried once" in page.text
    assert f"The state machine tries again after LockBusyError:{busy}" in page.text
    assert "running for 1 min 30 s · ana · INC-4711" in page.text
    again = page.action("Look again")
    assert (again.event, again.attributes["display"]) == ({"execution": running.arn}, "popup")


def test_a_failure_that_was_overcome_is_only_counted() -> None:
    page = progress(make_execution("apply", "RUNNING"), *entered("Apply"), failing("Apply", "X"), *entered("Verify"))
    assert "Apply: X, tried onceVerify" in page.text
    assert "Why, and what to do." not in page.text


def test_the_end_shows_result_and_summary_and_the_checks_after_the_fix() -> None:
    output = {
        "result": "applied",
        "summary": "public.drivers.active_since applied, committed and proved.",
        "endpoint": {"status": 200},
        "watch": {"minutes": 5},
    }
    page = progress(make_execution("apply", output=output), *entered("Plan", "Apply", "Verify"))
    for said in (
        "✓ Applied",
        "public.drivers.active_since applied, committed and proved.",
        "The endpoint answers 200.",
        "The application's log was free of the error for 5 min.",
        "took 2.0 s · ana · INC-4711",
    ):
        assert said in page.text
    assert page.labels == []


@pytest.mark.parametrize(
    ("status", "fields", "said"),
    [
        (
            "FAILED",
            {"error": "LockBusyError", "cause": "public.drivers stayed locked.\nIn the way: pid 4711."},
            "In the way",
        ),
        ("FAILED", {"error": "States.Runtime"}, "The execution gave no reason."),
        (
            "TIMED_OUT",
            {"error": "States.Timeout"},
            "The execution ran out of time. Whether it has changed the database is not known",
        ),
        ("ABORTED", {}, "Somebody stopped the execution. Whether it has changed the database is not known"),
    ],
)
def test_the_end_shows_error_and_advice(status: str, fields: dict[str, Any], said: str) -> None:
    page = progress(make_execution("apply", status, **fields))
    assert said in page.text
    assert fields.get("error", "") in page.text
    assert "Look again" not in page.labels


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0.0 s"), (0.04, "0.0 s"), (9.96, "10.0 s"), (59.6, "1 min"), (340, "5 min 40 s"), (90_061, "1 d 1 h")],
)
def test_a_duration_is_said_in_two_units_at_most(seconds: float, said: str) -> None:
    assert say_duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 kB"), (98304, "96 kB"), (5 * 1024**5, "5120.0 TB")],
)
def test_a_size_is_said_with_its_unit(count: int, said: str) -> None:
    assert say_size(count) == said


def test_of_the_steps_only_calls_are_told_and_tries_that_fail_alike_are_counted() -> None:
    steps = [
        Step(NOW, "ReadRequest", "Pass"),
        *entered("Plan"),
        Step(NOW, "DecideByPlan", "Choice"),
        *entered("Apply"),
        failing("Apply", "LockBusyError"),
        Step(NOW, "Apply", "Task", 2),
        failing("Apply", "LockBusyError", 2),
        Step(NOW, "Apply", "Task", 3),
        failing("Apply", "OutcomeUnknownError", 3),
        Step(NOW, "Apply", "Task", 4),
        *entered("SearchLog", "SearchLog"),
    ]
    assert say_steps(steps) == [
        "Plan",
        "Apply: LockBusyError, tried 2 times",
        "Apply: OutcomeUnknownError, tried once",
        "SearchLog",
    ]
    assert say_steps([]) == []


# Escaping

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></pre></cwdb-action><b>",
    "<!-- ",
    "]]>",
    "&lt;b&gt;&amp;&#60;&quot",
    '{"action": "apply"}',
    "javascript:alert(1)",
    "\\u003cb\\u003e",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "\x00\x1b[31m",
    "\ud800",
    "a\r\nb\rc\td",
]
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(min_size=1, max_size=40),
    st.lists(st.sampled_from([*HOSTILE, "<", ">", '"', "'", "&", "/", "=", " "]), min_size=1, max_size=5).map("".join),
).filter(str.strip)


def draw_pages(text: Callable[[], str]) -> list[Html]:
    """Every page, each text of the outside drawn anew."""
    column = COLUMN | {key: text() for key in ("name", "expected", "actual")}
    blocker = BLOCKER | {"text": text()}
    plan = {
        "objects": [column],
        "tables": [PLAN["tables"][0] | {"schema": text(), "table": text(), "owner": text()}],
        "database": {key: text() for key in ("host", "name", "user", "server_version")},
        "blockers": [blocker],
        "notes": [{"code": text(), "text": text()}],
        "sql": f"x{text()}x",
        "plan_hash": text(),
    }
    request = {"action": "apply", "hotfix": f"x{text()}", "requested_by": text(), "reason": text()}
    failed = make_execution(status="FAILED", arn=text(), name=text(), request=request, error=f"x{text()}", cause=text())
    running = replace(failed, status="RUNNING", stopped=None, error=None, cause=None)
    done = make_execution(
        request={"action": text(), "reason": {"a list": [text()]}},
        output={"result": "applied", "summary": text(), "endpoint": {"status": text()}, "watch": {"minutes": text()}},
    )
    look = make_execution(output={"result": "would_apply", "summary": text(), "plan": plan})
    viewer = Viewer(text(), text(), typed={"reason": text(), "requested_by": text()})
    hotfixes = [f"a{text()}", f"b{text()}"]
    steps = [*entered(f"1{text()}"), failing(f"2{text()}", f"x{text()}", text=text())]
    busy = replace(running, request=request | {"hotfix": hotfixes[0]})
    return [
        show_overview(viewer, Seen(hotfixes, hotfixes[0], look, (), [failed, running, done], NOW)),
        show_overview(viewer, Seen(hotfixes, hotfixes[0], failed, (), [busy], NOW)),
        show_overview(viewer, Seen(hotfixes, hotfixes[0], running, steps, [], NOW)),
        show_execution(viewer, running, steps, NOW),
        show_execution(viewer, failed, steps, NOW),
        show_execution(viewer, done, steps, NOW),
        show_notice(viewer, text(), text(), hotfixes),
    ]


HARMLESS = [parse(page).skeleton for page in draw_pages(lambda: "harmless")]


@given(st.lists(texts, min_size=1, max_size=9))
def test_no_text_from_outside_becomes_markup(drawn: list[str]) -> None:
    """The markup is the same whatever the texts are, and the texts are all there to read."""
    turns = itertools.cycle(drawn)
    pages = [parse(page) for page in draw_pages(lambda: next(turns))]
    assert [page.skeleton for page in pages] == HARMLESS
    seen = "\n".join("\n".join([page.text, *page.values, *(str(one.event) for one in page.actions)]) for page in pages)
    for one in drawn:
        readable = UNPRINTABLE.sub(REPLACEMENT, one.replace("\r\n", "\n")).strip("\n")
        assert readable in seen or json.dumps(one)[1:-1] in seen or repr(one)[1:-1] in seen


@given(texts)
def test_what_a_click_sends_is_what_was_meant_read_as_text_or_as_markup(hostile: str) -> None:
    page = show_overview(VIEWER, Seen([ID, hostile], ID, there(), (), [], NOW))
    content = page.source.rpartition("<cwdb-action")[2].partition(">")[2].partition("</cwdb-action>")[0]
    assert not set("<>&") & set(content)
    assert json.loads(content) == {"hotfix": hostile}


@given(st.text())
def test_what_is_escaped_can_be_sent_as_utf_8(text: str) -> None:
    escape(text).encode()


def test_a_text_is_escaped_and_markup_is_not() -> None:
    assert element("p", "<b>", Html("<i>"), None, title='"').source == '<p title="&quot;">&lt;b&gt;<i></p>'


@given(
    st.dictionaries(
        st.sampled_from(["action", "hotfix", "requested_by", "reason"]), st.none() | st.integers() | st.lists(st.text())
    )
)
def test_an_execution_started_with_any_json_is_shown(request: dict[str, Any]) -> None:
    overview(there(), make_execution("apply", "FAILED", request=request))
    progress(make_execution("apply", "FAILED", request=request))


@given(
    st.dictionaries(
        st.sampled_from(["objects", "tables", "database", "blockers", "notes", "sql"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers() | st.just({})),
    )
)
def test_a_plan_of_another_version_is_shown_as_far_as_it_goes(plan: dict[str, Any]) -> None:
    overview(missing(**plan))


# Style


def luminance(colour: str) -> float:
    channels = [int(colour[position : position + 2], 16) / 255 for position in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("palette", [style.LIGHT, style.DARK])
def test_every_text_can_be_read_on_its_ground(palette: dict[str, str]) -> None:
    pairs = [(tone, ground) for tone in ("good", "warn", "bad", "busy") for ground in ("ground", f"{tone}_tint")]
    pairs += [("text", f"{tone}_tint") for tone in ("good", "warn", "bad", "busy")]
    pairs += [("text", "ground"), ("text", "code"), ("muted", "ground"), ("link", "ground"), ("button_text", "link")]
    low = {pair: round(contrast(palette[pair[0]], palette[pair[1]]), 1) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
    assert contrast(palette["field"], palette["ground"]) >= 3


def test_a_theme_reaches_neither_another_widget_nor_an_older_popup() -> None:
    light, dark = style.stylesheet(dark=False), style.stylesheet(dark=True)
    assert light != dark
    assert style.DARK["ground"] in dark
    for root, rules in (("light", light), ("dark", dark)):
        selectors = [one.strip() for rule in rules.split("}")[:-1] for one in rule.partition("{")[0].split(",")]
        assert [one for one in selectors if not one.startswith(f".pgh-{root}")] == []
        assert f'class="pgh-{root} ' in show_notice(replace(VIEWER, dark=root == "dark"), "", "").source


def test_whatever_is_pressed_is_a_button_within_the_link_that_an_action_follows() -> None:
    """CloudWatch binds an action to the element right before it; in AWS's samples that is always such a link."""
    running = make_execution("apply", "RUNNING")
    bound = ("a", ["class"]), ("button", ["type"]), "/button", "/a"
    titled = ("a", ["class"]), ("button", ["type", "title"]), "/button", "/a"
    for page in (overview(missing(), make_execution("apply")), overview(missing(), running), progress(running)):
        found = [at for at, part in enumerate(page.skeleton) if part[0] == "cwdb-action"]
        assert len(found) == len(page.actions) > 0
        assert all(tuple(page.skeleton[at - 4 : at]) in (bound, titled) for at in found)
        # Without an href a click leads nowhere by itself.
        pressed = [part[0] for part in page.skeleton if part[0] in ("a", "button")]
        assert pressed == ["a", "button"] * len(found)
        assert [value for value in page.values if value.startswith("btn ")] == [
            value for value in page.values if value in ("btn btn-primary", "btn pgh-link")
        ]


def test_nothing_needs_a_script() -> None:
    pages = [overview(missing(blockers=[BLOCKER])), overview(there()), progress(make_execution("apply", "RUNNING"))]
    tags = {part[0] for page in pages for part in page.skeleton if isinstance(part, tuple)}
    assert not tags & {"script", "iframe", "object", "link", "img", "use"}
    names = {name for page in pages for part in page.skeleton if isinstance(part, tuple) for name in part[1]}
    assert [name for name in names if name.startswith("on")] == []
