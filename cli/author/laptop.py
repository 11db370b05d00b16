"""The step from the launcher's small environment into that of a laptop, .venv, which `make` sets up."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cli.program import PROGRAM
from laptop.errors import LocalError
from laptop.places import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping

VENV = PROJECT / ".venv"
MAIN = PROJECT / "cli" / "main.py"
# No command of a laptop touches a real AWS account: it sees these credentials only.
NO_ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
# Without bytecode on disk each program compiles all its packages once more, for ten seconds.
UNSET = ("PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")


def is_in_laptop() -> bool:
    return Path(sys.prefix).resolve() == VENV.resolve()


def enter_laptop() -> NoReturn:
    """This process goes on as the same command in .venv, which was set up if it was not ready.

    Raises:
        LocalError: it could not be set up; make has said why.
    """
    try:
        made = subprocess.run(["make", "--silent", "--no-print-directory", "-C", PROJECT, ".venv/ready"], check=False)
    except FileNotFoundError:
        raise LocalError("This command needs make:  apt-get install make") from None
    if made.returncode != 0:
        raise LocalError(
            "The environment of this command could not be set up: make says why above. Then run it again:  "
            + shlex.join([PROGRAM, *sys.argv[1:]])
        )
    python = VENV / "bin" / "python"
    os.execve(python, [str(python), "-I", str(MAIN), *sys.argv[1:]], laptop_environment(os.environ))


def laptop_environment(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environment.items() if not name.startswith("AWS_") and name not in UNSET}
    # The servers of the laptop are on 127.0.0.1: a proxy has no business there.
    direct = ",".join(filter(None, ["127.0.0.1,localhost", kept.get("NO_PROXY", "")]))
    paths = {"PATH": f"{VENV / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"}
    return kept | NO_ACCOUNT | paths | {"NO_PROXY": direct, "no_proxy": direct, "SAM_CLI_TELEMETRY": "0"}
