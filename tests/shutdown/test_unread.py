"""Which clients a shutdown takes for such that do not read any more."""

import asyncio
from typing import Any, cast

from quattro_web._app.drain import Unread
from quattro_web._shutdown.servers import ServerConnection


class Transport:
    """A transport with a client behind it, which reads or does not."""

    def __init__(self, waiting: int, peer: object = ("10.0.0.7", 50000)) -> None:
        self.waiting = waiting
        self.peer = peer
        self.is_aborted = False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, name: str) -> Any:
        return {"peername": self.peer}[name]

    def abort(self) -> None:
        self.is_aborted = True


def connection(transport: Transport, path: str | None = None) -> ServerConnection:
    scope = None if path is None else {"method": "GET", "path": path}
    return ServerConnection(cast("asyncio.Transport", transport), scope)


def test_who_reads_is_not_dropped() -> None:
    """A6: A client that reads, however slowly, is not taken for one that has stopped to: as long as
    what waits for it becomes less. What is sent to it meanwhile does not count."""
    unread = Unread()
    reads, waits = Transport(100), Transport(100)
    for second in range(5):
        reads.waiting -= 10
        waits.waiting += 10
        unread.look([connection(reads, "/slow"), connection(waits, "/stuck")], second)
    assert unread.drop(1, 4) == [
        "GET /stuck from 10.0.0.7:50000, which has read nothing for 4.0 s",
    ]
    assert (reads.is_aborted, waits.is_aborted) == (False, True)
    assert unread.drop(0, 4)[0] == "GET /slow from 10.0.0.7:50000, which has read nothing for 0.0 s"


def test_who_has_read_everything_is_not_dropped() -> None:
    """A6: A connection for which nothing waits is none of them."""
    unread = Unread()
    transport = Transport(100)
    unread.look([connection(transport)], 0)
    transport.waiting = 0
    unread.look([connection(transport)], 1)
    assert unread.drop(0, 2) == []


def test_names() -> None:
    """A6: A connection keeps the name of its request, also when that has ended; one that had none
    is known by its client, or by none where that is on the same host."""
    unread = Unread()
    transport, local = Transport(100), Transport(100, peer="")
    unread.look([connection(transport, "/events"), connection(local)], 0)
    unread.look([connection(transport), connection(local)], 2)
    assert unread.drop(1, 2) == [
        "GET /events from 10.0.0.7:50000, which has read nothing for 2.0 s",
        "a connection from a socket of this host, which has read nothing for 2.0 s",
    ]
