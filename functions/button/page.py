"""What the widget shows, as HTML made from data alone: no clock, no network, no JavaScript."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

from markup import Html, element, join, on_click
from style import root_of, stylesheet
from words import (
    find_failure,
    has_succeeded,
    say_cause,
    say_doing,
    say_duration,
    say_lock,
    say_state,
    say_steps,
    say_table,
    say_waiting,
    say_who,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from executions import Execution, Step
    from markup import Content

# A sign beside the word, so that no state is told by its colour alone.
SIGNS = {"good": "\N{CHECK MARK}", "warn": "\N{BLACK UP-POINTING TRIANGLE}", "bad": "\N{BALLOT X}", "busy": "\u2026"}


@dataclass(frozen=True)
class Viewer:
    """Who looks: `endpoint` is the function that the widget's own buttons call; theme and zone are the dashboard's;
    `typed` is what stands in the form, which a refresh would empty."""

    endpoint: str
    environment: str
    dark: bool = False
    narrow: bool = False
    zone: tzinfo = UTC
    typed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """All that a refresh has found out. `steps` are those of a look that still runs; `recent` are the last executions
    that could have changed something or proved it, the newest first."""

    hotfixes: Sequence[str]
    chosen: str
    look: Execution
    steps: Sequence[Step]
    recent: Sequence[Execution]
    now: datetime

    @property
    def plan(self) -> dict[str, Any]:
        plan = self.look.output.get("plan")
        return plan if isinstance(plan, dict) else {}

    @property
    def applying(self) -> Execution | None:
        """The apply of this hotfix that runs now."""
        return next((one for one in self.recent if one.is_running and asks_for(one, "apply", self.chosen)), None)

    @property
    def may_apply(self) -> bool:
        """Whether there is something to do, and nobody does it yet."""
        is_missing = self.look.status == "SUCCEEDED" and self.look.output.get("result") == "would_apply"
        return is_missing and bool(self.plan.get("plan_hash")) and self.applying is None


def asks_for(execution: Execution, action: str, hotfix: str) -> bool:
    return execution.request.get("action") == action and execution.request.get("hotfix") == hotfix


# Pages


def show_overview(viewer: Viewer, seen: Seen) -> Html:
    """The state of one hotfix, what could be done about it, and what was done last."""
    return frame(
        viewer,
        head(viewer, describe_database(seen.plan)),
        show_look(seen),
        show_columns(seen.plan),
        show_blockers(seen.plan),
        show_sql(seen),
        show_apply(viewer, seen),
        show_recent(viewer, seen),
        show_others(viewer, seen),
    )


def show_execution(viewer: Viewer, execution: Execution, steps: Sequence[Step], now: datetime) -> Html:
    """How far an execution has come, or how it ended; as long as it runs, a button to look again."""
    request = execution.request
    tone = tone_of(execution)
    asked = [text_of(request.get("requested_by")), text_of(request.get("reason"))]
    facts = [f"took {say_duration(seconds_of(execution, now))}", *filter(None, asked), execution.name]
    if execution.is_running:
        facts[0] = f"running for {say_duration(seconds_of(execution, now))}"
    link = on_click(
        button("Look again", "btn btn-primary"), viewer.endpoint, {"execution": execution.arn}, display="popup"
    )
    return frame(
        viewer,
        head(viewer, f"{text_of(request.get('action'))} {text_of(request.get('hotfix'))}"),
        state(tone, say_state(execution), None, *say_outcome(execution, steps)),
        heading("Steps so far" if execution.is_running else "Steps"),
        list_steps(steps),
        element("div", link, class_="pgh-buttons") if execution.is_running else None,
        element("p", " \N{MIDDLE DOT} ".join(facts), class_="pgh-muted pgh-end"),
        element("p", muted("Refresh the widget to see what is there now.")) if execution.stopped else None,
    )


def show_notice(viewer: Viewer, title: str, text: str, hotfixes: Sequence[str] = ()) -> Html:
    """Why there is nothing else to see, and what to do; with the packaged hotfixes, if one of them may help."""
    others = element("ul", *[element("li", choose(viewer, hotfix)) for hotfix in hotfixes]) if hotfixes else None
    return frame(viewer, head(viewer, None), state("bad", title, None, element("pre", text)), others)


# Parts


def frame(viewer: Viewer, *content: Content) -> Html:
    style = element("style", Html(stylesheet(dark=viewer.dark)))
    narrow = " pgh-narrow" if viewer.narrow else ""
    return element("div", style, *content, class_=f"{root_of(dark=viewer.dark)}{narrow} cwdb-no-default-styles")


def head(viewer: Viewer, detail: str | None) -> Html:
    title = element("h2", f"pg-hotfix \N{MIDDLE DOT} {viewer.environment}")
    return element("div", title, muted(detail) if detail else None, class_="pgh-head")


def describe_database(plan: Mapping[str, Any]) -> str | None:
    database = database_of(plan)
    if not database:
        return None
    return (
        f"database {database.get('name')} on {database.get('host')}, PostgreSQL {database.get('server_version')}, "
        f"as {database.get('user')}"
    )


def state(tone: str, word: str, what: Content, *content: Content) -> Html:
    title = element("h3", marked(tone, word), what)
    return element("div", title, *content, class_=f"pgh-state pgh-{tone}")


def marked(tone: str, word: str) -> Html:
    """The word, its sign before it, in its colour."""
    sign = element("span", f"{SIGNS[tone]} ", aria_hidden="true")
    return element("span", sign, word, class_=f"pgh-word pgh-is-{tone}")


def muted(text: str) -> Html:
    return element("span", text, class_="pgh-muted")


def heading(text: str) -> Html:
    return element("h4", text)


def table(titles: Sequence[str], rows: Iterable[Sequence[Content]]) -> Html:
    """The first cell of each row is its heading. In a narrow widget each cell is a line, with its title before it."""
    header = element("tr", *[element("th", title, scope="col") for title in titles])
    body = []
    for row in rows:
        first, *rest = [
            join(element("span", f"{title}: ", class_="pgh-title"), cell)
            for title, cell in zip(titles, row, strict=True)
        ]
        body.append(element("tr", element("th", first, scope="row"), *[element("td", cell) for cell in rest]))
    whole = element("table", element("thead", header), element("tbody", *body))
    return element("div", whole, class_="pgh-scroll")


def button(label: str, class_: str) -> Html:
    # A button and not a link, since it can be reached and pressed with the keyboard.
    return element("button", label, type="button", class_=class_)


def choose(viewer: Viewer, hotfix: str) -> Html:
    return on_click(button(hotfix, "btn pgh-link"), viewer.endpoint, {"hotfix": hotfix})


def show_look(seen: Seen) -> Html:
    look, name = seen.look, element("code", seen.chosen)
    if look.is_running:
        waited = f"The look takes long: {say_duration(seconds_of(look, seen.now))} so far."
        told = element("p", f"{waited} Refresh to see how it ends.")
        return state("busy", "Looking", name, told, list_steps(seen.steps), *say_failure(seen.steps))
    if not has_succeeded(look):
        problem = f"{look.error or say_state(look)}: {say_cause(look)}"
        return state("bad", "The look failed", name, element("pre", problem))
    return state(tone_of(look), say_state(look), name, element("p", text_of(look.output.get("summary"))))


def show_columns(plan: Mapping[str, Any]) -> Html | None:
    rows: list[list[Content]] = [
        [
            element("code", text_of(one.get("name"))),
            text_of(one.get("expected")),
            text_of(one.get("actual")),
            judge(one),
        ]
        for one in objects_of(plan, "columns")
    ]
    if not rows:
        return None
    sizes = [f"{one.get('schema')}.{one.get('table')}: {say_table(one)}" for one in objects_of(plan, "tables")]
    return join(
        heading("Columns"),
        table(["Column", "Expected", "Actual", "Matches"], rows),
        *[element("p", size, class_="pgh-muted") for size in sizes],
    )


def judge(column: Mapping[str, Any]) -> Html:
    if column.get("matches") is True:
        return marked("good", "Yes")
    return marked("warn", "No, missing") if column.get("actual") == "missing" else marked("bad", "No, differs")


def show_blockers(plan: Mapping[str, Any]) -> Html | None:
    blockers = objects_of(plan, "blockers")
    if not blockers:
        return None
    rows = [[say_who(one), say_doing(one), say_lock(one), say_waiting(one)] for one in blockers]
    note = "An apply waits for them outside the lock queue, so nobody waits behind it; it gives up after a while."
    return join(
        heading("In the way now"),
        table(["Who", "What it does", "Lock", "Waits for"], rows),
        element("p", note, class_="pgh-muted"),
    )


def show_sql(seen: Seen) -> Html | None:
    sql = text_of(seen.plan.get("sql"))
    return join(heading("What would run"), element("pre", sql.strip("\n"), class_="pgh-sql")) if sql else None


def show_apply(viewer: Viewer, seen: Seen) -> Html | None:
    """The form and the button, only when there is something to do; else the way to whoever does it already."""
    if seen.applying:
        progress = on_click(
            button("Show its progress", "btn btn-primary"),
            viewer.endpoint,
            {"execution": seen.applying.arn},
            display="popup",
        )
        who = text_of(seen.applying.request.get("requested_by")) or "somebody"
        return element("div", progress, element("span", f"An apply runs, asked for by {who}."), class_="pgh-buttons")
    if not seen.may_apply:
        return None
    database = database_of(seen.plan)
    where = f"{viewer.environment} (database {database.get('name')} on {database.get('host')})"
    apply = on_click(
        button(f"Apply to {viewer.environment}", "btn btn-primary"),
        viewer.endpoint,
        {"action": "apply", "hotfix": seen.chosen, "plan_hash": seen.plan["plan_hash"]},
        display="popup",
        confirmation=f"Apply {seen.chosen} to {where}? It runs under a short lock, is proved, and committed.",
    )
    note = "Refused if the file, the database or the column is no longer what you see here."
    return join(
        element(
            "form",
            fill_in("Reason, such as the incident", "reason", viewer.typed),
            fill_in("Your name", "requested_by", viewer.typed),
            class_="pgh-form",
        ),
        element("div", apply, muted(note), class_="pgh-buttons"),
    )


def fill_in(label: str, name: str, typed: Mapping[str, str]) -> Html:
    # Two fields and no submit button: the Enter key sends nothing.
    value = typed.get(name)
    return element(
        "label", label, element("input", type="text", name=name, value=value, maxlength="200", autocomplete="off")
    )


def show_recent(viewer: Viewer, seen: Seen) -> Html:
    title = heading("Last executions")
    if not seen.recent:
        return join(title, element("p", "None yet.", class_="pgh-muted"))
    rows: list[list[Content]] = [
        [
            marked(tone_of(one), say_state(one) if not one.error else f"{say_state(one)}: {one.error}"),
            show_link(viewer, one),
            join(text_of(one.request.get("requested_by")) or muted("no name given")),
            text_of(one.request.get("reason")) or muted("no reason given"),
            join(f"{say_time(viewer, one.started)} ", muted(f"for {say_duration(seconds_of(one, seen.now))}")),
        ]
        for one in seen.recent
    ]
    return join(title, table(["State", "What", "Asked by", "Why", "When"], rows))


def show_link(viewer: Viewer, execution: Execution) -> Html:
    """What was asked for, as a link to how it went."""
    request = execution.request
    what = f"{text_of(request.get('action'))} {text_of(request.get('hotfix'))}".strip() or execution.name
    link = element("button", what, type="button", class_="btn pgh-link", title=execution.name)
    return on_click(link, viewer.endpoint, {"execution": execution.arn}, display="popup")


def show_others(viewer: Viewer, seen: Seen) -> Html | None:
    others = [hotfix for hotfix in seen.hotfixes if hotfix != seen.chosen]
    if not others:
        return None
    return join(
        heading("Other packaged hotfixes"),
        element("ul", *[element("li", choose(viewer, hotfix)) for hotfix in others]),
    )


# Words and figures of an execution


def tone_of(execution: Execution) -> str:
    if execution.is_running:
        return "busy"
    if not has_succeeded(execution):
        return "bad"
    return "warn" if execution.output["result"] == "would_apply" else "good"


def say_outcome(execution: Execution, steps: Sequence[Step]) -> list[Html]:
    """Result and summary, or error and advice; while it runs, what it has met."""
    if execution.is_running:
        return say_failure(steps)
    if not has_succeeded(execution):
        error = element("p", element("strong", execution.error)) if execution.error else Html("")
        return [error, element("pre", say_cause(execution))]
    outcome = [element("p", text_of(execution.output.get("summary")))]
    endpoint, watch = execution.output.get("endpoint"), execution.output.get("watch")
    if isinstance(endpoint, dict):
        outcome += [element("p", f"The endpoint that failed answers {text_of(endpoint.get('status'))}.")]
    if isinstance(watch, dict):
        outcome += [
            element("p", f"The application's log was free of the error for {text_of(watch.get('minutes'))} min.")
        ]
    return outcome


def say_failure(steps: Sequence[Step]) -> list[Html]:
    """What is tried again by itself, and why it failed before."""
    failure = find_failure(steps)
    if failure is None:
        return []
    return [element("p", f"It tries again by itself after {failure.error}:"), element("pre", failure.text)]


def list_steps(steps: Sequence[Step]) -> Html:
    return element("ol", *[element("li", step) for step in say_steps(steps)])


def seconds_of(execution: Execution, now: datetime) -> float:
    return ((execution.stopped or now) - execution.started).total_seconds()


def say_time(viewer: Viewer, moment: datetime) -> str:
    there = moment.astimezone(viewer.zone)
    return f"{there:%Y-%m-%d %H:%M:%S} {there.tzname()}"


def text_of(value: object) -> str:
    """The value as text, whatever somebody has sent: a machine can be started with any JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def database_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    found = plan.get("database")
    return found if isinstance(found, dict) else {}


def objects_of(plan: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = plan.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
