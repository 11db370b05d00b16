"""Makes an environment of pinned packages, with uv in .tools/: .local/cli for the command line, .venv for a laptop.

    python3 cli/bootstrap.py cli       Linux and macOS; any Python from 3.9 on may run this, uv finds or brings 3.11
    python3 cli/bootstrap.py laptop    Linux, Python 3.11 or later; brings Python 3.13

Nothing but the standard library. Quiet unless something fails.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
TOOLS = PROJECT / ".tools"
VENV = PROJECT / ".venv"
CLI = PROJECT / ".local" / "cli"
UV = TOOLS / "bin" / "uv"
REQUIREMENTS = PROJECT / "requirements"
PINNED_ONLY: list[str | Path] = ["--quiet", "--require-hashes", "--only-binary", ":all:"]
NO_INSTALLER = "uv could not be installed; pip says why above, unless python3 has no pip: apt-get install python3-venv"
NO_PYTHON = "Python {} was neither found nor downloaded from github.com (uv says why above). Install it:  {}"
# What pip would do otherwise, wherever its configuration says it.
PIP_OPTIONS = {"PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
PIP_UNSET = ("PIP_DRY_RUN", "PIP_TARGET", "PIP_PREFIX")


def main(environment: str) -> int:
    if not os.access(PROJECT, os.W_OK):
        problem: str | None = (
            f"You may not write to {PROJECT}, where the environment belongs: make a clone of your own."
        )
    elif environment == "cli":
        problem = set_up_cli()
        if problem and runs(CLI):
            print(f"{problem}\nThis runs with the packages from before.", file=sys.stderr)
            return 0
    else:
        problem = set_up_laptop()
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


def set_up_cli() -> str | None:
    """.local/cli has what requirements/cli.txt pins. Returns the sentence that says why not, or None.

    It is made beside its place and moved there whole, since somebody else may start the command at the same time.
    """
    if sys.version_info < (3, 11):
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        print(f"python3 is {found} here; pg-hotfix needs 3.11 or later, so uv looks for one.", file=sys.stderr)
    print("Setting up the command line in .local/cli (once, some 10 s) ...", file=sys.stderr)
    if not uv_is_pinned() and not install_uv():
        return NO_INSTALLER
    made = CLI.with_name(f"cli-{os.getpid()}")
    try:
        if not succeeds([UV, "venv", "--quiet", "--clear", "--python", ">=3.11", made]):
            return NO_PYTHON.format("3.11 or later", "brew install python@3.13, or apt-get install python3")
        pins = REQUIREMENTS / "cli.txt"
        if not succeeds([UV, "pip", "sync", "--python", made / "bin" / "python", *PINNED_ONLY, pins]):
            return "The packages of requirements/cli.txt could not be installed; uv says why above."
        # Last, since the launcher takes an environment with the same file for ready.
        shutil.copy(pins, made / "requirements.txt")
        if not is_ready(pins):  # by another process meanwhile, which may use it already
            shutil.rmtree(CLI, ignore_errors=True)
            made.rename(CLI)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return None


def is_ready(pins: Path) -> bool:
    copy = CLI / "requirements.txt"
    return copy.exists() and copy.read_bytes() == pins.read_bytes() and runs(CLI)


def runs(environment: Path) -> bool:
    """Whether its Python still starts and finds its packages: an upgrade of the machine may have taken it away."""
    python = environment / "bin" / "python"
    return python.exists() and quietly([python, "-I", "-c", "import boto3, click, rich"])


def set_up_laptop() -> str | None:
    """.venv has what requirements/dev.txt pins. Returns the sentence that says why not, or None."""
    machine = (platform.system(), platform.machine(), platform.libc_ver())
    if problem := explain_unfit_machine(*machine, sys.version_info[:2]):
        return problem
    if not uv_is_pinned():
        print("Installing uv into .tools ...", file=sys.stderr)
        if not install_uv():
            return NO_INSTALLER
    if not (VENV / "bin" / "python").exists() and not succeeds([UV, "venv", "--quiet", "--clear", VENV]):
        return NO_PYTHON.format("3.13", "apt-get install python3.13")
    print("Installing the pinned packages into .venv ...", file=sys.stderr)
    pins = REQUIREMENTS / "dev.txt"
    if not succeeds([UV, "pip", "sync", "--python", VENV / "bin" / "python", *PINNED_ONLY, pins]):
        return "The packages of requirements/dev.txt could not be installed; uv says why above."
    return None


def explain_unfit_machine(system: str, machine: str, libc: tuple[str, str], python: tuple[int, int]) -> str | None:
    """Returns the sentence for a machine that cannot run a laptop's commands, or None when it can."""
    if system != "Linux" or machine not in ("x86_64", "aarch64"):
        return f"This command needs Linux on x86_64 or aarch64, and this is {system} on {machine}: use a container."
    if python < (3, 11):
        found = f"{python[0]}.{python[1]}"
        return f"This command needs python3 3.11 or later, and this is {found}: use Debian 12, Ubuntu 24.04 or later."
    if libc[0] != "glibc" or tuple(int(part) for part in libc[1].split(".")[:2]) < (2, 34):
        found = " ".join(libc).strip() or "another C library"
        return f"This command needs glibc 2.34 or later, and this is {found}: use Debian 12, Ubuntu 24.04 or later."
    return None


def uv_is_pinned() -> bool:
    pinned = (REQUIREMENTS / "uv.txt").read_text().split()[0][len("uv==") :]
    return (TOOLS / f"uv-{pinned}.dist-info").exists() and UV.exists()


def install_uv() -> bool:
    """uv is in .tools/, with the pinned version and hashes; False when nothing here can install it, and what was in
    .tools/ is still there."""
    made = TOOLS.with_name(f".tools-{os.getpid()}")
    install: list[str | Path] = ["install", *PINNED_ONLY, "--target", made, "-r", REQUIREMENTS / "uv.txt"]
    venv = made / "venv"
    try:
        installed = False
        if quietly([sys.executable, "-m", "pip", "--version"]):
            installed = succeeds([sys.executable, "-m", "pip", *install, "--no-warn-script-location"])
        elif quietly([sys.executable, "-m", "venv", venv]):
            installed = succeeds([venv / "bin" / "python", "-m", "pip", *install, "--no-warn-script-location"])
        if not installed and (uv := shutil.which("uv")):
            installed = succeeds([uv, "pip", *install, "--python", sys.executable])
        if installed:
            shutil.rmtree(TOOLS, ignore_errors=True)
            made.rename(TOOLS)
        return installed
    finally:
        shutil.rmtree(made, ignore_errors=True)


def quietly(command: list[str | Path]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def succeeds(command: list[str | Path]) -> bool:
    """Says whether the command succeeded; its output is shown only when it did not."""
    result = run(command, {})
    if "UnknownIssuer" in result.stderr:  # The package index has a certificate of the company's own authority.
        result = run(command, {"UV_SYSTEM_CERTS": "1"})
    if result.returncode != 0:
        print(result.stdout + result.stderr, file=sys.stderr)
    return result.returncode == 0


def run(command: list[str | Path], extra: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # An installer has no business with the caller's AWS credentials.
    left_out = ("AWS_", *PIP_UNSET)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | PIP_OPTIONS
    if not os.access(environment.get("HOME", ""), os.W_OK):
        environment["HOME"] = str(PROJECT / ".local" / "home")  # for uv's cache
    return subprocess.run(
        command, cwd=PROJECT, env={**environment, **extra}, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing half made is left
    try:
        sys.exit(main(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
