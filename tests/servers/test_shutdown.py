"""Shutdown on real servers, with clients that stay."""

import re
import signal
import sys

import pytest

from tests.servers.lifetime import PATIENT
from tests.servers.living import EACH, Client, Living, Talker
from tests.support.limitations import Limitation

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])

# What a server ends with when it was asked to; all of the others end with 0.
STATUS = {("uvicorn", signal.SIGTERM): -signal.SIGTERM}

# At a SIGINT gunicorn does not let the workers of uvicorn end, and kills them after 30 s: there the
# last resort ends them.
NEVER_ENDS = {("gunicorn", signal.SIGINT), ("gunicorn-2", signal.SIGINT)}

CUT = r"the shutdown cancels everything that is still open after (\d+\.\d) s"


@EACH
@SIGNALS
def test_clients_that_stay_do_not_keep_it_from_ending(
    name: str, number: signal.Signals, limitation: Limitation
) -> None:
    """A6: With an event stream, an idle WebSocket and a slow request open, a signal ends the server
    within its bound: in-flight work is told at once, what may finish does, the rest is cancelled,
    and pumps and resources end after it, in each process (trap: a stream that ignores shutdown)."""
    with Living(name) as server:
        stream, told = Client(server, "/events"), Client(server, "/told")
        slow, short = Client(server, "/slow"), Client(server, "/slow?seconds=1")
        talker = Talker(server)
        assert stream.has_begun.wait(60)
        server.wait_for("told waits")
        server.wait_for_each("slow begins", 2)
        assert server.stop(number) == STATUS.get((name, number), 0)
        assert told.result() == (200, b"goodbye", True)
        assert short.result() == (200, b"slow", True)
        assert slow.result() == (503, b"Service Unavailable", True)
        assert stream.result() == (200, b"data: tick\n\n", True)
        code = talker.result()
    brand, _, parts = name.partition("-")
    if brand == "granian":
        limitation(brand, "drops its WebSockets without a close frame", remains=code == 1006)
        assert code in {1006, 1001, 1012}
    else:
        assert code == 1012
    said = server.said()
    assert len(said) == server.workers
    for lines in said.values():
        assert lines[-2:] == ["pump ends", "resources close"]
    every = [line for lines in said.values() for line in lines]
    assert sorted(every) == sorted(
        ["told waits", "told", "slow begins", "slow begins", "slow is cancelled"]
        + ["events end", "socket ends"]
        + ["resources open", "pump begins", "pump ends", "resources close"] * server.workers
    )
    assert seconds_until_cut(server) >= 1.5
    assert "Task was destroyed" not in server.log
    assert "Traceback" not in server.log
    at_the_bound = "has not ended within" in server.log
    if (name, number) in NEVER_ENDS:
        what = f"({parts or 'default'}) does not end uvicorn's workers at a SIGINT"
        limitation("gunicorn", what, remains=at_the_bound)
    else:
        assert not at_the_bound


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn", "hypercorn-0", "granian"])
def test_signal_by_which_the_server_does_not_stop(name: str) -> None:
    """A6: A handler of the app's own for a signal by which its server does not stop, such as one
    that writes stacks at a SIGQUIT, gets it, and the app goes on."""
    with Living(name) as server:
        assert Client(server, "/dump").result() == (200, b"said", True)
        server.wait_for("stacks in")
        assert Client(server, "/readyz").result()[0] == 200
        assert server.stop() == STATUS.get((name, signal.SIGTERM), 0)


@pytest.mark.parametrize("name", ["uvicorn", "granian"])
def test_log_of_streams_that_are_cut(name: str) -> None:
    """A6, R5: Streams that the shutdown cuts look truncated to their clients, and the log has one
    entry for all of them, and at most a line of the server's for each."""
    with Living(name) as server:
        streams = [Client(server, "/download") for _ in range(3)]
        assert all(stream.has_begun.wait(60) for stream in streams)
        assert server.stop() == STATUS.get((name, signal.SIGTERM), 0)
    assert [stream.result() for stream in streams] == [(200, b"data: tick\n\n", False)] * 3
    assert server.log.count("the shutdown cancels everything that is still open") == 1
    assert server.log.count("GET /download, since") == 3
    assert "Traceback" not in server.log
    assert server.log.count("without completing response") in {0, 3}


