"""Services of the tests' own, which they may kill."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.server import PATIENCE, free_port


class Service:
    """A service in a directory of its own, at a port that was free just now."""

    program: str
    package: str

    def __init__(self) -> None:
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _prepare(self) -> None:
        """Make what it needs."""

    def find(self) -> str | None:
        """Return where its program is."""
        return shutil.which(self.program)

    def missing(self) -> str:
        """Return why it can't run; empty if it can."""
        if self.find():
            return ""
        return (
            f"nothing answers at its default port, and {self.program} is not installed: "
            f"apt-get install {self.package}"
        )

    def __enter__(self) -> Self:
        # Not one of pytest's: those are for the user of the tests alone, who may be root.
        self._temporary = tempfile.TemporaryDirectory(prefix="quattro-web-")
        self._directory = Path(self._temporary.name)
        if _user():
            shutil.chown(self._directory, **_user())
        self._prepare()
        self.start()
        return self

    def __exit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.kill()
        self._temporary.cleanup()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._directory / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, start_new_session=True, **_user()
            )
        until = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < until, (self._directory / "service.log").read_text()
            assert self._process.poll() is None, (self._directory / "service.log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it, with all processes that it has started, as a power cut does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask it to end, as its operator does, which cuts all connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)  # of PostgreSQL, this is the fast shutdown
        self._process.wait(PATIENCE)
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes: some have left the group of the first."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

    def _answers(self) -> bool:
        return answers(self.url)


class RedisService(Service):
    """A Redis that keeps nothing: after a restart its memory is empty."""

    program = "redis-server"
    package = "redis-server"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}"

    def _command(self) -> list[str]:
        program = self.find()
        assert program is not None
        return [
            program, "--port", str(self._port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--dir", str(self._directory),
        ]  # fmt: skip


class PostgresService(Service):
    """A PostgreSQL of its own."""

    program = "postgres"
    package = "postgresql"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def find(self) -> str | None:
        places = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
        return str(places[0]) if places else shutil.which(self.program)

    def _prepare(self) -> None:
        program = self.find()
        assert program is not None
        self._data = self._directory / "data"
        initdb = Path(program).resolve().with_name("initdb")
        subprocess.run(
            [initdb, "-D", self._data, "-U", "postgres", "-A", "trust", "-N"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **_user(),
        )

    def _command(self) -> list[str]:
        program = self.find()
        assert program is not None
        return [
            program, "-D", str(self._data), "-p", str(self._port), "-h", "127.0.0.1",
            "-k", "", "-F", "-c", "restart_after_crash=off",
        ]  # fmt: skip

    def start(self) -> None:
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        super().start()

    def _answers(self) -> bool:
        """Whether it takes queries: it takes connections before that."""
        if not super()._answers():
            return False
        log = (self._directory / "service.log").read_text()
        return "ready to accept connections" in log.rpartition("starting PostgreSQL")[2]


PROGRAMS: dict[str, type[Service]] = {"postgres": PostgresService, "redis": RedisService}


def answers(url: str) -> bool:
    """Tell whether a service takes connections there."""
    where = urlsplit(url)
    try:
        socket.create_connection((where.hostname or "127.0.0.1", where.port or 0), 2).close()
    except OSError:
        return False
    return True


def _user() -> dict[str, Any]:
    """Return the options that run a program as another user than root, as PostgreSQL wants it."""
    if os.getuid():
        return {}
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return {}
    return {"user": "postgres", "group": "postgres"}
