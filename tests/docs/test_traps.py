"""Each trap that is known of frameworks and servers has a test, which names it."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

TRAPS = {
    "no unwrapping": "a 403 and a 422 become a 500",
    "join after the response": "a 200, and the error only in the log",
    "a closed session": "a child works on a session that is closed",
    "a slow 403": "a handled error waits for the children",
    "re-chunks": "a child fails behind BaseHTTPMiddleware, and the client gets a 200",
    "held start": "the start that was held is sent after the error response",
    "join ignores it": "the last chunk is sent although a child has failed",
    "gate outside CORS": "the error response lacks the CORS headers",
    "BackgroundTasks cancelled": "the watcher is not stopped at the end",
    "second reader": "a request hangs",
    "create_task": "TypeError on granian, whose receive() returns no coroutine",
    "second receive() after a disconnect": "a hang on hypercorn",
    "group in a ContextVar": "the next request sees the old group",
    "pump in the lifespan's group": "a healthy server with a dead pump",
    "signalling blindly": "the launcher, or a worker of hypercorn, is killed",
    "a stream that ignores shutdown": "the server never exits",
    "pump cancelled before its users": "a hang",
    "leaked cancel count": "a later timeout raises CancelledError",
    "semaphore as limit": "a slow abort, and warnings",
}
"""The name of each trap, and how one who has walked into it notices."""


def named() -> set[str]:
    """Return the traps that tests name, each as ``(trap: name)`` at the end of a sentence."""
    texts = [path.read_text("utf-8") for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    found = re.findall(r"\(trap:\s([^…]*?)\)[.:]", " ".join(texts))
    return {" ".join(trap.split()) for trap in found}


@pytest.mark.parametrize("trap", TRAPS)
def test_trap_is_named_by_a_test(trap: str) -> None:
    """A docstring of a test says ``(trap: …)``, so that what it guards is found by that name."""
    assert trap in named(), f"no test names it; its symptom: {TRAPS[trap]}"


def test_no_trap_is_named_wrongly() -> None:
    """A trap that a docstring names is one of the list."""
    assert named() <= set(TRAPS)
