"""A lock for the processes of one host."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from filelock import FileLock as _Lock
from filelock import Timeout

from quattro_web._interrupt import checked_seconds
from quattro_web._once import Lease, LockClaim, LockLostError, OnceLock, this_process


class FileLock(OnceLock):
    """A lock for the processes of one host, with nothing to set up.

    ::

        Pump(clean_up, once=FileLock())

    It is a lock on a file, which the kernel takes back when its holder dies, however it dies: then
    another process takes over within *poll* seconds. A process that was forked off the holder, and
    runs on without having called exec, keeps it.

    Args:
        path: The file. It must be on a file system of this host. None means one of its own for each
            pump of each app, in a directory of the user's: processes of one app are those that run
            in the same working directory with the same *app*.
        app: What tells this app from others that run in the same directory.
        poll: After how many seconds those that wait try again.

    Raises:
        ValueError: If *poll* is not a positive number.

    .. versionadded:: 0.1
    """

    heartbeat: float = 5.0
    timeout: float = 5.0
    valid_for: float = 10.0

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, app: str = "", poll: float = 0.5
    ) -> None:
        self.path: Path | None = None if path is None else Path(path)
        self.app = app
        self.poll: float = checked_seconds("poll", poll) or 0.5

    def claim(self, name: str) -> LockClaim:
        return _Claim(self.path or _default_path(self.app, name), is_default=self.path is None)

    def __repr__(self) -> str:
        return f"<FileLock {self.path or 'of its own'}>"


class _Claim(LockClaim):
    """A claim to a lock on a file, which also holds who has it, and how many have had it."""

    def __init__(self, path: Path, *, is_default: bool) -> None:
        self._path = path
        self._is_default = is_default
        # A lock of a thread's own would be a lock of none: the event loop may move.
        self._lock = _Lock(path, thread_local=False)
        self._notes = path.with_name(path.name + ".json")
        self._identity: tuple[int, int] | None = None

    async def acquire(self) -> Lease | None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(self._path.parent, is_default=self._is_default)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return None
        self._identity = _identity(self._path)
        lease = Lease(token=self._last_token() + 1, holder=this_process())
        notes = json.dumps({"token": lease.token, "holder": lease.holder})
        fresh = self._notes.with_name(f"{self._notes.name}.{os.getpid()}")
        fresh.write_text(notes)
        fresh.replace(self._notes)  # at once, so that nobody reads half of it
        return lease

    async def prove(self) -> None:
        if self._identity is None or _identity(self._path) != self._identity:
            msg = f"its file {self._path} was removed or replaced"
            raise LockLostError(msg)
        os.utime(self._path)  # what cleans directories for temporary files spares what is young
        os.utime(self._notes)

    async def release(self) -> None:
        self._identity = None
        self._lock.release()

    async def holder(self) -> str | None:
        holder = self._read().get("holder")
        return holder if isinstance(holder, str) else None

    def _last_token(self) -> int:
        token = self._read().get("token", 0)
        return token if isinstance(token, int) else 0

    def _read(self) -> dict[str, object]:
        try:
            return dict(json.loads(self._notes.read_text()))
        except (OSError, ValueError):
            return {}


def _check_owner(directory: Path, *, is_default: bool) -> None:
    """Raise PermissionError if somebody else has made the directory that is to be the user's."""
    if is_default and sys.platform != "win32" and directory.stat().st_uid != os.getuid():
        msg = f"{directory} belongs to another user: give FileLock a path of your own"
        raise PermissionError(msg)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _default_path(app: str, name: str) -> Path:
    user = os.getuid() if sys.platform != "win32" else os.environ.get("USERNAME", "")
    directory = Path(tempfile.gettempdir()) / f"quattro-web-{user}"
    key = hashlib.sha256(f"{Path.cwd()}\0{app}\0{name}".encode()).hexdigest()[:16]
    return directory / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[:80]}-{key}.lock"
