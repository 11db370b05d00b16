"""What a laptop's commands share with the functions, whose folders are flat, as Lambda sees them."""

import sys

from local.places import PROJECT

sys.path += [str(PROJECT / "functions" / name) for name in ("button", "migrate")]

import button
import errors
import executions
import request

__all__ = ["button", "errors", "executions", "request"]