def seconds_until_cut(server: Living) -> float:
    """Return when the shutdown first cancelled what was open, by the log.

    Never sooner than its grace allows; how much later is a matter of the machine.
    """
    found = re.search(CUT, server.log)
    assert found, server.log
    return float(found[1])


LAST_RESORT = pytest.mark.parametrize(
    "name", ["uvicorn", "uvicorn-2", "gunicorn", "hypercorn", "hypercorn-0", "granian"]
)


@LAST_RESORT
@pytest.mark.parametrize("what", ["deaf", "thread", "block"])
def test_nothing_keeps_it_from_ending(name: str, what: str) -> None:
    """A6: A handler that answers no cancellation, one in a thread and one that blocks the loop
    don't keep the server from ending either; the log names them, and where they hang."""
    with Living(name) as server:
        Client(server, f"/{what}")
        server.wait_for(f"{what} begins")
        server.stop()
    assert "the shutdown has not ended within 5 s, so the process exits now" in server.log
    assert f"GET /{what}" in server.log or what == "block"
    assert f"({what}, " in server.log
    if what != "block":
        assert "the shutdown no longer waits for requests that were cancelled 1 s ago" in server.log
        for lines in server.said().values():
            assert lines[-2:] == ["pump ends", "resources close"] or "deaf goes on" in lines[-1]


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn-0"])
def test_second_signal_hurries(name: str) -> None:
    """A6: A second signal ends the patience on the real servers as well."""
    with Living(name, "patient") as server:
        slow, _ = Client(server, "/slow"), Client(server, "/told")
        server.wait_for("slow begins")
        server.wait_for("told waits")
        server.send(signal.SIGTERM)
        server.wait_for("told in")
        server.send(signal.SIGTERM)
        server.wait_for("slow is cancelled")
        assert slow.result()[0] in (503, 0)
    assert seconds_until_cut(server) < PATIENT.requests


@EACH
def test_handed_over_work_is_finished(name: str) -> None:
    """A5: Work that was handed over is finished before the pumps end, on every server."""
    with Living(name, "patient") as server:
        assert Client(server, "/hand-over").result()[1] == b"accepted"
        server.stop()
    [lines] = [lines for lines in server.said().values() if "work ends" in lines]
    assert lines[-3:] == ["work ends", "pump ends", "resources close"]


@pytest.mark.parametrize(
    ("name", "option"),
    [("uvicorn", "--timeout-graceful-shutdown"), ("hypercorn", "--graceful-timeout")],
)
def test_server_that_is_less_patient_cuts_requests_itself(
    name: str, option: str, limitation: Limitation
) -> None:
    """A6, R3: A server whose own time for open requests is over first has them ended as the grace
    of the shutdown does: with a 503, and after their threads, and pumps and resources end in order.
    hypercorn has no such time on Python 3.12 and newer."""
    # It waits for `asyncio.Server.wait_closed` before its time begins, and that waits for the last
    # connection since Python 3.12.1.
    waits = name == "hypercorn" and sys.version_info >= (3, 12, 1)
    with Living(name, "app" if waits else "patient", option, "1") as server:
        slow, works = Client(server, "/slow"), Client(server, "/works")
        server.wait_for("slow begins")
        server.wait_for("work begins")
        server.stop()
        assert slow.result() == (503, b"Service Unavailable", True)
        assert works.result() == (503, b"Service Unavailable", True)
    if name == "hypercorn":
        what = "counts its --graceful-timeout from the end of the last connection"
        limitation(name, what, remains=seconds_until_cut(server) >= 1.5)
    else:
        assert seconds_until_cut(server) < PATIENT.requests
    [lines] = [lines for lines in server.said().values() if "slow is cancelled" in lines]
    assert lines[-5:] == [
        "slow is cancelled",
        "work is done",
        "session closes",
        "pump ends",
        "resources close",
    ]
