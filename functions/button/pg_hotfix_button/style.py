"""The style of the widget, for CloudWatch's light and dark theme.

Every rule begins with the class of the widget's root, and the colours are written out: other widgets share the page,
and what CloudWatch makes of custom properties and media queries in a widget is not documented.
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
$root { color: $text; font-family: "Amazon Ember", "Helvetica Neue", Roboto, Arial, sans-serif; font-size: 14px;
  line-height: 1.5; overflow-wrap: break-word; }
$root h2, $root h3, $root h4, $root p, $root ul, $root ol, $root pre, $root form, $root table { margin: 0; }
$root h2 { font-size: 16px; line-height: 1.4; font-weight: 700; }
$root h3 { font-size: 14px; line-height: 1.5; font-weight: 700; }
$root h4 { margin: 20px 0 4px; font-size: 13px; font-weight: 700; color: $muted; }
$root code, $root pre { font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 12.5px; }
$root pre { color: $text; white-space: pre-wrap; }
$root ol { padding-left: 22px; list-style: decimal; }
$root ul { padding: 0; list-style: none; }
$root .pgh-muted { color: $muted; font-size: 13px; }
$root .pgh-scroll + .pgh-muted, $root .pgh-end { margin-top: 6px; }
$root .pgh-head { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 12px; margin-bottom: 10px; }
$root .pgh-state { padding: 10px 14px; border-left: 4px solid; border-radius: 2px; overflow-wrap: anywhere; }
$root .pgh-state h3 { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 10px; }
$root .pgh-state h3 code { font-size: 13px; }
$root .pgh-state pre { margin-top: 6px; }
$root .pgh-good { border-color: $good; background: $good_tint; }
$root .pgh-warn { border-color: $warn; background: $warn_tint; }
$root .pgh-bad { border-color: $bad; background: $bad_tint; }
$root .pgh-busy { border-color: $busy; background: $busy_tint; }
$root .pgh-word { font-weight: 700; white-space: nowrap; }
$root .pgh-is-good { color: $good; }
$root .pgh-is-warn { color: $warn; }
$root .pgh-is-bad { color: $bad; }
$root .pgh-is-busy { color: $busy; }
$root .pgh-scroll { overflow-x: auto; }
$root table { width: 100%; border-collapse: collapse; border: 0; }
$root th, $root td { padding: 5px 16px 5px 0; border: 0; border-bottom: 1px solid $line; text-align: left;
  vertical-align: top; background: none; color: $text; font-weight: 400; }
$root thead th { color: $muted; font-size: 12px; white-space: nowrap; }
$root .pgh-title { display: none; color: $muted; font-size: 12px; }
$root.pgh-narrow thead { display: none; }
$root.pgh-narrow table, $root.pgh-narrow tbody { display: block; }
$root.pgh-narrow tr { display: block; padding: 6px 0; border-bottom: 1px solid $line; }
$root.pgh-narrow tbody th, $root.pgh-narrow td { display: block; padding: 0; border: 0; overflow-wrap: anywhere; }
$root.pgh-narrow .pgh-title { display: inline; }
$root .pgh-sql { max-height: 220px; margin-top: 6px; padding: 10px 14px; border-radius: 4px; background: $code;
  overflow-y: auto; }
$root .pgh-form { display: flex; flex-wrap: wrap; gap: 10px 16px; margin-top: 20px; }
$root .pgh-form label { display: block; flex: 1 1 200px; max-width: 340px; color: $text; font-size: 13px;
  font-weight: 700; }
$root .pgh-form input { display: block; box-sizing: border-box; width: 100%; height: 32px; margin-top: 2px;
  padding: 0 10px; border: 1px solid $field; border-radius: 6px; background: $ground; color: $text; font: inherit;
  font-weight: 400; }
$root .pgh-buttons { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 14px; margin-top: 12px; }
$root .btn { display: inline-block; margin: 0; padding: 0; cursor: pointer; text-decoration: none; }
$root .btn button { margin: 0; padding: 0; border: 0; background: none; color: inherit; cursor: pointer; font: inherit;
  text-align: left; overflow-wrap: anywhere; }
$root .btn-primary { border: 1px solid $link; border-radius: 16px; background: $link; color: $button_text;
  font-weight: 700; }
$root .btn-primary button { padding: 6px 20px; border-radius: 16px; }
$root .btn-primary:hover { opacity: 0.88; }
$root .pgh-link { border: 0; background: none; color: $link; }
$root .pgh-link button { text-decoration: underline; }
$root button:focus-visible, $root input:focus-visible { outline: 2px solid $link; outline-offset: 2px; }
$root cwdb-action { display: none; }
"""


def root_of(*, dark: bool) -> str:
    """The class of the widget's root. Each theme has one, since a popup may be older than the widget behind it."""
    return "pgh-dark" if dark else "pgh-light"


def stylesheet(*, dark: bool) -> str:
    return Template(RULES).substitute(DARK if dark else LIGHT, root=f".{root_of(dark=dark)}")
