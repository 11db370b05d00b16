"""Cold starts of built functions under Lambda's emulator, and what their processes use."""

import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laptop.emulator import emulated_function, session_members
from laptop.errors import LocalError

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ColdStart:
    """One cold start: from the request, which starts the process, to the answer; and what the process had used by then,
    the runtime's own part included."""

    ms: float
    cpu_ms: float
    peak_mb: float


def start_cold(
    artifact: Path, environment: Mapping[str, str], event: Mapping[str, Any], prefix: Sequence[str] = ()
) -> ColdStart:
    """The function has answered its first invocation, and has ended.

    Raises: LocalError when it answered with an error.
    """
    with emulated_function(environment, artifact, prefix) as function:
        invocation = function.invoke(event)
        if invocation.error_type:
            raise LocalError(f"{artifact.name} failed: {invocation.error_type}: {invocation.error_message}")
        (process,) = (pid for pid in session_members(function.session) if is_runtime(pid))
        # utime and stime follow the name, which ends with the last bracket; https://man7.org/linux/man-pages/man5/proc.5.html
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        cpu_ms = (int(fields[11]) + int(fields[12])) * 1000 / TICKS_PER_SECOND
        return ColdStart(invocation.seconds * 1000, cpu_ms, peak_mb(process))


def is_runtime(pid: int) -> bool:
    return b"\0awslambdaric\0" in Path(f"/proc/{pid}/cmdline").read_bytes() and pid_name(pid).startswith("python")


def pid_name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()


def peak_mb(pid: int) -> float:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def import_cpu_ms(artifact: Path, module: str, environment: Mapping[str, str]) -> float:
    """Returns the CPU time of a process that only imports the module, Python's own start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-S", "-c", f"import {module}"],
        cwd=artifact,
        env={"PATH": os.defpath, "PYTHONPATH": str(artifact), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000
