"""HTML in which every text is escaped, because only `element` writes tags."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

VOID = {"input"}
# Characters that have no UTF-8, that browsers drop, or that reverse the text after them, so that one name reads as
# another: https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing
UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Html:
    """Markup, which is inserted as it is. A plain string is text, and is escaped."""

    source: str


type Content = Html | str | None


def element(tag: str, /, *children: Content, **attributes: str | None) -> Html:
    """The element. An attribute that is None is left out; `class_` is `class`, which Python reserves."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{written}>" if tag in VOID else f"<{tag}{written}>{join(*children).source}</{tag}>")


def join(*children: Content) -> Html:
    return Html("".join(child.source if isinstance(child, Html) else escape(child or "") for child in children))


def escape(text: str) -> str:
    return html.escape(UNPRINTABLE.sub(REPLACEMENT, text.replace("\r\n", "\n")), quote=True)


def on_click(
    target: Html, endpoint: str, event: Mapping[str, Any], *, display: str = "widget", confirmation: str | None = None
) -> Html:
    """The element, and after it what CloudWatch does at a click: it calls the function with that event.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_interactivity.html
    """
    # AWS does not document whether CloudWatch reads the content as text or as markup: this JSON is the same as both.
    content = re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(event))
    action = element(
        "cwdb-action",
        Html(content),
        action="call",
        display=display,
        confirmation=confirmation,
        endpoint=endpoint,
        event="click",
    )
    return join(target, action)
