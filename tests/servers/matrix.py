"""The servers that people deploy, and what a test asks of each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count

import pytest

from tests.support.server import Server, granian, hypercorn, uvicorn
from tests.support.wire import Wire

APP = "tests.servers.apps:recorded"
RAISED = re.compile(r"^\[(\S+)\] the app raised (\w+)$", re.MULTILINE)
OPTIONAL = {"uvicorn", "hypercorn", "granian", "httptools", "uvloop", "wsproto"}


def need(*modules: str) -> None:
    """Skip the test if one of them is not installed; where everything has to be, fail."""
    for module in modules:
        if find_spec(module) is None:
            reason = f"{module} is not installed"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def commands() -> dict[str, list[str]]:
    """How each server is started; the parts of its name are what it is made of."""
    found = {}
    for parts in (
        ("h11", "asyncio", "websockets"),
        ("h11", "uvloop", "websockets-sansio"),
        ("httptools", "uvloop", "wsproto"),
        ("httptools", "asyncio", "websockets-sansio"),
    ):
        http, loop, ws = parts
        options = ("--http", http, "--loop", loop, "--ws", ws)
        found["-".join(("uvicorn", *parts))] = uvicorn(APP, *options)
    found["hypercorn"] = hypercorn(APP)
    found["hypercorn-workers-0"] = hypercorn(APP, "--workers", "0")
    found["granian"] = granian(APP)
    return found


def environment(brand: str) -> dict[str, str]:
    """Return what a server's processes need in their environment.

    On Python 3.15, granian 2.8.9 opens a WebSocket under uvloop and then answers nothing, if
    asyncio's debug mode is on, which it is in tests: there it runs without that mode, and
    `test_websocket_in_debug_mode` looks whether that is still needed.
    """
    is_hanging = brand == "granian" and sys.version_info >= (3, 15)
    return {"PYTHONASYNCIODEBUG": ""} if is_hanging else {}


class Matrixed(Server):
    """A server of the matrix, by its name, or another one that is started with a command."""

    def __init__(self, name: str, command: list[str] | None = None) -> None:
        self.name = name
        self.brand, _, parts = name.partition("-")
        super().__init__(command or commands()[name], env=environment(self.brand))
        self.parts = parts or "default"
        self._barriers = count(1)

    def get(self, scene: str, key: str) -> str:
        """Make a request on a connection of its own."""
        with Wire(self.port) as wire:
            return wire.get(f"/{scene}/{key}").text

    def open(self, key: str) -> None:
        """Let what waits in the request with this key go on."""
        with Wire(self.port) as wire:
            assert wire.get(f"/open?key={key}").text == "open"

    def barrier(self) -> None:
        """Wait until all that the server has written by now has arrived here."""
        key = f"barrier-{next(self._barriers)}"
        self.get("tasks", key)
        self.wait_for_note(key, "the app returned")

    def wait_for_note(self, key: str, text: str) -> None:
        """Wait until the app has noted this of a request."""
        self.wait_for(rf"^\[{key}\] {re.escape(text)}")

    def notes(self, key: str) -> list[str]:
        """Wait until the app has ended with a request; return all it has noted of it, in order."""
        self.wait_for(rf"^\[{key}\] the app (?:returned|raised)")
        return self.notes_so_far(key)

    def notes_so_far(self, key: str) -> list[str]:
        """Return what the app has noted of a request, in order."""
        self.barrier()
        mark = f"[{key}] "
        return [line.removeprefix(mark) for line in self.log.splitlines() if mark in line]

    def _wait_for_errors(self) -> None:
        """Wait until each error that has left the app is in the log: a server writes it later."""
        for key, error in RAISED.findall(self.log):
            self.wait_for(rf"(?s)^\[{key}\] the app raised {error}$.*?^[\w.]*{error}\b")

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Fail if a traceback is logged in the block."""
        self._wait_for_errors()  # what others have left in the log is theirs
        self.barrier()
        before = len(self.log)
        yield
        self.barrier()
        log = self.log[before:]
        assert "Traceback" not in log, log
