"""What a laptop's commands share with the functions."""

import sys

from local.places import PROJECT

sys.path += [str(PROJECT / "functions" / name) for name in ("button", "endpoint", "migrate", "report")]

from pg_hotfix import errors, request, results
from pg_hotfix_button import app as button
from pg_hotfix_button import executions, words
from pg_hotfix_endpoint import app as endpoint
from pg_hotfix_report import app as report
from pg_hotfix_report import logline, run, settings

__all__ = [
    "button",
    "endpoint",
    "errors",
    "executions",
    "logline",
    "report",
    "request",
    "results",
    "run",
    "settings",
    "words",
]
