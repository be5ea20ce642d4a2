"""Serve the board: `python -m example_app`."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from dataclasses import replace

import uvicorn

from example_app.pumps import pumps_of
from example_app.settings import LOOPBACK, Settings
from example_app.store import check_database
from example_app.targets import load_targets


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family)


def _serve(settings: Settings, listener: socket.socket) -> None:
    os.environ["PORT"] = str(settings.port)  # each process reads the settings from there
    app, log_level, size = "example_app.app:create_app", "warning", 1024
    if settings.workers == 1:
        config = uvicorn.Config(app, factory=True, log_level=log_level, ws_max_size=size)
        uvicorn.Server(config).run(sockets=[listener])
        return
    uvicorn.run(
        app,
        factory=True,
        fd=listener.fileno(),
        workers=settings.workers,
        log_level=log_level,
        ws_max_size=size,
    )


def main() -> None:
    """Listen first, so that the first round of probes finds the board itself; then serve it."""
    try:
        settings = Settings.from_environment()
        listener = _listen(settings)
        settings = replace(settings, port=listener.getsockname()[1])
        # A mistake in any of them is told in one line.
        load_targets(settings.targets, settings.url)
        check_database(settings.database)
        pumps_of(settings)
        if settings.jobs:
            from example_app.places import places_of  # noqa: PLC0415  # needs docket

            places_of(settings)
    except (ValueError, ModuleNotFoundError, OSError) as exc:
        sys.exit(f"status board: {exc}")
    print(f"Status board: {settings.url}  (Ctrl-C ends it)", flush=True)
    if settings.host not in LOOPBACK and not settings.hosts:
        print("It answers to no other name than this, unless BOARD_HOSTS lists some.", flush=True)
    with suppress(KeyboardInterrupt):
        _serve(settings, listener)


if __name__ == "__main__":  # pragma: no branch
    main()
