"""What a laptop's commands share with the functions, whose folders are flat, as Lambda sees them."""

import sys

from local.places import PROJECT

sys.path += [str(PROJECT / "functions" / name) for name in ("button", "endpoint", "migrate", "report")]

import button
import endpoint
import errors
import executions
import logline
import report
import request
import results
import run
import words

__all__ = ["button", "endpoint", "errors", "executions", "logline", "report", "request", "results", "run", "words"]
