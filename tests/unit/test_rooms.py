"""The rooms of the function: imports run one way, so that a room can be read without those above it."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import pytest

from local.places import PROJECT

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
