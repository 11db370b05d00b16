"""Keeps the built artifact in step with its sources."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from laptop.errors import LocalError
from laptop.places import ARTIFACT, PROJECT
from laptop.turns import one_at_a_time

SOURCES = ("functions", "template.yaml", "samconfig.toml", "requirements/function.txt")


def build_if_changed(artifact: Path = ARTIFACT, sources: Sequence[str] = SOURCES, *options: str) -> bool:
    """The artifact of `sam build` is that of the sources as they are now; returns whether it had to be built.
    Who asks for it while somebody else builds it waits for that.

    Raises: LocalError with the output of `sam build` when that failed.
    """
    # Beside the folder of the build, which sam makes each time.
    beside = artifact.parent.parent
    with one_at_a_time(beside / "building.lock"):
        digest, stamp = digest_of(source_files(sources)), beside / "sources.sha256"
        if stamp.exists() and stamp.read_text() == digest and artifact.exists():
            return False
        stamp.unlink(missing_ok=True)
        _build(options)
        stamp.write_text(digest)
    return True


def _build(options: Sequence[str]) -> None:
    print("Building the function with sam build (about 10 s) ...", file=sys.stderr, flush=True)
    # sam looks for python3.13 and its pip on the PATH.
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "SAM_CLI_TELEMETRY": "0",
    }
    result = subprocess.run(
        [sys.executable, "-m", "samcli", "build", *options],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise LocalError(f"sam build failed:\n{result.stdout}{result.stderr}")


def source_files(sources: Sequence[str]) -> list[Path]:
    """Returns every file that the artifact is made of."""
    roots = [PROJECT / name for name in sources]
    inside = [path for root in roots if root.is_dir() for path in root.rglob("*") if path.is_file()]
    return [root for root in roots if root.is_file()] + [path for path in inside if "__pycache__" not in path.parts]


def digest_of(files: Iterable[Path]) -> str:
    """Returns a digest that changes with the name or the content of any of the files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


if __name__ == "__main__":
    try:
        build_if_changed()
    except LocalError as error:
        sys.exit(str(error))
