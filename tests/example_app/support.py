"""The board under test: in process, or as a server of its own; and a target that obeys."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from example_app.app import create_app
from example_app.probe import Result
from example_app.settings import Settings
from example_app.state import State

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


def result(target: str = "a", **fields: Any) -> Result:
    return Result.model_validate(
        {"target": target, "at": 1.0, "state": "up", "seconds": 0.01, "status": 200, **fields}
    )


class _Body(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"hello"


def answer(status: int = 200, **headers: str) -> httpx.Response:
    """Return a response whose body is yet to be read, as one from the network."""
    return httpx.Response(status, headers=headers, stream=_Body())


class Running:
    """An app whose lifespan is running, its state, and a client of it."""

    def __init__(self, asgi: ASGIApp, client: httpx.AsyncClient, state: State) -> None:
        self.asgi = asgi
        self.client = client
        self.state = state


@asynccontextmanager
async def running(settings: Settings, *, host: str = "127.0.0.1") -> AsyncIterator[Running]:
    """Run the app in process: its lifespan as a server would, its requests through httpx."""
    app = create_app(settings)
    state: dict[str, Any] = {}
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": state.copy()}, receive, send)

    async def shown_end() -> None:
        await app(scope, inbox.get, outbox.put)

    async with asyncio.timeout(PATIENCE):
        lifespan = asyncio.create_task(shown_end())
        await inbox.put({"type": "lifespan.startup"})
        started = await outbox.get()
        assert started["type"] == "lifespan.startup.complete", started
        try:
            transport = httpx.ASGITransport(with_state)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
                yield Running(app, client, state)  # type: ignore[arg-type]
        finally:
            await inbox.put({"type": "lifespan.shutdown"})
            await lifespan


class Site:
    """A web site for the board to watch: what it answers can be changed."""

    def __init__(self) -> None:
        site = self
        self.status = 200
        self.posted: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.special: dict[str, tuple[int, float]] = {}  # path: status, and seconds until it comes

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, seconds = site.special.get(self.path, (site.status, 0.0))
                time.sleep(seconds)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                site.posted.put((self.headers["Webhook-Id"], body))
                self.send_response(site.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Server:
    """`python -m example_app`, as a person starts it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit status, and what was written to the terminal meanwhile."""
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output


@contextmanager
def served(folder: Path, targets: str = "", **environ: str) -> Iterator[Server]:
    """Start the board with the targets of a TOML text; end it with Ctrl-C if a test has not."""
    file = folder / "targets.toml"
    file.write_text(targets, encoding="utf-8")
    defaults = {
        "PORT": "0",
        "BOARD_TARGETS": str(file),
        "BOARD_DATABASE": str(folder / "board.db"),
        "BOARD_INTERVAL": "0.2",
        # Its log is read line by line, and that mode has some of its own on a busy machine.
        "PYTHONASYNCIODEBUG": "",
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "example_app"],
        cwd=ROOT,
        env={**os.environ, **defaults, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("Status board: http://"), line + process.stdout.read()
        server = Server(process, line.split()[2])
        yield server
        if process.poll() is None:
            server.interrupt()
    finally:
        process.kill()  # does nothing to one that has ended
        process.wait()
        process.stdout.close()
