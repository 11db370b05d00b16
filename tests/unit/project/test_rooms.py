"""The rooms of the function: imports run one way, so that a room can be read without those above it."""

from __future__ import annotations

import ast
import sys
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import pytest

from laptop.places import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = PROJECT / "functions" / "migrate"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in (ROOT / "pg_hotfix").rglob("*.py")
    if path.name != "__init__.py"
}
# The lowest first. A module belongs to the first line that names it, and imports from the lines above that one only, or
# from its own.
LAYERS = [
    ("listing", "quoting"),
    ("errors", "results", "settings"),
    ("file.lexer",),
    ("promises.column.line",),
    ("file.*", "request", "next_command"),
    ("server.*",),
    ("promises.*",),
    ("look",),
    ("change.*",),
    ("history.*",),
    ("gate", "notes", "preconditions", "report"),
    ("after_commit", "read_only"),
    ("hotfix",),
]


def layer_of(module: str) -> int:
    name = module.removeprefix("pg_hotfix.")
    return next(level for level, patterns in enumerate(LAYERS) if any(fnmatch(name, one) for one in patterns))


def imports_of(path: Path) -> Iterator[str]:
    """The modules of the package that it needs when it is imported: those for its types alone do not count."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pg_hotfix"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_from_below(module: str) -> None:
    own = layer_of(module)
    above = [found for found in imports_of(MODULES[module]) if layer_of(found) > own]
    assert above == []


def test_no_modules_import_one_another() -> None:
    left = {module: set(imports_of(path)) for module, path in MODULES.items()}
    while free := {module for module, needed in left.items() if not needed & left.keys()}:
        left = {module: needed for module, needed in left.items() if module not in free}
    assert left == {}


@pytest.mark.parametrize("below", ["change", "promises", "server", "file", "look", "errors"])
def test_nothing_below_knows_of_prismas_history(below: str) -> None:
    found = [
        name
        for name, path in MODULES.items()
        if name.startswith(f"pg_hotfix.{below}") and "pg_hotfix.history" in path.read_text()
    ]
    assert found == []


# The command line and the laptop

COMMAND_LINE = sorted(
    str(path.relative_to(PROJECT)) for room in ("cli", "laptop", "bench") for path in (PROJECT / room).rglob("*.py")
)
# What `./pg-hotfix plan` may need: it runs where only requirements/cli.txt is installed, on a Mac as well.
ON_CALL = {"boto3", "botocore", "click", "rich", "cli", "pg_hotfix", "pg_hotfix_button", "pg_hotfix_report"}
# Nothing but the standard library is in these.
PLAIN = {"laptop.errors", "laptop.places"}


def all_imports_of(path: Path) -> Iterator[str]:
    """Every module that is imported while it runs: those for its types alone do not count."""
    tree = ast.parse(path.read_text())
    typed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typed:
            continue
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize(
    "name", [name for name in COMMAND_LINE if name.startswith(("cli/operate", "cli/main", "cli/show"))]
)
def test_a_command_of_whoever_is_on_call_needs_no_laptop(name: str) -> None:
    needed = {found for found in all_imports_of(PROJECT / name) if found not in PLAIN}
    outside = {found for found in needed if found.partition(".")[0] not in ON_CALL | sys.stdlib_module_names}
    assert outside == set()
    if name.startswith("cli/operate"):
        assert {found for found in needed if found.startswith("cli.author")} == set()


@pytest.mark.parametrize("name", [name for name in COMMAND_LINE if name.startswith("laptop/")])
def test_the_laptop_knows_no_command(name: str) -> None:
    assert {found for found in all_imports_of(PROJECT / name) if found.partition(".")[0] in ("cli", "bench")} == set()


def test_errors_and_places_are_plain() -> None:
    for module in PLAIN:
        path = PROJECT / f"{module.replace('.', '/')}.py"
        assert {found.partition(".")[0] for found in all_imports_of(path)} <= set(sys.stdlib_module_names)


def test_what_whoever_is_on_call_runs_is_written_for_python_3_11() -> None:
    """Modules are followed from cli/operate on; the launcher's own test runs them."""
    roots = [PROJECT, *(PROJECT / "functions" / name for name in ("button", "migrate", "report"))]
    left = [f"cli.operate.{path.stem}" for path in (PROJECT / "cli" / "operate").glob("*.py")]
    seen: set[str] = set()
    while left:
        module = left.pop()
        found = [root / f"{module.replace('.', '/')}.py" for root in roots]
        path = next((one for one in found if one.exists()), None)
        if path is None or module in seen:
            continue
        seen.add(module)
        ast.parse(path.read_text(), feature_version=(3, 11))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                left += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    assert "pg_hotfix.request" in seen
