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
ARTIFACT = PROJECT / ".aws-sam" / "build" / "MigrateFunction"
BUILT_TEMPLATE = PROJECT / ".aws-sam" / "build" / "template.yaml"


def shared_directory() -> Path:
    """Names, without creating it, the directory for what the server's user cannot reach inside the project."""
    digest = hashlib.sha256(os.fsencode(PROJECT)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"pg-hotfix-{digest}"


def shown(path: Path) -> str:
    """The path as one types it in the project."""
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
