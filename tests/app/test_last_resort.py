"""The end of a process whose shutdown does not end, in processes of their own."""

import pytest

from tests.support.server import Server

PROGRAM = """
import logging, sys, time
from quattro_web._last_resort import LastResort
logging.basicConfig()
last = LastResort({seconds}, lambda: ["GET /deaf"])
last.start()
if {called_off}:
    last.call_off()
def hangs():
    time.sleep({sleep})
hangs()
print("is alive")
"""


def run(**values: object) -> tuple[int, str]:
    with Server(["-c", PROGRAM.format(**values)], ready=False) as process:
        return process.wait(), process.log


def test_process_is_ended() -> None:
    """A6: When its time is over the process is ended with status 1, and the log names what still
    runs: what is known of, and each thread with the line at which it is."""
    status, log = run(seconds=0.1, called_off=False, sleep=60)
    assert status == 1
    assert "has not ended within 0.1 s, so the process is ended as it is; still running" in log
    assert "GET /deaf; thread MainThread (hangs, <string>:" in log
    assert "is alive" not in log


@pytest.mark.parametrize("called_off", [True, False])
def test_process_that_ends_in_time(called_off: bool) -> None:
    """A6: A process that ends in time ends as ever, and one that lives on after its app has ended
    does so."""
    status, log = run(seconds=0.2, called_off=called_off, sleep=0.5 if called_off else 0)
    assert status == 0
    assert "is alive" in log
    assert "still running" not in log
