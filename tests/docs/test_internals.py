"""The page on the inside shows the code as it is."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import FrameType

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from quattro_web import install, request_task_group
from tests.docs.layers import PAGE, PICTURE, ROOT, TREE, Unit, draw, rows_of, tree
from tests.support.asgi import get, run

EXAMPLE = re.compile(
    r"## What happens when a child raises HTTPException\(404\)\n(.*?)\n## ", re.DOTALL
)
MOST_FILES = 8


def test_picture_is_that_of_the_imports() -> None:
    """The picture of the layers is drawn from the imports: `python -m tests.docs.layers`."""
    assert PICTURE.read_text("utf-8") == draw()


def test_tree_is_that_of_the_files() -> None:
    """The tree names every file of the packages, and says of each what its docstring says."""
    shown = TREE.search(PAGE.read_text("utf-8"))
    assert shown is not None
    assert shown[0] == tree()


def test_circle_is_found() -> None:
    """Files that import each other can't be drawn."""
    units = {name: Unit(name, [], {other}) for name, other in (("one", "two"), ("two", "one"))}
    with pytest.raises(ValueError, match="a circle of imports: one, two"):
        rows_of(units)


async def child() -> None:
    raise HTTPException(404)


async def page(request: Request) -> None:
    request_task_group(request).create_task(child())
    await asyncio.sleep(1)


def test_way_of_a_failure() -> None:
    """The worked example names the files that a child's HTTPException(404) passes, at most eight,
    and the functions it names are called."""
    called: dict[str, set[str]] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(("quattro_core/", "quattro_web/")):
                called.setdefault(name, set()).add(frame.f_code.co_qualname)

    async def traced() -> None:
        sys.setprofile(note)
        try:
            await get(app, log=log)
        finally:
            sys.setprofile(None)

    app = Starlette(routes=[Route("/", page)])
    install(app)
    log: list[str] = []
    run(get(app))  # what happens with the first request alone is left out
    run(traced())
    assert log[0] == "start 404"
    for counting in ("counts", "routes"):  # it is counted on its way, under its route
        del called[f"quattro_web/_util/{counting}.py"]
    assert len(called) <= MOST_FILES, sorted(called)

    example = EXAMPLE.search(PAGE.read_text("utf-8"))
    assert example is not None
    named = set(re.findall(r"`((?:quattro_core|quattro_web)/[\w/]+\.py)`", example[1]))
    # handler_end.py has what FastAPI needs besides.
    assert named == called.keys() | {"quattro_web/_request/handler_end.py"}
    functions = {name.partition("(")[0] for name in re.findall(r"`([\w.]+\(\))`", example[1])}
    assert functions
    every = set.union(*called.values())
    for name in functions:
        assert any(call == name or call.endswith(f".{name}") for call in every), name
