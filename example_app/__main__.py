"""Serve the board: `python -m example_app`."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from dataclasses import replace

import uvicorn
from fastapi import FastAPI

from example_app.app import create_app
from example_app.settings import ConfigurationError, Settings
from example_app.targets import load_targets

GRACE = 3


class Server(uvicorn.Server):
    """A uvicorn that closes the board first, so that streams end before it waits for them."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=GRACE, ws_max_size=1024
        )
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.board.close()
        await super().shutdown(sockets)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family)


def main() -> None:
    """Listen first, so that the first round of probes finds the board itself; then serve it."""
    try:
        settings = Settings.from_environment()
        listener = _listen(settings)
        settings = replace(settings, port=listener.getsockname()[1])
        load_targets(settings.targets, settings.url)  # a mistake in the file is told in one line
    except (ConfigurationError, OSError) as exc:
        sys.exit(f"status board: {exc}")
    print(f"Status board: {settings.url}  (Ctrl-C ends it)", flush=True)
    with suppress(KeyboardInterrupt):
        Server(create_app(settings)).run(sockets=[listener])


if __name__ == "__main__":  # pragma: no branch
    main()
