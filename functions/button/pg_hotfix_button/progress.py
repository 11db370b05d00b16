"""The page of one execution: its steps so far, or how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pg_hotfix_button.markup import Html, element, on_click
from pg_hotfix_button.parts import button, frame, head, heading, muted, state
from pg_hotfix_button.words import (
    find_failure,
    has_failed,
    say_cause,
    say_duration,
    say_state,
    say_steps,
    seconds_of,
    text_of,
    tone_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pg_hotfix_button.executions import Execution, Step
    from pg_hotfix_button.parts import Viewer


def show_execution(viewer: Viewer, execution: Execution, steps: Sequence[Step], now: datetime) -> Html:
    """The steps of an execution so far, or how it ended. While it runs there is a button to refresh them."""
    request = execution.request
    tone = tone_of(execution)
    asked = [text_of(request.get("requested_by")), text_of(request.get("reason"))]
    facts = [f"took {say_duration(seconds_of(execution, now))}", *filter(None, asked), execution.name]
    if execution.is_running:
        facts[0] = f"running for {say_duration(seconds_of(execution, now))}"
    link = on_click(button("Look again", "btn-primary"), viewer.endpoint, {"execution": execution.arn}, display="popup")
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


def say_outcome(execution: Execution, steps: Sequence[Step]) -> list[Html]:
    """Result and summary, or error and advice; while it runs, the failure that is tried again."""
    if execution.is_running:
        return say_failure(steps)
    if has_failed(execution):
        error = element("p", element("strong", execution.error)) if execution.error else Html("")
        return [error, element("pre", say_cause(execution))]
    outcome = [element("p", text_of(execution.output.get("summary")))]
    endpoint, watch = execution.output.get("endpoint"), execution.output.get("watch")
    if isinstance(endpoint, dict):
        outcome += [element("p", f"The endpoint answers {text_of(endpoint.get('status'))}.")]
    if isinstance(watch, dict):
        outcome += [
            element("p", f"The application's log was free of the error for {text_of(watch.get('minutes'))} min.")
        ]
    return outcome


def say_failure(steps: Sequence[Step]) -> list[Html]:
    """The error of the call that the state machine tries again."""
    failure = find_failure(steps)
    if failure is None:
        return []
    return [element("p", f"The state machine tries again after {failure.error}:"), element("pre", failure.text)]


def list_steps(steps: Sequence[Step]) -> Html:
    return element("ol", *[element("li", step) for step in say_steps(steps)])
