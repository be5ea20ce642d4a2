"""granian's experimental tasks, which can't be cancelled, and so are refused."""

import subprocess
import sys

import pytest

from tests.servers.matrix import APP, Matrixed, need
from tests.support.limitations import Limitation
from tests.support.server import granian
from tests.support.wire import Wire


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="granian has them on Python 3.11 only")
def test_rust_tasks_are_refused(key: str, limitation: Limitation) -> None:
    """R12: With `granian --task-impl rust`, whose tasks nothing can cancel, there is no group: the
    error says why, and what to do."""
    need("granian")
    options = subprocess.run(
        [sys.executable, "-m", "granian", "--help"], capture_output=True, check=True, text=True
    )
    is_refused = "--task-impl" in options.stdout
    if is_refused:  # pragma: no branch - until granian has given that up
        with Matrixed("granian", granian(APP, "--task-impl", "rust")) as server:
            with Wire(server.port) as wire:
                status = wire.get(f"/refuse/{key}").status
            is_refused = status != 403  # as it is where a child can be cancelled
            if is_refused:  # pragma: no branch - until granian has repaired it
                assert status == 500
                server.wait_for("run it with asyncio's tasks")
    what = "--task-impl rust makes tasks that can't be cancelled"
    limitation("granian", what, remains=is_refused)
