"""What a failed pump does to each server."""

import re
import signal

import pytest

from tests.servers.living import EACH, Client, Living, check_status
from tests.support.limitations import Limitation

# A server of several processes replaces the one that has ended, or waits for a change of its files;
# each of the others ends, with this status.
REPLACES = {"uvicorn-2", "gunicorn", "gunicorn-2"}
STATUS = {
    "uvicorn": -signal.SIGTERM,
    "hypercorn": 1,
    "hypercorn-0": 1,
    "hypercorn-2": 1,
    "granian": 1,
    "granian-2": 1,
}
DROPS_THE_STATUS = {"hypercorn", "hypercorn-2"}


@EACH
def test_failed_pump(name: str, limitation: Limitation) -> None:
    """A3, A4: A pump that fails is logged once, with its traceback, at once; the server stops
    gracefully, or replaces the process, and tells of the failure where it can."""
    with Living(name) as server:
        slow = Client(server, "/slow?seconds=1")
        server.wait_for("slow begins")
        failed = Client(server, "/break").result()[1].decode()
        server.wait_for("ZeroDivisionError: the pump is broken")
        assert slow.result() == (200, b"slow", True)
        if name in REPLACES:
            server.wait_for_each("pump begins", server.workers + 1)
            assert Client(server, "/readyz").result()[0] == 200
            assert server.stop() == 0
        elif name == "uvicorn-reload":
            server.wait_for("resources close")
            assert server.stop() == 0
        else:
            status, drops = server.wait(), name in DROPS_THE_STATUS
            check_status(name, status, STATUS[name], limitation, drops=drops)
    log = server.log
    assert log.count("ZeroDivisionError: the pump is broken") == 1
    assert log.index("pump fragile failed: the server must stop") < log.index("pump ends")
    assert server.said()[failed][-2:] == ["pump ends", "resources close"]
    for lines in server.said().values():
        assert lines[-1] == "resources close"
    assert "Task was destroyed" not in log


@EACH
def test_clients_that_stay_do_not_keep_a_failure_back(name: str, limitation: Limitation) -> None:
    """A3, A6: With an endless stream open, the server of a failed pump ends as well."""
    if name in REPLACES or name == "uvicorn-reload":
        pytest.skip("the server goes on")
    with Living(name) as server:
        stream = Client(server, "/events")
        assert stream.has_begun.wait(60)
        Client(server, "/break")
        status, drops = server.wait(), name in DROPS_THE_STATUS
        check_status(name, status, STATUS[name], limitation, drops=drops)
        assert stream.result() == (200, b"data: tick\n\n", True)


BEFORE_THE_START = {
    "uvicorn": 3,
    "uvicorn-2": 3,
    "gunicorn": 3,
    "hypercorn": 1,
    "hypercorn-0": 1,
    "granian": 1,
}


@pytest.mark.parametrize("name", BEFORE_THE_START)
def test_failure_before_the_start(name: str, limitation: Limitation) -> None:
    """A2, A3: A pump that fails before the app has started is a failed start-up, with its error and
    the server's status for that; nothing was served."""
    with Living(name, "stillborn", ready=False) as server:
        status, drops = server.wait(), name in {"uvicorn-2", "hypercorn"}
        check_status(name, status, BEFORE_THE_START[name], limitation, drops=drops)
    assert "ZeroDivisionError: the pump never worked" in server.log
    assert re.search(r"raised by pump never, before the app has started", server.log)
    assert "resources close" in server.log
