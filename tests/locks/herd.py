"""Several processes that want the same lock."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.server import PATIENCE, ROOT


@dataclass(frozen=True)
class Line:
    at: float
    pid: int
    token: int
    what: str


class Herd:
    """Processes that all have one once-pump, and the file in which its beats are noted.

    Args:
        lock: The lock, for `tests.locks.kinds.make`.
        directory: Where the file is.
        name: The name of the pump.
    """

    def __init__(self, lock: str, directory: Path, name: str, *, size: int = 4) -> None:
        self._lock = lock
        self._name = name
        self._size = size
        self._directory = directory
        self.log = directory / "beats"
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._started = 0

    def __enter__(self) -> Self:
        self.log.touch()
        for _ in range(self._size):
            self.start()
        return self

    def __exit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
        if exc is not None:
            exc.add_note(self.output()[-8000:])

    def start(self) -> None:
        """Start one more process."""
        command = [
            sys.executable,
            "-m",
            "tests.locks.worker",
            self._lock,
            str(self.log),
            self._name,
        ]
        with (self._directory / "output").open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        self.processes[process.pid] = process
        self._started += 1

    def wait_ready(self) -> None:
        """Wait until all that were started have been ready: what is measured is no start-up."""
        until = time.monotonic() + PATIENCE
        while self.output().splitlines().count("ready") < self._started:
            assert time.monotonic() < until, self.output()[-8000:]
            time.sleep(0.01)

    def output(self) -> str:
        return (self._directory / "output").read_text()

    def kill(self, pid: int) -> float:
        """Kill one process as if its plug were pulled, and return when."""
        process = self.processes.pop(pid)
        process.kill()
        at = time.monotonic()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        return at

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.processes[pid].send_signal(number)

    def lines(self) -> list[Line]:
        found = []
        for line in self.log.read_text().splitlines():
            at, pid, token, what = line.split()
            found.append(Line(float(at), int(pid), int(token), what))
        return found

    def last(self) -> Line | None:
        """Return the last line, without reading all of them."""
        size = self.log.stat().st_size
        with self.log.open("rb") as file:
            file.seek(max(0, size - 200))
            lines = file.read().splitlines()
        if not lines:
            return None
        at, pid, token, what = lines[-1].decode().split()
        return Line(float(at), int(pid), int(token), what)

    def wait_for(self, condition: Callable[[Line], bool]) -> Line:
        """Wait until the last line is such."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            line = self.last()
            if line is not None and condition(line):
                return line
            time.sleep(0.002)
        msg = f"nobody has taken over, the last line is {self.last()}:\n{self.output()[-8000:]}"
        raise AssertionError(msg)

    def holder(self) -> Line:
        """Wait until one of the living processes beats."""
        return self.wait_for(lambda line: line.what == "beat" and line.pid in self.processes)

    def check(self) -> list[int]:
        """Check that there were never two at once, and return the tokens in their order.

        Once a token was seen, no smaller one is, and each belongs to one process.
        """
        tokens: list[int] = []
        owners: dict[int, int] = {}
        for line in self.lines():
            if not tokens or line.token != tokens[-1]:
                assert not tokens or line.token > tokens[-1], f"{line} after {tokens[-1]}"
                tokens.append(line.token)
            assert owners.setdefault(line.token, line.pid) == line.pid, f"two have {line.token}"
        return tokens
