"""The end of a process whose shutdown does not end, in processes of their own."""

import pytest

from tests.support.server import Server

PROGRAM = """
import asyncio, logging, sys, threading, time
from quattro_web._shutdown.watchdog import Watchdog

def hangs(seconds=60):
    time.sleep(seconds)

async def serve(seconds):
    # An app that has ended, with a thread that nobody knows of any more.
    asyncio.get_running_loop().run_in_executor(None, hangs)
    last = Watchdog(seconds, lambda: [], asyncio.get_running_loop())
    last.start()
    last.app_has_ended()

logging.basicConfig()
"""


def run(program: str) -> tuple[int, str]:
    with Server(["-c", PROGRAM + program], ready=False) as process:
        return process.wait(), process.log


def test_process_is_ended() -> None:
    """A6: When its time is over the process is ended with status 1, and the log names what still
    runs: what is known of, and each thread with the line at which it is."""
    status, log = run(
        "Watchdog(0.1, lambda: ['GET /deaf']).start()\n"
        "hangs()\n"  # the main thread
        "print('is alive')"
    )
    assert status == 1
    assert "has not ended within 0.1 s, so the process exits now; still running" in log
    assert "GET /deaf; thread MainThread (hangs, <string>:" in log
    assert "watchdog" not in log
    assert "is alive" not in log


def test_process_that_ends_in_time() -> None:
    """A6: A process that ends in time ends as ever."""
    status, log = run("Watchdog(20, lambda: []).start()\nprint('is alive')")
    assert (status, log) == (0, "is alive\n")


def test_process_that_ends_after_its_app() -> None:
    """A6: A server whose app has taken all of its time has another second to end by itself."""
    status, log = run(
        "last = Watchdog(0.1, lambda: [])\n"
        "last.start()\n"
        "last.app_has_ended()\n"
        "threading.Thread(target=hangs, args=(0.2,)).start()\n"
        "print('is alive')"
    )
    assert (status, log) == (0, "is alive\n")


def test_process_that_lives_on() -> None:
    """A6: A process that has more to do when its app has ended is left alone."""
    status, log = run(
        "last = Watchdog(0.1, lambda: [])\n"
        "last.start()\n"
        "last.app_has_ended()\n"
        "while last._counting: hangs(0.05)\n"
        "print('is alive')"
    )
    assert (status, log) == (0, "is alive\n")


def test_loop_that_waits_for_a_thread() -> None:
    """A6: An event loop that ends after its app, and waits without end for a thread of its
    executor, is ended: on Python 3.11 it does so for ever, later for five minutes."""
    status, log = run("asyncio.run(serve(0.1))")
    assert status == 1
    assert "thread asyncio_0 (" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("thread", ["the loop's", "a thread"])
def test_interpreter_that_waits_for_a_thread(thread: str) -> None:
    """A6: A process at its end that waits without end for a thread is ended, whether that is one of
    an executor or not."""
    begin = {
        "the loop's": "loop = asyncio.new_event_loop()\nloop.run_until_complete(serve(0.1))",
        "a thread": (
            "last = Watchdog(0.1, lambda: [])\n"
            "last.start()\n"
            "last.app_has_ended()\n"
            "threading.Thread(target=hangs).start()"
        ),
    }
    status, log = run(begin[thread])
    assert status == 1
    assert "the shutdown has not ended" in log


def test_longest_decides() -> None:
    """A6: Of two apps in a process, the one with the longer grace decides, and what runs in both is
    named."""
    status, log = run(
        "Watchdog(0.1, lambda: ['GET /short']).start()\n"
        "Watchdog(3, lambda: ['GET /long']).start()\n"
        "hangs(0.2)\n"
        "print('is alive')\n"
        "hangs()"
    )
    assert status == 1
    assert log.startswith("is alive\n")
    assert "has not ended within 3 s" in log
    assert "still running: GET /short; GET /long; thread" in log
    assert log.count("has not ended") == 1


def test_once_is_enough() -> None:
    """A6: The time counts from the first of several signals."""
    status, log = run(
        "last = Watchdog(10, lambda: [])\n"  # longer than the interpreter takes to end
        "last.start()\n"
        "last.start()\n"
        "assert len(last._counting) == 1\n"
    )
    assert (status, log) == (0, "")


def test_log_that_hangs() -> None:
    """A6: A log that takes no line any more, as of a pipe that nobody reads, does not keep the
    process from ending either."""
    status, _ = run(
        "class Stuck(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        hangs()\n"
        "logging.getLogger().addHandler(Stuck())\n"
        "threading.Thread(target=logging.warning, args=('',), daemon=True).start()\n"
        "Watchdog(0.1, lambda: []).start()\n"
        "hangs()"
    )
    assert status == 1


def test_report_that_fails() -> None:
    """A6: The last line is logged, with what can be told, whatever fails in telling it."""
    status, log = run("Watchdog(0.1, lambda: {}['GET /deaf']).start()\nhangs()")
    assert status == 1
    assert "still running: what could not be read: KeyError('GET /deaf'); thread MainThread" in log
