"""Sets up a fresh clone: uv in .tools/, then Python 3.13 and every pinned package in .venv/.

Runs on the machine's own Python, 3.11 or later, with nothing but the standard library. Quiet unless something fails.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
TOOLS = PROJECT / ".tools"
VENV = PROJECT / ".venv"
UV = TOOLS / "bin" / "uv"
UV_PINS = PROJECT / "requirements" / "uv.txt"
PINNED_ONLY: list[str | Path] = ["--quiet", "--require-hashes", "--only-binary", ":all:"]


def main() -> int:
    machine = (platform.system(), platform.machine(), platform.libc_ver())
    if problem := explain_unfit_machine(*machine, sys.version_info[:2]):
        return fail(problem)
    if not uv_is_pinned() and not install_uv():
        return fail("python3 has neither pip nor venv here, so nothing can be installed: apt-get install python3-venv")
    if not (VENV / "bin" / "python").exists() and not succeeds([UV, "venv", "--quiet", "--clear", VENV]):
        return fail("Python 3.13 was neither found nor downloaded from github.com (uv says why): install python3.13.")
    print("Installing the pinned packages into .venv ...", file=sys.stderr)
    pins = PROJECT / "requirements" / "dev.txt"
    if not succeeds([UV, "pip", "sync", "--python", VENV / "bin" / "python", *PINNED_ONLY, pins]):
        return fail("The packages of requirements/dev.txt could not be installed; uv says why above.")
    return 0


def explain_unfit_machine(system: str, machine: str, libc: tuple[str, str], python: tuple[int, int]) -> str | None:
    """Returns the sentence for a machine that cannot run a laptop's commands, or None when it can."""
    if system != "Linux" or machine not in ("x86_64", "aarch64"):
        return f"pg-hotfix needs Linux on x86_64 or aarch64, and this is {system} on {machine}: use a container."
    if python < (3, 11):
        found = f"{python[0]}.{python[1]}"
        return f"pg-hotfix needs python3 3.11 or later, and this is {found}: use Debian 12, Ubuntu 24.04 or later."
    if libc[0] != "glibc" or tuple(int(part) for part in libc[1].split(".")[:2]) < (2, 34):
        found = " ".join(libc).strip() or "another C library"
        return f"pg-hotfix needs glibc 2.34 or later, and this is {found}: use Debian 12, Ubuntu 24.04 or later."
    return None


def uv_is_pinned() -> bool:
    pinned = UV_PINS.read_text().split()[0].removeprefix("uv==")
    return (TOOLS / f"uv-{pinned}.dist-info").exists() and UV.exists()


def install_uv() -> bool:
    """uv is in .tools/, with the pinned version and hashes; False when nothing here can install it."""
    print("Installing uv into .tools ...", file=sys.stderr)
    shutil.rmtree(TOOLS, ignore_errors=True)
    install: list[str | Path] = ["install", *PINNED_ONLY, "--target", TOOLS, "-r", UV_PINS]
    pip_options = ["--disable-pip-version-check", "--no-warn-script-location"]
    if quietly([sys.executable, "-m", "pip", "--version"]):
        return succeeds([sys.executable, "-m", "pip", *install, *pip_options])
    venv = TOOLS / "venv"
    if quietly([sys.executable, "-m", "venv", venv]):
        return succeeds([venv / "bin" / "python", "-m", "pip", *install, *pip_options])
    if uv := shutil.which("uv"):
        return succeeds([uv, "pip", *install, "--python", sys.executable])
    return False


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
    return subprocess.run(command, cwd=PROJECT, env=os.environ | extra, capture_output=True, text=True, check=False)


def fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
