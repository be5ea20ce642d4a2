"""granian's experimental tasks, which can't be cancelled, and so are refused."""

import sys

import pytest

from tests.servers.matrix import APP, Matrixed, need
from tests.support.server import granian
from tests.support.wire import Wire


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="granian has them on Python 3.11 only")
def test_rust_tasks_are_refused(key: str) -> None:
    """R12: With `granian --task-impl rust`, whose tasks nothing can cancel, there is no group: the
    error says why, and what to do."""
    need("granian")
    with Matrixed("granian", granian(APP, "--task-impl", "rust")) as server:
        with Wire(server.port) as wire:
            assert wire.get(f"/refuse/{key}").status == 500
        server.wait_for("run it with asyncio's tasks")
