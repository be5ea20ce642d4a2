"""granian's experimental tasks, which can't be cancelled."""

import sys
import time

import pytest

from tests.servers.matrix import APP, Matrixed, need
from tests.support.server import granian
from tests.support.wire import Wire


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="granian has them on Python 3.11 only")
def test_handler_in_a_rust_task_is_not_cancelled(key: str) -> None:
    """R4: With `granian --task-impl rust` a handler goes on when its child has failed, since
    nothing can cancel it; with granian's default it is answered."""
    need("granian")
    with Matrixed("granian", granian(APP, "--task-impl", "rust")) as server:
        with Wire(server.port) as wire:
            wire.ask(f"/refuse/{key}")
            time.sleep(0.5)  # no event can tell that nothing happens
            assert not wire.has_data()
            assert server.notes_so_far(key) == []
