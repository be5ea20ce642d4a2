"""The pins: exact versions of all that `make` installs, for every Python that is supported."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
GROUPS: dict[str, list[Any]] = PYPROJECT["dependency-groups"]
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES]
MARK = "Programming Language :: Python :: "
VERSIONS = [c.removeprefix(MARK) for c in PROJECT["classifiers"] if c.startswith(f"{MARK}3.")]
# Each list of requirements that a target, or an isolated build, installs.
LISTS = {
    "dependencies": PROJECT["dependencies"],
    "build-system": PYPROJECT["build-system"]["requires"],
    **{f"extra-{name}": extra for name, extra in PROJECT["optional-dependencies"].items()},
    **GROUPS,
}


def requirements(entries: list[Any]) -> Iterator[Requirement]:
    """Each requirement of a list, those of the groups that it includes with it."""
    for entry in entries:
        if isinstance(entry, str):
            yield Requirement(entry)
        else:
            yield from requirements(GROUPS[entry["include-group"]])


def applies(requirement: Requirement, version: str) -> bool:
    here = {"python_version": version, "python_full_version": f"{version}.9"}
    return requirement.marker is None or requirement.marker.evaluate(here)


def pins_of(requirement: Requirement, version: str) -> list[str]:
    """The versions that this package is pinned to on a Python."""
    name = canonicalize_name(requirement.name)
    pins = [pin for pin in PINS if canonicalize_name(pin.name) == name and applies(pin, version)]
    return [each.version for pin in pins for each in pin.specifier]


def test_names_no_host_and_no_path() -> None:
    """A line is a name, an exact version and perhaps a marker: nothing of where it was made."""
    for line, pin in zip(LINES, PINS, strict=True):
        assert [each.operator for each in pin.specifier] == ["=="]
        assert "*" not in str(pin.specifier)
        assert pin.url is None
        assert not {*"/\\@#"} & {*line}


def test_every_supported_python_is_asked_for() -> None:
    """The Pythons of these tests are those of the classifiers: from requires-python on, no gap."""
    minors = [int(version.removeprefix("3.")) for version in VERSIONS]
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    assert minors == list(range(minors[0], minors[0] + len(minors)))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", LISTS)
def test_each_requirement_has_one_pin(name: str, version: str) -> None:
    """Each requirement has exactly one pin on each Python, and it is one that it allows."""
    for requirement in requirements(LISTS[name]):
        if applies(requirement, version):
            (pin,) = pins_of(requirement, version)
            assert requirement.specifier.contains(pin, prereleases=True), requirement
