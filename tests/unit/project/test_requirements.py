"""requirements/*.txt are what `make requirements` makes of pyproject.toml, as far as can be told without a network."""

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
GROUPS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["dependency-groups"]


def read_pins(group: str) -> dict[str, tuple[str, list[str], str]]:
    """Returns for each package its version, its hashes, and the comment that says who wants it."""
    text = (PROJECT / "requirements" / f"{group}.txt").read_text()
    blocks = re.split(r"\n(?=\S)", text)
    pins = {}
    for block in blocks:
        name, version = block.split(" ", 1)[0].split("==")
        pins[name] = version, re.findall(r"--hash=sha256:([0-9a-f]{64})", block), block.partition("# via")[2]
    return pins


def direct_requirements(group: str) -> dict[str, str | None]:
    """Returns the normalised names that pyproject.toml lists for the group, each with its pinned version, or None where
    it is left open or only bounded."""
    listed: dict[str, str | None] = {}
    for item in GROUPS[group]:
        if isinstance(item, dict):
            listed |= direct_requirements(item["include-group"])
        else:
            name = re.split(r"[^\w.-]", item)[0]
            listed[re.sub(r"[-_.]+", "-", name).lower()] = item.partition("==")[2] or None
    return listed


@pytest.mark.parametrize("group", GROUPS)
def test_every_requirement_of_pyproject_is_compiled_and_none_is_left_over(group: str) -> None:
    pins = read_pins(group)
    compiled = {name for name, (_, _, via) in pins.items() if f"(pyproject.toml:{group})" in via}
    assert compiled == set(direct_requirements(group)), "run: make requirements"


@pytest.mark.parametrize("group", GROUPS)
def test_every_pin_of_pyproject_is_the_compiled_version(group: str) -> None:
    pins = read_pins(group)
    wanted = {name: version for name, version in direct_requirements(group).items() if version}
    assert {name: pins[name][0] for name in wanted} == wanted, "run: make requirements"


@pytest.mark.parametrize("group", GROUPS)
def test_every_package_has_hashes(group: str) -> None:
    assert [name for name, (_, hashes, _) in read_pins(group).items() if not hashes] == []


def test_the_function_ships_the_versions_that_the_tests_use() -> None:
    tested = {name: version for name, (version, _, _) in read_pins("dev").items()}
    shipped = {name: version for name, (version, _, _) in read_pins("function").items()}
    assert shipped.items() <= tested.items(), "run: make requirements"


def test_no_requirement_file_names_a_package_index() -> None:
    for path in (PROJECT / "requirements").glob("*.txt"):
        assert "://" not in path.read_text(), path.name
