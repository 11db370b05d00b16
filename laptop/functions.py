"""The smaller functions, which run in this process."""

import sys

from laptop.places import FUNCTIONS

sys.path += FUNCTIONS

from pg_hotfix import errors, request, results
from pg_hotfix_button import app as button
from pg_hotfix_endpoint import app as endpoint
from pg_hotfix_report import app as report
from pg_hotfix_report import settings

__all__ = ["button", "endpoint", "errors", "report", "request", "results", "settings"]
