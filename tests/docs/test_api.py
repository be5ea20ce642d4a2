"""The API reference has every public name, once, and nothing else."""

import inspect
import re
from collections import Counter
from importlib import import_module
from typing import Any, get_overloads

import pytest

from quattro_web import Pump
from tests.docs.pages import PAGES, ROOT

REFERENCE = ROOT / "docs" / "api"
MODULES = {
    "core": "quattro_core",
    "web": "quattro_web",
    "fastapi": "quattro_web.fastapi",
    "jobs": "quattro_web.jobs",
    "postgres": "quattro_web.postgres",
    "prometheus": "quattro_web.prometheus",
    "redis": "quattro_web.redis",
    "tasks": "quattro_web.tasks",
    "testing": "quattro_web.testing",
}
PUBLIC = {name for module in MODULES.values() for name in import_module(module).__all__}

# The names that a page documents: what autodoc reads, and what is written by hand.
DOCUMENTED = re.compile(
    r"^\.\. (?:auto(?:class|function|exception|data|module)|py:(?:class|exception)):: ([\w.]+)",
    re.MULTILINE,
)

# A class, and what autodoc is told of its members.
CLASSES = re.compile(
    r"^\.\. auto(?:class|exception):: ([\w.]+)(?:\(\))?\n((?:   :.*\n)*)", re.MULTILINE
)


def text_of(page: str) -> str:
    """The page of a module, and those that a long one goes on with."""
    pages = [REFERENCE / f"{page}.md", *sorted(REFERENCE.glob(f"{page}-*.md"))]
    return "".join(each.read_text(encoding="utf-8") for each in pages)


@pytest.mark.parametrize(("page", "module"), MODULES.items())
def test_every_public_name_is_documented_once(page: str, module: str) -> None:
    """A module's pages have what its ``__all__`` has: each name once, and no other."""
    names = DOCUMENTED.findall(text_of(page))
    public = [f"{module}.{name}" for name in import_module(module).__all__]
    assert sorted(names) == public
    assert max(Counter(names).values()) == 1


@pytest.mark.parametrize(("page", "module"), MODULES.items())
def test_every_public_member_is_documented(page: str, module: str) -> None:
    """What a public class has with a ``versionadded`` is in the reference, inherited or not."""
    text = text_of(page)
    missing = [
        f"{name}.{member}"
        for name, options in CLASSES.findall(text)
        for owner, member in members_of(getattr(import_module(module), name.rpartition(".")[2]))
        if not is_shown(member, options, is_own=name.endswith(f".{owner}"))
    ]
    assert missing == []


def test_no_public_member_is_hidden() -> None:
    """What nobody should call is private: no page leaves a member out, and the testing kit has none
    that its author has not made public."""
    texts = [path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md")]
    assert [text for text in texts if ":exclude-members:" in text] == []
    kit = import_module(MODULES["testing"])
    assert [
        f"{name}.{member}"
        for name, cls in vars(kit).items()
        if name in kit.__all__ and isinstance(cls, type)
        for owner in cls.__mro__
        if owner.__module__.startswith(kit.__name__)
        for member in vars(owner)
        if not member.startswith("_")
        if "versionadded" not in (getattr(cls, member).__doc__ or "")
    ] == []


@pytest.mark.parametrize("module", MODULES.values())
def test_signatures_have_public_names(module: str) -> None:
    """A type in the signature of what is public is one that its reader can look up."""
    exported = import_module(module)
    public = [getattr(exported, name) for name in exported.__all__]
    members = [
        getattr(cls, member)
        for cls in public
        if isinstance(cls, type)
        for _, member in members_of(cls)
    ]
    for value in [*public, *members]:
        shown = [value, *get_overloads(value)] if inspect.isroutine(value) else []
        types = [text for each in shown for text in inspect.get_annotations(each).values()]
        assert [text for text in types if re.search(r"\b_[A-Z]", str(text))] == [], value


def test_members_of_a_pump() -> None:
    """A Pump has, in public, what its docstring tells of, and nothing else."""
    attributes = (inspect.getdoc(Pump) or "").partition("Attributes:")[2].partition("Raises:")[0]
    told = re.findall(r"^    (\w+): ", attributes, re.MULTILINE)
    public = [name for name in dir(Pump) if not name.startswith("_")]
    assert public == sorted(told)


def members_of(cls: type[Any]) -> list[tuple[str, str]]:
    """Return each member that its author has made public, with the class that it is of."""
    return [
        (owner.__name__, name)
        for owner in cls.__mro__
        if owner is cls or owner.__name__ not in PUBLIC  # which has an entry of its own
        for name, value in vars(owner).items()
        if not name.startswith("_") and "versionadded" in (getattr(value, "__doc__", None) or "")
    ]


def is_shown(member: str, options: str, *, is_own: bool) -> bool:
    listed = re.search(r":members: (.+)", options)
    if listed is not None:
        return member in listed[1].split(", ")
    return ":members:" in options and (is_own or ":inherited-members:" in options)


def test_reference_is_in_one_place() -> None:
    """No other page documents a name: there is one place that a link can lead to."""
    others = [page for page in PAGES if page.parent != REFERENCE]
    assert [page for page in others if DOCUMENTED.search(page.read_text(encoding="utf-8"))] == []


def test_every_public_module_has_a_page() -> None:
    """Each module that has no name with an underscore on its path is in the reference."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in ("quattro_core", "quattro_web")
        for path in (ROOT / package).rglob("*.py")
        if path.parent.name != "plugin"  # a module of its own, where it is installed
    }
    assert {name for name in modules if "._" not in name} == {*MODULES.values()}
    assert {path.stem.partition("-")[0] for path in REFERENCE.glob("*.md")} == {*MODULES, "index"}
