"""The page of one hotfix: its state, the button that applies it, and the last executions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pg_hotfix_button.markup import Html, element, join, on_click
from pg_hotfix_button.parts import button, choose, frame, head, heading, marked, muted, state, table
from pg_hotfix_button.progress import list_steps, say_failure
from pg_hotfix_button.words import (
    database_of,
    has_failed,
    objects_of,
    say_cause,
    say_duration,
    say_state,
    say_table,
    say_time,
    seconds_of,
    text_of,
    tone_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pg_hotfix_button.executions import Execution, Step
    from pg_hotfix_button.markup import Content
    from pg_hotfix_button.parts import Viewer


@dataclass(frozen=True)
class Seen:
    """What a refresh has found. `look` is an execution that plans; `steps` are its steps while it runs. `recent` are
    the last executions that could have changed or proved something, the newest first, found among the last `searched`,
    or among all if that is None."""

    hotfixes: Sequence[str]
    chosen: str
    look: Execution
    steps: Sequence[Step]
    recent: Sequence[Execution]
    now: datetime
    searched: int | None = None

    @property
    def plan(self) -> dict[str, Any]:
        plan = self.look.output.get("plan")
        return plan if isinstance(plan, dict) else {}

    @property
    def applying(self) -> Execution | None:
        """The apply of this hotfix that runs now."""
        return next((one for one in self.recent if one.is_running and asks_for(one, "apply", self.chosen)), None)

    @property
    def is_missing(self) -> bool:
        """Whether a plan has ended and says that there is something to apply."""
        has_seen = self.look.status == "SUCCEEDED" and self.look.output.get("result") == "would_apply"
        return has_seen and bool(self.plan.get("plan_hash"))


def asks_for(execution: Execution, action: str, hotfix: str) -> bool:
    return execution.request.get("action") == action and execution.request.get("hotfix") == hotfix


def show_overview(viewer: Viewer, seen: Seen) -> Html:
    """The state of one hotfix, the button that applies it, and the last executions."""
    return frame(
        viewer,
        head(viewer, describe_database(seen.plan)),
        show_look(seen),
        show_columns(seen.plan),
        show_blockers(seen.plan),
        show_notes(seen.plan),
        show_sql(seen),
        show_apply(viewer, seen),
        show_recent(viewer, seen),
        show_others(viewer, seen),
    )


def describe_database(plan: Mapping[str, Any]) -> str | None:
    database = database_of(plan)
    if not database:
        return None
    return (
        f"database {database.get('name')} on {database.get('host')}, PostgreSQL {database.get('server_version')}, "
        f"as {database.get('user')}"
    )


def show_look(seen: Seen) -> Html:
    look, name = seen.look, element("code", seen.chosen)
    if look.is_running:
        waited = f"The plan has been running for {say_duration(seconds_of(look, seen.now))}."
        told = element("p", f"{waited} Refresh to see how it ends.")
        return state("busy", "Planning", name, told, list_steps(seen.steps), *say_failure(seen.steps))
    if has_failed(look):
        problem = f"{look.error or say_state(look)}: {say_cause(look)}"
        return state("bad", "The plan failed", name, element("pre", problem))
    return state(tone_of(look), say_state(look), name, element("p", text_of(look.output.get("summary"))))


def show_columns(plan: Mapping[str, Any]) -> Html | None:
    rows: list[list[Content]] = [
        [
            element("code", text_of(one.get("name"))),
            text_of(one.get("expected")),
            text_of(one.get("actual")),
            judge(one),
        ]
        for one in objects_of(plan, "objects")
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
    note = "An apply waits for them outside the lock queue, so no session waits behind it. It gives up after a while."
    return join(
        heading("In the way now"),
        element("ul", *[element("li", text_of(one.get("text"))) for one in blockers]),
        element("p", note, class_="pgh-muted"),
    )


def show_notes(plan: Mapping[str, Any]) -> Html | None:
    notes = [element("p", text_of(one.get("text"))) for one in objects_of(plan, "notes")]
    return join(heading("What else to know"), *notes) if notes else None


def show_sql(seen: Seen) -> Html | None:
    sql = text_of(seen.plan.get("sql"))
    return join(heading("What would run"), element("pre", sql.strip("\n"), class_="pgh-sql")) if sql else None


def show_apply(viewer: Viewer, seen: Seen) -> Html | None:
    """The form and the button if there is something to do; a link to the apply that already runs, if there is one."""
    if seen.applying:
        progress = on_click(
            button("Show its progress", "btn-primary"),
            viewer.endpoint,
            {"execution": seen.applying.arn},
            display="popup",
        )
        who = text_of(seen.applying.request.get("requested_by")) or "Somebody"
        return element("div", progress, element("span", f"{who} has started an apply."), class_="pgh-buttons")
    if not seen.is_missing:
        return None
    database = database_of(seen.plan)
    where = f"{viewer.environment} (database {database.get('name')} on {database.get('host')})"
    apply = on_click(
        button(f"Apply to {viewer.environment}", "btn-primary"),
        viewer.endpoint,
        {"action": "apply", "hotfix": seen.chosen, "plan_hash": seen.plan["plan_hash"]},
        display="popup",
        confirmation=f"Apply {seen.chosen} to {where}? It runs under a short lock, is proved, and committed.",
    )
    note = "The apply is refused if the file, the database or the column has changed since you looked."
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
    # With two fields and no submit button the Enter key sends nothing.
    value = typed.get(name)
    return element(
        "label", label, element("input", type="text", name=name, value=value, maxlength="200", autocomplete="off")
    )


def show_recent(viewer: Viewer, seen: Seen) -> Html:
    title = heading("Last executions")
    if not seen.recent:
        none = f"None among the last {seen.searched:,}." if seen.searched else "None yet."
        return join(title, element("p", none, class_="pgh-muted"))
    rows: list[list[Content]] = [
        [
            marked(tone_of(one), say_state(one) if not one.error else f"{say_state(one)}: {one.error}"),
            show_link(viewer, one),
            join(text_of(one.request.get("requested_by")) or muted("no name given")),
            text_of(one.request.get("reason")) or muted("no reason given"),
            join(f"{say_time(one.started, viewer.zone)} ", muted(f"for {say_duration(seconds_of(one, seen.now))}")),
        ]
        for one in seen.recent
    ]
    return join(title, table(["State", "What", "Asked by", "Why", "When"], rows))


def show_link(viewer: Viewer, execution: Execution) -> Html:
    """The request, as a link to its steps."""
    request = execution.request
    what = f"{text_of(request.get('action'))} {text_of(request.get('hotfix'))}".strip() or execution.name
    return on_click(
        button(what, "pgh-link", execution.name), viewer.endpoint, {"execution": execution.arn}, display="popup"
    )


def show_others(viewer: Viewer, seen: Seen) -> Html | None:
    others = [hotfix for hotfix in seen.hotfixes if hotfix != seen.chosen]
    if not others:
        return None
    return join(
        heading("Other packaged hotfixes"),
        element("ul", *[element("li", choose(viewer, hotfix)) for hotfix in others]),
    )
