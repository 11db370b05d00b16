"""The elements of every page of the widget."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING

from pg_hotfix_button.markup import Html, element, join, on_click
from pg_hotfix_button.style import root_of, stylesheet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pg_hotfix_button.markup import Content

# A sign before the word, so that no state depends on its colour alone.
SIGNS = {"good": "\N{CHECK MARK}", "warn": "\N{BLACK UP-POINTING TRIANGLE}", "bad": "\N{BALLOT X}", "busy": "\u2026"}


@dataclass(frozen=True)
class Viewer:
    """Who views the widget. `endpoint` is the function that the widget's buttons call; theme and zone are those of the
    dashboard; `typed` is the form's content, which a refresh would lose otherwise."""

    endpoint: str
    environment: str
    dark: bool = False
    narrow: bool = False
    zone: tzinfo = UTC
    typed: Mapping[str, str] = field(default_factory=dict)


def show_notice(viewer: Viewer, title: str, text: str, hotfixes: Sequence[str] = ()) -> Html:
    """Why the widget shows nothing else, and what to do; with the packaged hotfixes, if one of them may help."""
    others = element("ul", *[element("li", choose(viewer, hotfix)) for hotfix in hotfixes]) if hotfixes else None
    return frame(viewer, head(viewer, None), state("bad", title, None, element("pre", text)), others)


def frame(viewer: Viewer, *content: Content) -> Html:
    style = element("style", Html(stylesheet(dark=viewer.dark)))
    narrow = " pgh-narrow" if viewer.narrow else ""
    return element("div", style, *content, class_=f"{root_of(dark=viewer.dark)}{narrow} cwdb-no-default-styles")


def head(viewer: Viewer, detail: str | None) -> Html:
    title = element("h2", f"pg-hotfix \N{MIDDLE DOT} {viewer.environment}")
    return element("div", title, muted(detail) if detail else None, class_="pgh-head")


def state(tone: str, word: str, what: Content, *content: Content) -> Html:
    title = element("h3", marked(tone, word), what)
    return element("div", title, *content, class_=f"pgh-state pgh-{tone}")


def marked(tone: str, word: str) -> Html:
    """The word in its colour, after its sign."""
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


def button(label: str, class_: str, title: str | None = None) -> Html:
    """An element for a click. AWS's samples all bind `<a class="btn">` to a `<cwdb-action>`. The `<button>` in it can
    be reached and pressed with the keyboard, and its click reaches the link.

    https://github.com/aws-samples/cloudwatch-custom-widgets-samples
    """
    return element("a", element("button", label, type="button", title=title), class_=f"btn {class_}")


def choose(viewer: Viewer, hotfix: str) -> Html:
    return on_click(button(hotfix, "pgh-link"), viewer.endpoint, {"hotfix": hotfix})
