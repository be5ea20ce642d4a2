"""What a request finds of the context variables of the one before it on its connection."""

import pytest

from tests.servers.matrix import environment, need
from tests.support.limitations import Limitation
from tests.support.server import Server, granian, hypercorn, uvicorn
from tests.support.wire import Wire

APP = "tests.servers.visits:app"
APART = ["found nobody, child sees ann", "found nobody, child sees ben"]
MIXED = ["found nobody, child sees ann", "found ann, child sees ben"]
LARGE = b"x" * 200_000


def pipelined(server: Server) -> list[str]:
    with Wire(server.port) as wire:
        wire.ask("/visit?name=ann", "/visit?name=ben")
        return [wire.answer().text for _ in range(2)]


def after_a_large_body(server: Server) -> list[str]:
    with Wire(server.port) as wire:
        wire.ask("/visit?name=ann", method="POST", body=LARGE)
        answers = [wire.answer().text]
        wire.ask("/visit?name=ben")
        return [*answers, wire.answer().text]


@pytest.mark.parametrize(
    "command",
    [
        uvicorn(APP, "--http", "h11", "--loop", "asyncio", "--reset-contextvars"),
        uvicorn(APP, "--http", "httptools", "--loop", "asyncio", "--reset-contextvars"),
        uvicorn(APP, "--http", "httptools", "--loop", "uvloop", "--reset-contextvars"),
        hypercorn(APP),
        granian(APP),
    ],
    ids=["uvicorn-h11", "uvicorn-httptools", "uvicorn-uvloop", "hypercorn", "granian"],
)
def test_requests_begin_without_them(command: list[str]) -> None:
    """R11: A request finds no context variable of the one before it: on hypercorn and granian, and
    on uvicorn with --reset-contextvars. Its children see its own."""
    need(command[1], *{"httptools", "uvloop"} & {*command})
    with Server(command, env=environment(command[1])) as server:
        assert pipelined(server) == APART
        assert after_a_large_body(server) == APART


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_uvicorn_carries_them_over(http: str, limitation: Limitation) -> None:
    """R11: Without that option uvicorn carries them from one request into the next, when that was
    waiting already, and under asyncio's loop after a large body; a child sees its own request's all
    the same."""
    need("uvicorn", http)
    with Server(uvicorn(APP, "--http", http, "--loop", "asyncio")) as server:
        for way, what in (
            (pipelined, "carries context variables into a request that is pipelined"),
            (after_a_large_body, "carries context variables over after a large body"),
        ):
            answers = way(server)
            assert answers in (APART, MIXED)
            limitation("uvicorn", f"({http}) {what}", remains=answers == MIXED)
