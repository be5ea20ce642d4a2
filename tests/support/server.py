"""Real servers, each a process of its own, started as a person would start them."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds that anything may take, on a machine that is busy with other things as well."""

# uvicorn and hypercorn: "running on", granian: "Listening at". Port 0 lets the server choose one.
READY = re.compile(r"(?:[Rr]unning on|Listening at:?) https?://127\.0\.0\.1:(\d+)")
_SLOW_STEP = re.compile(r"\bExecuting <.* took \d+\.\d+ seconds$")


class Server:
    """A server that runs in the block, and has ended after it.

    Only this one process is ever signalled. One that does not end in time is killed, and that is
    an error, as it is when it never becomes ready.

    Args:
        command: What is run, with this Python: `uvicorn(...)`, or another list of arguments.
        env: More environment variables.
        ready: Whether to wait until it takes connections; its `port` is known then.
    """

    port: int

    def __init__(
        self, command: Iterable[str], *, env: dict[str, str] | None = None, ready: bool = True
    ) -> None:
        self._command = [sys.executable, *command]
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._ready = ready
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._at_end = False

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a Ctrl-C at the tests is not one at the server
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if self._ready:
            try:
                self.port = int(self.wait_for(READY.pattern)[1])
                self._wait_for_listener()
            except BaseException:
                self._kill()
                raise
        return self

    def __exit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.send(signal.SIGTERM)
        try:
            self.wait()
        except AssertionError as hung:
            if exc is None:
                raise
            exc.add_note(str(hung))
        if exc is not None:
            exc.add_note(f"the server's log:\n{self.log}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the log matches, and return the match."""
        until = time.monotonic() + PATIENCE
        with self._changed:
            while True:
                text = "".join(self._lines)
                if match := re.search(pattern, text, re.MULTILINE):
                    return match
                left = until - time.monotonic()
                assert not self._at_end, f"the server has ended without {pattern!r}:\n{text}"
                assert left > 0, f"the server's log has no {pattern!r}:\n{text}"
                self._changed.wait(left)

    def _wait_for_listener(self) -> None:
        """Wait until a connection is taken: granian says that it listens before it does."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
            except ConnectionRefusedError:
                assert time.monotonic() < until, f"the server takes no connection:\n{self.log}"
                time.sleep(0.02)
            else:
                return

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server, and to nothing else."""
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end, and return the exit status, negative for a signal."""
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._kill()
            msg = f"the server did not end, and was killed:\n{self.log}"
            raise AssertionError(msg) from None
        self._reader.join(PATIENCE)
        return status

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(PATIENCE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                # Of asyncio's debug mode, and between any other two where the machine is busy.
                if not _SLOW_STEP.search(line):
                    self._add(line)
        self._add("", at_end=True)

    def _add(self, line: str, *, at_end: bool = False) -> None:
        with self._changed:
            self._lines.append(line)
            self._at_end = at_end
            self._changed.notify_all()


def uvicorn(app: str, *options: str) -> list[str]:
    """Return the arguments that run *app*, as ``module:name``, with uvicorn."""
    return ["-m", "uvicorn", app, "--host", "127.0.0.1", "--port", "0", *options]


def hypercorn(app: str, *options: str) -> list[str]:
    """Return the arguments that run *app* with hypercorn."""
    return ["-m", "hypercorn", app, "--bind", "127.0.0.1:0", *options]


def granian(app: str, *options: str) -> list[str]:
    """Return the arguments that run *app* with granian, at a port that was free just now."""
    command = ["-m", "granian", app, "--interface", "asgi", "--host", "127.0.0.1"]
    return [*command, "--port", str(free_port()), *options]


def gunicorn(app: str, *options: str) -> list[str]:
    """Return the arguments that run *app* with gunicorn, in workers of uvicorn's."""
    bind = f"127.0.0.1:{free_port()}"  # it names no other in its log than what it is told
    worker = ["-k", "uvicorn_worker.UvicornWorker"]
    return ["-m", "gunicorn", app, *worker, "--bind", bind, *options]


def free_port() -> int:
    """Return a port that nothing listens at, for a server that can't choose one itself.

    The system gives other ports than these to the connections of clients, and each process that
    runs tests beginning somewhere else, nobody takes it before the server does.
    """
    for port in _ports:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError


_ports = itertools.cycle(random.SystemRandom().sample(range(20_000, 32_000), 12_000))
