"""Where things are on this machine.

Standard library only, of Python 3.11 or later: set-up and clean-up run without the virtual environment.
"""

import hashlib
import os
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# Tests keep theirs apart from what a developer has open.
STATE = Path(os.environ.get("PG_HOTFIX_STATE") or PROJECT / ".local")
# Where Python finds the packages of the functions.
FUNCTIONS = [str(PROJECT / "functions" / name) for name in ("button", "endpoint", "migrate", "report")]
ARTIFACT = PROJECT / ".aws-sam" / "build" / "MigrateFunction"
BUILT_TEMPLATE = PROJECT / ".aws-sam" / "build" / "template.yaml"
MEMORY = Path("/dev/shm")  # noqa: S108 - what lies there is in folders that only one user may write to


def shared_directory() -> Path:
    """Names, without creating it, the directory for what the server's user cannot reach inside the project."""
    return Path(tempfile.gettempdir()) / own_name()


def memory_directory() -> Path:
    """Names, without creating it, the directory for what tests keep in memory."""
    return MEMORY / own_name()


def own_name() -> str:
    """Another clone of the project has another name."""
    return f"pg-hotfix-{hashlib.sha256(os.fsencode(PROJECT)).hexdigest()[:12]}"


def shown(path: Path) -> str:
    """The path as one types it in the project."""
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
