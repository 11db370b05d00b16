"""A share of one processor, imposed by the kernel, as Lambda gives it to a function by its memory size."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

# What has one whole vCPU. https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
WHOLE_PROCESSOR_MB = 1_769
PERIOD_US = 20_000
CGROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def processor_share(memory_mb: int) -> Iterator[tuple[str, ...] | None]:
    """Within the block what is started by the command given has the share of a function of that size, all of it
    together. None where this machine does not let us.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    quota_us = PERIOD_US * memory_mb // WHOLE_PROCESSOR_MB
    name = f"pg-hotfix-bench-{os.getpid()}"
    group = limit(CGROUPS / "cpu" / name, {"cpu.cfs_period_us": f"{PERIOD_US}", "cpu.cfs_quota_us": f"{quota_us}"})
    group = group or limit(CGROUPS / name, {"cpu.max": f"{quota_us} {PERIOD_US}"})
    if group is None:
        yield None
        return
    try:
        yield "/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"
    finally:
        group.rmdir()


def limit(group: Path, files: Mapping[str, str]) -> Path | None:
    """Returns the new group with these limits, or None when it can't be made."""
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        for name, value in files.items():
            (group / name).write_text(value)
    except OSError:
        group.rmdir()
        return None
    return group
