"""Servers that live and die, each started as its users start it, and clients that watch."""

from __future__ import annotations

import re
import threading
from typing import Self

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.servers.matrix import environment, need
from tests.support.limitations import Limitation
from tests.support.server import PATIENCE, Server, granian, gunicorn, hypercorn, uvicorn

# By name; those with "2" have two workers, which are told apart by their pid in the log.
COMMANDS = {
    "uvicorn": lambda app: uvicorn(app),
    "uvicorn-2": lambda app: uvicorn(app, "--workers", "2"),
    "uvicorn-reload": lambda app: uvicorn(app, "--reload"),
    "gunicorn": lambda app: gunicorn(app, "-w", "1"),
    "gunicorn-2": lambda app: gunicorn(app, "-w", "2"),
    "hypercorn": lambda app: hypercorn(app),
    "hypercorn-0": lambda app: hypercorn(app, "--workers", "0"),
    "hypercorn-2": lambda app: hypercorn(app, "--workers", "2"),
    "granian": lambda app: granian(app),
    "granian-2": lambda app: granian(app, "--workers", "2"),
}

EACH = pytest.mark.parametrize("name", COMMANDS)

# hypercorn and granian, in some of their forms, end with 0 whatever their processes end with.
DROPS = "drops the exit status of its processes"


def check_status(
    name: str, status: int, expected: int, limitation: Limitation, *, drops: bool
) -> None:
    """Check the exit status of a server, which may be dropped on its way.

    Args:
        name: The name of the server.
        status: The status that it has ended with.
        expected: The one that it should end with.
        limitation: The fixture.
        drops: Whether 0 is all that this server is known for.
    """
    if drops:
        brand, _, parts = name.partition("-")
        assert status in {0, expected}
        limitation(brand, f"({parts or 'default'}) {DROPS}", remains=status == 0)
    else:
        assert status == expected


class Living(Server):
    """A server of the list above, whose workers have all begun.

    Args:
        name: Its name.
        app: The app, of those in `tests.servers.lifetime`.
        *options: More options of the server.
        ready: Whether to wait until they have begun.
    """

    def __init__(self, name: str, app: str = "app", *options: str, ready: bool = True) -> None:
        brand = name.partition("-")[0]
        need(brand)
        command = COMMANDS[name](f"tests.servers.lifetime:{app}")
        super().__init__([*command, *options], env=environment(brand), ready=ready)
        self._begins = ready
        self.workers = 2 if name.endswith("-2") else 1

    def __enter__(self) -> Self:
        super().__enter__()
        if self._begins:
            self.wait_for_each("pump begins", self.workers)
        return self

    def wait_for_each(self, what: str, count: int) -> None:
        """Wait until that many processes have said so."""
        self.wait_for(rf"(?s)(?:{re.escape(what)} in \d+.*){{{count}}}")

    def said(self) -> dict[str, list[str]]:
        """Return what each process has said, in order."""
        found: dict[str, list[str]] = {}
        for what, pid in re.findall(r"^(.*) in (\d+)$", self.log, re.MULTILINE):
            found.setdefault(pid, []).append(what)
        return found

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Client(threading.Thread):
    """A client that makes a request and reads to its end.

    Attributes:
        status: The status of the response.
        body: What has come of its body.
        is_complete: Whether it came to a clean end.
    """

    def __init__(self, server: Living, path: str) -> None:
        super().__init__(daemon=True)
        self._url = server.url + path
        self.status = 0
        self.body = b""
        self.is_complete = False
        self.has_begun = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            with httpx.stream("GET", self._url, timeout=PATIENCE) as response:
                self.status = response.status_code
                for chunk in response.iter_raw():
                    self.body += chunk
                    self.has_begun.set()
            self.is_complete = True
        except httpx.HTTPError:
            pass
        finally:
            self.has_begun.set()

    def result(self) -> tuple[int, bytes, bool]:
        """Wait for the end; return status, body and whether it was clean."""
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.status, self.body, self.is_complete


class Talker(threading.Thread):
    """A WebSocket client that says nothing, and keeps the code of the close frame."""

    def __init__(self, server: Living) -> None:
        super().__init__(daemon=True)
        self._url = f"ws://127.0.0.1:{server.port}/socket"
        self._has_begun = threading.Event()
        self.code = 0
        self.start()
        assert self._has_begun.wait(PATIENCE)

    def run(self) -> None:
        with connect(self._url, open_timeout=PATIENCE) as socket:
            assert socket.recv(PATIENCE) == "hello"
            self._has_begun.set()
            try:
                socket.recv(PATIENCE)
            except ConnectionClosed as closed:
                self.code = closed.rcvd.code if closed.rcvd is not None else 1006

    def result(self) -> int:
        """Wait for the end, and return the code."""
        self.join(2 * PATIENCE)
        return self.code
