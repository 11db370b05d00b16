"""The look of the widget, for CloudWatch's light and dark theme.

Every rule begins with the widget's own class, and the colours are written out: other widgets share the page, and what
CloudWatch makes of custom properties and media queries in a widget is not documented.
"""

from __future__ import annotations

from string import Template

# Each text colour has a contrast of at least 4.5 to 1 on the theme's background, and on its own tint.
LIGHT = {
    "ground": "#ffffff",
    "text": "#0f141a",
    "muted": "#56606d",
    "line": "#d9dee4",
    "field": "#8c8c94",
    "code": "#f5f7f9",
    "link": "#005fb8",
    "button_text": "#ffffff",
    "good": "#046b10",
    "good_tint": "#eef8ef",
    "warn": "#855200",
    "warn_tint": "#fdf6e7",
    "bad": "#bd0b0b",
    "bad_tint": "#fdf1f1",
    "busy": "#005fb8",
    "busy_tint": "#eff6fd",
}
DARK = {
    "ground": "#161d26",
    "text": "#dfe4ea",
    "muted": "#a3adb9",
    "line": "#38434f",
    "field": "#7d8998",
    "code": "#0f151d",
    "link": "#6cb2ff",
    "button_text": "#0f141a",
    "good": "#5fcf70",
    "good_tint": "#15271d",
    "warn": "#f0b849",
    "warn_tint": "#2a2418",
    "bad": "#ff8f8f",
    "bad_tint": "#2e1c20",
    "busy": "#6cb2ff",
    "busy_tint": "#142536",
}

RULES = """
.pgh { color: $text; font-family: "Amazon Ember", "Helvetica Neue", Roboto, Arial, sans-serif; font-size: 14px;
  line-height: 1.5; overflow-wrap: anywhere; }
.pgh h2, .pgh h3, .pgh h4, .pgh p, .pgh ul, .pgh ol, .pgh pre, .pgh form, .pgh table { margin: 0; }
.pgh h2 { font-size: 16px; line-height: 1.4; font-weight: 700; }
.pgh h3 { font-size: 14px; line-height: 1.5; font-weight: 700; }
.pgh h4 { margin: 20px 0 4px; font-size: 13px; font-weight: 700; color: $muted; }
.pgh code, .pgh pre { font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 12.5px; }
.pgh-head { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 12px; margin-bottom: 10px; }
.pgh-muted { color: $muted; font-size: 13px; }
.pgh-state { padding: 10px 14px; border-left: 4px solid; border-radius: 2px; }
.pgh-state h3 code { font-size: 13px; color: $text; }
.pgh-state p { color: $text; }
.pgh-state pre { margin-top: 6px; color: $text; white-space: pre-wrap; }
.pgh-good { border-color: $good; background: $good_tint; }
.pgh-warn { border-color: $warn; background: $warn_tint; }
.pgh-bad { border-color: $bad; background: $bad_tint; }
.pgh-busy { border-color: $busy; background: $busy_tint; }
.pgh-word { font-weight: 700; white-space: nowrap; }
.pgh-good .pgh-word, .pgh-word.pgh-is-good { color: $good; }
.pgh-warn .pgh-word, .pgh-word.pgh-is-warn { color: $warn; }
.pgh-bad .pgh-word, .pgh-word.pgh-is-bad { color: $bad; }
.pgh-busy .pgh-word, .pgh-word.pgh-is-busy { color: $busy; }
.pgh-scroll { overflow-x: auto; }
.pgh table { width: 100%; border-collapse: collapse; border: 0; }
.pgh th, .pgh td { padding: 5px 16px 5px 0; border: 0; border-bottom: 1px solid $line; text-align: left;
  vertical-align: top; background: none; color: $text; font-weight: 400; }
.pgh thead th { color: $muted; font-size: 12px; }
.pgh-sql { max-height: 220px; margin-top: 6px; padding: 10px 14px; border-radius: 4px; background: $code; color: $text;
  white-space: pre-wrap; overflow-y: auto; }
.pgh ol { padding-left: 22px; list-style: decimal; }
.pgh ul { padding: 0; list-style: none; }
.pgh-form { display: flex; flex-wrap: wrap; gap: 10px 16px; margin-top: 20px !important; }
.pgh-form label { display: block; flex: 1 1 200px; max-width: 340px; color: $text; font-size: 13px; font-weight: 700; }
.pgh-form input { display: block; box-sizing: border-box; width: 100%; height: 32px; margin-top: 2px; padding: 0 10px;
  border: 1px solid $field; border-radius: 6px; background: $ground; color: $text; font: inherit; font-weight: 400; }
.pgh-buttons { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 14px; margin-top: 12px; }
.pgh button { cursor: pointer; font: inherit; }
.pgh button.btn-primary { padding: 6px 20px; border: 1px solid $link; border-radius: 16px; background: $link;
  color: $button_text; font-weight: 700; }
.pgh button.btn-primary:hover { opacity: 0.88; }
.pgh button.pgh-link { padding: 0; border: 0; background: none; color: $link; text-align: left;
  text-decoration: underline; overflow-wrap: anywhere; }
.pgh button:focus-visible, .pgh input:focus-visible, .pgh summary:focus-visible { outline: 2px solid $link;
  outline-offset: 2px; }
.pgh cwdb-action { display: none; }
"""


def stylesheet(*, dark: bool) -> str:
    return Template(RULES).substitute(DARK if dark else LIGHT)
