"""Asking the server to stop, from inside of the app."""

from __future__ import annotations

import multiprocessing
import os
import signal

from quattro_web._hypercorn import hypercorn_worker


def stop_server() -> bool:
    """Ask the server that runs this app for a graceful shutdown.

    Returns whether there was a server to ask; there is none under a test client.

    A signal is what servers have in common, and whom to send it to is what they differ in
    (measured on uvicorn 0.54, hypercorn 0.18, granian 2.8): a process whose server has installed a
    handler for SIGTERM may raise it in itself. One that has not (a worker of hypercorn) would be
    killed by it before the lifespan's shutdown, but its parent is the server. The parent of a
    server of one process is whoever launched it, which is never signalled: only a process that
    multiprocessing has started knows of a parent.
    """
    if hypercorn_worker() is None and callable(signal.getsignal(signal.SIGTERM)):
        signal.raise_signal(signal.SIGTERM)
        return True
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        os.kill(parent.pid, signal.SIGTERM)
        return True
    return False
