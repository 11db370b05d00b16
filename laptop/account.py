"""The account that PostgreSQL runs as, and the directories that this account can reach."""

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from laptop.errors import LocalError
from laptop.places import shared_directory


def server_user() -> pwd.struct_passwd | None:
    # PostgreSQL refuses to run as root: root lends it the account that owns nothing.
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def give_to_server_user(path: Path) -> None:
    if user := server_user():
        os.chown(path, user.pw_uid, user.pw_gid)


def start_as_server_user(
    command: Sequence[str | Path], stderr: int | object, *, start_new_session: bool = False
) -> subprocess.Popen[bytes]:
    """The command runs as the server's user, with nothing of this environment."""
    user = server_user()
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,  # type: ignore[arg-type]
        # Neither PGOPTIONS and the like nor a working directory closed to the server's user may get in the way.
        env={"PATH": os.defpath, "LC_ALL": "C"},
        cwd="/",
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
        start_new_session=start_new_session,
    )


def run_as_server_user(command: Sequence[str | Path]) -> None:
    process = start_as_server_user(command, stderr=subprocess.PIPE)
    _, stderr = process.communicate()
    if process.returncode != 0:
        raise LocalError(f"{Path(command[0]).name} failed: {stderr.decode(errors='replace').strip()}")


def server_user_can(test: str, path: Path) -> bool:
    return start_as_server_user(["/usr/bin/test", test, path], stderr=subprocess.DEVNULL).wait() == 0


def reachable_directory(directory: Path) -> Path:
    """Returns the directory itself, or a twin in the temporary directory when the server's user cannot reach it."""
    if server_user_can("-x", directory):
        return directory
    twins = _passable(open_shared_directory() / "clusters")
    for twin in twins.iterdir():
        # Clusters of directories that are gone, such as those of earlier test runs. Another process may be faster.
        with contextlib.suppress(FileNotFoundError):
            if not Path((twin / "origin").read_text()).exists():
                shutil.rmtree(twin, ignore_errors=True)
    twin = _passable(twins / hashlib.sha256(os.fsencode(directory)).hexdigest()[:12])
    (twin / "origin").write_text(str(directory))
    return twin


def open_shared_directory() -> Path:
    directory = shared_directory()
    # The name can be guessed and the place is open to everybody: what somebody else put there is not used.
    if directory.is_symlink() or (directory.exists() and directory.lstat().st_uid != os.geteuid()):
        raise LocalError(f"{directory} belongs to somebody else: remove it, or point TMPDIR to another directory.")
    return _passable(directory)


def _passable(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    directory.chmod(0o711)
    return directory
