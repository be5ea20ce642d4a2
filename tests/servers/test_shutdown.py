"""Shutdown on real servers, with clients that stay."""

import signal
import time

import pytest

from tests.servers.living import EACH, Client, Living, Talker

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])

# What a server ends with when it was asked to; all of the others end with 0.
STATUS = {("uvicorn", signal.SIGTERM): -signal.SIGTERM}

# At a SIGINT gunicorn does not let the workers of uvicorn end, and kills them after 30 s: there the
# last resort ends them.
IMPATIENT = {("gunicorn", signal.SIGINT), ("gunicorn-2", signal.SIGINT)}


@EACH
@SIGNALS
def test_clients_that_stay_do_not_keep_it_from_ending(name: str, number: signal.Signals) -> None:
    """A6: With an event stream, an idle WebSocket and a slow request open, a signal ends the server
    within its bound: in-flight work is told at once, what may finish does, the rest is cancelled,
    and pumps and resources end after it, in each process (trap: a stream that ignores shutdown)."""
    with Living(name) as server:
        stream, told = Client(server, "/events"), Client(server, "/told")
        slow, short = Client(server, "/slow"), Client(server, "/slow?seconds=1")
        talker = Talker(server)
        assert stream.has_begun.wait(20)
        server.wait_for("told waits")
        server.wait_for_each("slow begins", 2)
        began = time.monotonic()
        assert server.stop(number) == STATUS.get((name, number), 0)
        seconds = time.monotonic() - began
        assert told.result() == (200, b"goodbye", True)
        assert short.result() == (200, b"slow", True)
        assert slow.result() == (503, b"Service Unavailable", True)
        assert stream.result() == (200, b"data: tick\n\n", True)
        # granian drops its WebSockets at once; the others close them, as we do.
        assert talker.result() == (1006 if name.startswith("granian") else 1012)
    print(f"\n{name}, {number.name}: ended after {seconds:.1f} s, close code {talker.code}")
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
    assert "the shutdown cancels what is still open after 1.5 s" in server.log
    assert "Task was destroyed" not in server.log
    assert "Traceback" not in server.log
    assert ("has not ended within" in server.log) == ((name, number) in IMPATIENT)


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
    assert "the shutdown has not ended within 5 s, so the process is ended as it is" in server.log
    assert f"GET /{what}" in server.log or what == "block"
    assert f"({what}, " in server.log
    if what != "block":
        assert "the shutdown waits no longer for what was cancelled 1 s ago" in server.log
        for lines in server.said().values():
            assert lines[-2:] == ["pump ends", "resources close"] or "deaf goes on" in lines[-1]


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn-0"])
def test_second_signal_hurries(name: str) -> None:
    """A6: A second signal ends the patience on the real servers as well."""
    with Living(name) as server:
        slow, _ = Client(server, "/slow"), Client(server, "/told")
        server.wait_for("slow begins")
        server.wait_for("told waits")
        server.send(signal.SIGTERM)
        server.wait_for("told in")
        server.send(signal.SIGTERM)
        server.wait_for("slow is cancelled")
        assert slow.result()[0] in (503, 0)
    assert "the shutdown cancels what is still open after 0." in server.log


@EACH
def test_handed_over_work_is_finished(name: str) -> None:
    """A5: Work that was handed over is finished before the pumps end, on every server."""
    with Living(name) as server:
        assert Client(server, "/hand-over").result()[1] == b"accepted"
        server.stop()
    [lines] = [lines for lines in server.said().values() if "work ends" in lines]
    assert lines[-3:] == ["work ends", "pump ends", "resources close"]


@pytest.mark.parametrize(
    ("name", "option"),
    [("uvicorn", "--timeout-graceful-shutdown"), ("hypercorn", "--graceful-timeout")],
)
def test_server_that_is_less_patient_cuts_requests_itself(name: str, option: str) -> None:
    """A6: A server whose own time for open requests is over first answers them with a 500, and
    pumps and resources end in order nevertheless."""
    with Living(name, "app", option, "1") as server:
        slow = Client(server, "/slow")
        server.wait_for("slow begins")
        server.stop()
        assert slow.result()[0] == 500
    [lines] = [lines for lines in server.said().values() if "slow is cancelled" in lines]
    assert lines[-3:] == ["slow is cancelled", "pump ends", "resources close"]
