"""Servers that stop without a signal, with clients that stay."""

import re
import signal

import pytest

from tests.servers.embedded import PROGRAMS
from tests.servers.living import Client, Living
from tests.servers.matrix import environment, need
from tests.support.server import Server

EACH = pytest.mark.parametrize("name", PROGRAMS)


class Embedded(Living):
    """A server that a program runs, in a process of its own.

    Args:
        name: Its name, of those in `tests.servers.embedded`.
    """

    def __init__(self, name: str) -> None:
        brand = name.partition("-")[0]
        need(brand)
        Server.__init__(self, ["-m", "tests.servers.embedded", name], env=environment(brand))
        self._begins = True
        self.workers = 1


@EACH
def test_clients_that_stay_do_not_keep_it_from_ending(name: str) -> None:
    """A6: A server that is stopped without a signal, by an attribute, an event or a method of it,
    shuts down as at one: in-flight work is told at once, what goes on is cancelled after its grace,
    pumps and resources end after it, and the program around the server goes on."""
    with Embedded(name) as server:
        stream, told = Client(server, "/events"), Client(server, "/told")
        assert stream.has_begun.wait(60)
        server.wait_for("told waits")
        assert server.stop(signal.SIGUSR1) == 0
        assert told.result() == (200, b"goodbye", True)
        assert stream.result()[:2] == (200, b"data: tick\n\n")
    [lines] = server.said().values()
    assert lines[3:] == ["told", "events end", "pump ends", "resources close", "program goes on"]
    assert re.search(
        r"the shutdown cancels everything that is still open after 1\.[5-9] s", server.log
    )


def test_program_that_announces_the_shutdown() -> None:
    """A6: From `begin_shutdown` on the bound counts at once, also while the event loop is blocked:
    the process of a server ends, and the log names the line."""
    with Embedded("uvicorn-announced") as server:
        Client(server, "/block")
        server.wait_for("block begins")
        assert server.stop(signal.SIGUSR1) == 1
    assert "the shutdown has not ended within 5 s, so the process exits now" in server.log
    assert "thread MainThread (block, " in server.log


@EACH
def test_failed_pump(name: str) -> None:
    """A3, A4: So a server that takes no signals is asked to stop when a pump has failed."""
    with Embedded(name) as server:
        stream = Client(server, "/events")
        assert stream.has_begun.wait(60)
        Client(server, "/break")
        server.wait()
    assert "ZeroDivisionError: the pump is broken" in server.log
    [lines] = server.said().values()
    assert lines[2:5] == ["events end", "pump ends", "resources close"]


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("uvicorn", "--limit-max-requests"),
        ("uvicorn-2", "--limit-max-requests"),
        ("gunicorn", "--max-requests"),
        ("hypercorn", "--max-requests"),
    ],
)
def test_server_that_has_answered_enough(name: str, option: str) -> None:
    """A6: A process that ends when it has answered enough requests shuts down like that as well."""
    with Living(name, "app", option, "1") as server:
        told = Client(server, "/told")
        server.wait_for("told waits")
        [pid] = [pid for pid, lines in server.said().items() if "told waits" in lines]
        while "told in" not in server.log:
            Client(server, "/livez").result()  # any process may answer
        assert told.result() == (200, b"goodbye", True)
        server.wait_for(f"resources close in {pid}")
    assert server.said()[pid][-4:] == ["told waits", "told", "pump ends", "resources close"]
