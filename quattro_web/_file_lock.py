"""A lock for the processes of one host."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock as _Lock
from filelock import Timeout

from quattro_web._arguments import checked_text, required_seconds
from quattro_web._once import Lease, LockClaim, LockLostError, OnceLock, this_process


class FileLock(OnceLock):
    """A lock for the processes of one host, with nothing to set up.

    ::

        Pump(clean_up, once=FileLock())

    It is a lock on a file, which the kernel takes back when its holder dies, however it dies: then
    another process takes over within *poll* seconds. A process that was forked off the holder, and
    runs on without having called exec, keeps it.

    A file that is removed while it is locked protects nothing any more: its holder notices within
    *heartbeat* seconds, half a second or *poll*, and ends the pump. So whoever has made the file
    anew waits for ``2 * heartbeat + allowance`` seconds before it starts the pump, at the first
    start on a host too.

    The fencing token is the time of the host in microseconds, or one more than the last: it grows
    also when the file, or what was noted beside it, is lost.

    Args:
        path: The file, for one pump. It must be on a file system of this host. None means one of
            its own for each pump of each app, in a directory of the user's: processes of one app
            are those that run in the same working directory with the same *app*.
        app: What tells this app from others that run in the same directory.
        poll: After how many seconds those that wait try again.
        allowance: Seconds that the clean-up of the pump may take after a loss.

    Raises:
        TypeError: If *path* is no path, *app* no string, or one of the times no number.
        ValueError: If one of the times is not positive and finite.

    .. versionadded:: 0.1
    """

    timeout: float = 5.0
    valid_for: float = 10.0

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        app: str = "",
        poll: float = 0.5,
        allowance: float = 1.0,
    ) -> None:
        self.path: Path | None = None if path is None else Path(path)
        self.app: str = checked_text("app", app)
        self.poll: float = required_seconds("poll", poll)
        self.allowance: float = required_seconds("allowance", allowance)
        self.heartbeat: float = min(self.poll, 0.5)
        self.settle: float = 2 * self.heartbeat + self.allowance

    def claim(self, name: str) -> LockClaim:
        return _Claim(self._place(name), is_default=self.path is None)

    def key(self, name: str) -> str:
        return str(self._place(name).resolve())

    def _place(self, name: str) -> Path:
        return self.path or _default_path(self.app, name)

    def __repr__(self) -> str:
        return f"<FileLock {self.path or 'of its own'}>"


class _Claim(LockClaim):
    """A claim to a lock on a file.

    Beside the file are notes: who has it, the last token, and for which file a holder has waited
    until the pump had ended that a holder of a former file, removed by somebody, may have run.
    """

    def __init__(self, path: Path, *, is_default: bool) -> None:
        self._path = path
        self._is_default = is_default
        # A lock of a thread's own would be a lock of none: the event loop may move.
        self._lock = _Lock(path, thread_local=False)
        self._notes = path.with_name(path.name + ".json")
        self._identity: list[int] | None = None
        self._token = 0

    async def acquire(self) -> Lease | None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(self._path.parent, is_default=self._is_default)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return None
        self._identity = _identity(self._path)
        # While a former holder lives, it has its file open, and no other gets that one's number.
        notes = self._read()
        self.is_settled = self._identity is not None and notes.get("settled") == self._identity
        last = notes.get("token")
        self._token = max(time.time_ns() // 1000, last + 1 if isinstance(last, int) else 0)
        self._write()
        return Lease(token=self._token, holder=this_process())

    async def prove(self) -> None:
        if self._identity is None or _identity(self._path) != self._identity:
            msg = f"its file {self._path} was removed or replaced"
            raise LockLostError(msg)
        # That is the proof. What cleans directories for temporary files spares what is young.
        with contextlib.suppress(OSError):
            os.utime(self._path)
            try:
                os.utime(self._notes)
            except FileNotFoundError:
                self._write()

    def settled(self) -> None:
        if not self.is_settled:
            self.is_settled = True
            with contextlib.suppress(OSError):  # then the next holder waits as well
                self._write()

    async def release(self) -> None:
        self._identity = None
        self._lock.release()

    async def holder(self) -> str | None:
        holder = self._read().get("holder")
        return holder if isinstance(holder, str) else None

    def _read(self) -> dict[str, object]:
        try:
            return dict(json.loads(self._notes.read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def _write(self) -> None:
        settled = self._identity if self.is_settled else None
        notes = {"token": self._token, "holder": this_process(), "settled": settled}
        fresh = self._notes.with_name(f"{self._notes.name}.{os.getpid()}")
        with fresh.open("w") as file:
            file.write(json.dumps(notes))
            file.flush()
            os.fsync(file.fileno())  # or a crash may leave an empty one
        fresh.replace(self._notes)  # at once, so that nobody reads half of it


def _check_owner(directory: Path, *, is_default: bool) -> None:
    """Raise PermissionError if somebody else has made the directory that is to be the user's."""
    if is_default and sys.platform != "win32" and directory.stat().st_uid != os.getuid():
        msg = f"{directory} belongs to another user: give FileLock a path of your own"
        raise PermissionError(msg)


def _identity(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_dev, found.st_ino]


def _default_path(app: str, name: str) -> Path:
    user = os.getuid() if sys.platform != "win32" else os.environ.get("USERNAME", "")
    directory = Path(tempfile.gettempdir()) / f"quattro-web-{user}"
    key = hashlib.sha256(f"{Path.cwd()}\0{app}\0{name}".encode()).hexdigest()[:16]
    return directory / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[:80]}-{key}.lock"
