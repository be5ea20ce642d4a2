"""Another host, on this machine: a network namespace, and the cable that leads there."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.server import Server


def missing() -> str:
    """Return why there can be no other host; empty if there can."""
    if shutil.which("ip") is None:
        return "there is no ip: apt-get install iproute2"
    if os.getuid():
        return "network namespaces need root"
    name = f"quattro-web-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces can't be made here, as in a container: {made.stderr.strip()}"
    _ip("netns", "delete", name)
    return ""


class OtherHost:
    """A network namespace that lasts for the block, with one cable to this one.

    Attributes:
        here: The address of this end of the cable.
        there: The address of the other end.
    """

    def __init__(self) -> None:
        number = random.SystemRandom().randrange(1 << 14)
        self._name = f"quattro-web-{number}"
        self._near, self._far = f"qwn{number}", f"qwf{number}"
        net = f"10.{211 + (number >> 12)}.{(number >> 4) & 255}"
        first = 4 * (number & 15)
        self.here, self.there = f"{net}.{first + 1}", f"{net}.{first + 2}"

    def __enter__(self) -> Self:
        _ip("netns", "add", self._name)
        try:
            cable = ("link", "add", self._near, "type", "veth", "peer", "name", self._far)
            _ip(*cable, "netns", self._name)
            _ip("address", "add", f"{self.here}/30", "dev", self._near)
            self._ip("address", "add", f"{self.there}/30", "dev", self._far)
            self._ip("link", "set", "lo", "up")
            self._ip("link", "set", self._far, "up")
            _ip("link", "set", self._near, "up")
        except BaseException:
            _ip("netns", "delete", self._name)
            raise
        return self

    def __exit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        _ip("netns", "delete", self._name)  # with its end of the cable, and so the other one

    def pull(self, end: str) -> None:
        """Pull the cable, at this end ("near") or at the other ("far")."""
        self._at(end)("link", "set", self._near if end == "near" else self._far, "down")

    def plug(self, end: str) -> None:
        """Plug the cable in again."""
        self._at(end)("link", "set", self._near if end == "near" else self._far, "up")

    def lose(self, end: str) -> None:
        """Let what this end ("near") or the other one ("far") sends get lost on its way."""
        where = (self.there, "dev", self._near) if end == "near" else (self.here, "dev", self._far)
        nobody = ("lladdr", "02:00:00:00:00:99", "nud", "permanent")
        self._at(end)("neighbour", "replace", *where, *nobody)

    def find(self, end: str) -> None:
        """Let it arrive again."""
        where = (self.there, "dev", self._near) if end == "near" else (self.here, "dev", self._far)
        self._at(end)("neighbour", "delete", *where)

    def runs(self, server: Server) -> Server:
        """Let a server, which has not begun yet, run there."""
        server._command = ["ip", "netns", "exec", self._name, *server._command]
        return server

    def _at(self, end: str) -> Callable[..., None]:
        return _ip if end == "near" else self._ip

    def _ip(self, *arguments: str) -> None:
        _ip("-netns", self._name, *arguments)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
