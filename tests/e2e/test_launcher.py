"""`./pg-hotfix` on a fresh clone: its small environment, and that it works from anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from laptop.places import PROJECT
from tests.conftest import HOTFIX, PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

# What the launcher and the commands of whoever is on call read of a clone.
NEEDED = ("pg-hotfix", "cli", "laptop", "functions", "requirements", "samconfig.toml", "sql", ".python-version")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which nothing was set up but uv, which the network would have to bring."""
    folder = tmp_path_factory.mktemp("clone")
    for name in NEEDED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    (folder / ".tools").symlink_to(PROJECT / ".tools")
    return folder


def run(command: list[str], directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        command,
        cwd=directory,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_a_fresh_clone_sets_itself_up_once_and_works_from_any_directory(clone: Path, tmp_path: Path) -> None:
    program = str(clone / "pg-hotfix")
    first = run([program, "--help"], tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stderr.startswith("Setting up the command line in .local/cli")
    assert "On call, with your own AWS credentials:" in first.stdout
    second = run([program, "plan", "--help"], tmp_path)
    assert (second.returncode, second.stderr) == (0, "")
    assert "Usage: pg-hotfix plan [OPTIONS] ID\n" in second.stdout
    # The environment has nothing of a laptop.
    assert run([str(clone / ".local/cli/bin/python"), "-c", "import moto"], tmp_path).returncode != 0
    assert {path.name for path in (clone / ".local").iterdir()} == {"cli"}


def test_other_pins_set_the_environment_up_again(clone: Path, tmp_path: Path) -> None:
    with (clone / "requirements" / "cli.txt").open("a") as pins:
        pins.write("# changed\n")
    assert "Setting up" in run([str(clone / "pg-hotfix"), "--help"], tmp_path).stderr
    assert run([str(clone / "pg-hotfix"), "--help"], tmp_path).stderr == ""


def test_an_environment_whose_python_is_gone_is_made_again(clone: Path, tmp_path: Path) -> None:
    program, python = str(clone / "pg-hotfix"), clone / ".local/cli/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert "Setting up" in run([program, "--help"], tmp_path).stderr
    assert run([program, "--help"], tmp_path).stderr == ""


def test_pips_own_settings_are_in_nobodys_way(clone: Path, tmp_path: Path) -> None:
    other = tmp_path / "clone"
    shutil.copytree(clone, other, symlinks=True, ignore=shutil.ignore_patterns(".local", ".tools"))
    settings = {"PIP_REQUIRE_VIRTUALENV": "true", "PIP_USER": "1", "PIP_DRY_RUN": "1"}
    result = run([str(other / "pg-hotfix"), "--help"], tmp_path, **settings)
    assert result.returncode == 0, result.stderr


def test_no_variable_of_python_stops_the_launcher(clone: Path, tmp_path: Path) -> None:
    variables = {"PYTHONHOME": "/nowhere", "PYTHONOPTIMIZE": "2", "PYTHONINSPECT": "1"}
    result = run([str(clone / "pg-hotfix"), "plan", "--help"], tmp_path, **variables)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Nothing is changed" in result.stdout


def test_a_link_to_the_launcher_works(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "there").symlink_to(clone / "pg-hotfix")
    (tmp_path / "bin" / "pg-hotfix").symlink_to("../there")
    assert run([str(tmp_path / "bin" / "pg-hotfix"), "verify", "--help"], tmp_path).returncode == 0


def test_a_file_of_the_current_directory_is_no_module(clone: Path, tmp_path: Path) -> None:
    for name in ("click.py", "cli.py", "tomllib.py", "boto3.py"):
        (tmp_path / name).write_text("raise SystemExit(99)\n")
    result = run([str(clone / "pg-hotfix"), "plan", HOTFIX], tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 2, result.stderr
    assert "Which stack?" in result.stderr


def test_help_and_a_wrong_command_line_load_neither_boto3_nor_rich(clone: Path, tmp_path: Path) -> None:
    told = run(
        [str(clone / ".local/cli/bin/python"), "-X", "importtime", "-I", str(clone / "cli/main.py"), "--help"], tmp_path
    ).stderr
    assert " click\n" in told
    assert " boto3\n" not in told
    assert " rich" not in told


def test_a_shell_completes_commands_ids_and_environments(clone: Path, tmp_path: Path) -> None:
    def complete(*words: str) -> list[str]:
        typed = {"COMP_WORDS": " ".join(("pg-hotfix", *words)), "COMP_CWORD": str(len(words))}
        result = run([str(clone / "pg-hotfix")], tmp_path, _PG_HOTFIX_COMPLETE="bash_complete", **typed)
        return [line.partition(",")[2] for line in result.stdout.splitlines()]

    assert complete("ver") == ["verify"]
    assert complete("plan", "2026") == [HOTFIX]
    assert complete("plan", HOTFIX, "--env", "s") == ["staging"]
    source = run([str(clone / "pg-hotfix")], tmp_path, _PG_HOTFIX_COMPLETE="bash_source").stdout
    assert "complete -o nosort -F _pg_hotfix_completion pg-hotfix" in source


def test_without_an_environment_of_python_the_launcher_says_what_to_install(clone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "dirname", "readlink", "cat"):
        (folder / name).symlink_to(str(shutil.which(name)))
    launcher = tmp_path / "clone" / "pg-hotfix"
    launcher.parent.mkdir()
    # The one path that no PATH leads to.
    launcher.write_text((clone / "pg-hotfix").read_text().replace(" /usr/bin/python3 ", " "))
    launcher.chmod(0o755)
    result = run([str(launcher), "--help"], tmp_path, PATH=str(folder))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "pg-hotfix needs python3 3.11 or later, or uv:  apt-get install python3 python3-venv  or  brew install uv\n"
    )
