"""Asking the server to stop, from inside of the app."""

from __future__ import annotations

import logging
import os
import signal

from quattro_web._hypercorn import hypercorn_worker
from quattro_web._signals import server_handler

logger = logging.getLogger("quattro_web")


def stop_server() -> bool:
    """Ask the server that runs this app for a graceful shutdown.

    Returns whether there was a server to ask; there is none under a test client.

    A signal is what servers have in common, and whom to send it to is what they differ in
    (measured on uvicorn 0.54, hypercorn 0.18, granian 2.8): a process whose server has installed a
    handler for SIGTERM may raise it in itself, and the workers of uvicorn, gunicorn and granian
    all have one. A worker of hypercorn has not, and would be killed by it before the lifespan's
    shutdown, but its parent is the server. No other parent is ever signalled: it may be a test's,
    or whoever launched the server.

    Where the app runs in another thread, what handles the signal may be anything but its server.
    """
    worker = hypercorn_worker()
    if worker is not None:
        os.kill(worker.parent, signal.SIGTERM)
        return True
    if server_handler(signal.SIGTERM) is not None:
        signal.raise_signal(signal.SIGTERM)
        return True
    logger.critical(
        "the server could not be asked to stop, so the app goes on as it is: it does not run in "
        "the main thread, or nothing in this process handles SIGTERM. End it yourself when "
        "app_health(app) says that it is not ready, or /readyz (health_routes) answers 503"
    )
    return False
