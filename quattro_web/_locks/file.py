"""A lock for the processes of one host."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import sys
import tempfile
import time
import warnings
from pathlib import Path

from filelock import FileLock as _Lock
from filelock import Timeout
from platformdirs import RuntimeDirWarning, user_runtime_path

from quattro_web._locks.base import Lease, LockClaim, LockLostError, OnceLock, this_process
from quattro_web._util.arguments import checked_text, required_seconds


class FileLock(OnceLock):
    """A lock for the processes of one host, with nothing to set up.

    ::

        Pump(clean_up, once=FileLock())

    The lock is on a file. The kernel releases it when its holder dies, however it dies, and another
    process takes over within *poll* seconds. A process that the holder forked, and that keeps
    running without calling exec, keeps the lock.

    Removing the file while it is locked breaks the lock: its holder notices within *heartbeat*
    seconds (half a second, or *poll* if that is shorter), and ends the pump. So a process that has
    just created the file waits ``2 * heartbeat + allowance`` seconds before it starts the pump,
    also at the first start on a host.

    The fencing token is the host's time in microseconds, or one more than the last token. So it
    grows even if the file, or the note beside it, is lost.

    For ``catch_up``, the time of the pump's last run is noted beside the file. Without a *path*, a
    reboot of the host removes both.

    Args:
        path: The file, for one pump. It must be on a local file system, and belong to the user who
            runs the app or to the owner of its directory; a link is refused. None means a separate
            file for each pump of each app, in the user's runtime directory (``$XDG_RUNTIME_DIR``,
            ``/run/user/1000`` or a private directory beside the temporary files; see platformdirs).
            Processes belong to the same app if they run as the same user in the same working
            directory with the same *app*.
        app: A name that distinguishes this app from others in the same directory.
        poll: How many seconds waiting processes sleep between attempts.
        allowance: Seconds that the pump's clean-up may take after the lock is lost.

    Raises:
        TypeError: If *path* is not a path, *app* is not a string, or a duration is not a number.
        ValueError: If a duration is not positive and finite.

    .. versionadded:: 0.1
    """

    timeout: float = 5.0
    valid_for: float = 10.0
    remembers: bool = True

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
        if self.path is None:
            # It says once that it takes a temporary directory; if it can't, `acquire` says so.
            with warnings.catch_warnings(), contextlib.suppress(OSError):
                warnings.simplefilter("ignore", RuntimeDirWarning)
                _own_directory()
        return _FileClaim(self.path, _file_name(self.app, name))

    def key(self, name: str) -> str:
        return _file_name(self.app, name) if self.path is None else str(self.path.resolve())

    def __repr__(self) -> str:
        return f"<FileLock {self.path or 'of its own'}>"


class _FileClaim(LockClaim):
    """A claim to a lock on a file.

    Beside the file are notes: who has it, the last token, when the pump was last run, and for which
    file a holder has waited until the pump had ended that a holder of a former file, removed by
    somebody, may have run.

    Args:
        given: The file; None means one in the user's directory.
        name: The name of that one.
    """

    def __init__(self, given: Path | None, name: str) -> None:
        self._given = given
        self._name = name
        self._path = Path()
        self._lock: _Lock | None = None
        self._identity: list[int] | None = None
        self._token = 0
        self._done: str | None = None

    async def acquire(self) -> Lease | None:
        path = self._path = self._find()
        if self._given is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_way(path)
        descriptor = _open_own(path)
        try:
            # A lock of a thread's own would be a lock of none: the event loop may move.
            lock = _Lock(path, thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return None
            self._lock, self._identity = lock, _identity(os.fstat(descriptor))
        finally:
            os.close(descriptor)
        if not self._is_there():  # nor is it known which one is locked
            await self.release()
            return None
        # While a former holder lives, it has its file open, and no other gets that one's number.
        notes = self._read()
        self.is_settled = notes.get("settled") == self._identity
        last, done = notes.get("token"), notes.get("done")
        self._done = done if isinstance(done, str) else None
        self._token = max(time.time_ns() // 1000, last + 1 if isinstance(last, int) else 0)
        self._write()
        return Lease(token=self._token, holder=this_process())

    async def prove(self) -> None:
        if not self._is_there():
            msg = f"its file {self._path} was removed or replaced"
            raise LockLostError(msg)
        # The directory of a login's session comes and goes: all have to agree on another then.
        if (path := self._find()) != self._path:
            msg = f"its file {self._path} is not the one that others use now, {path}"
            raise LockLostError(msg)
        # That is the proof. Programs that clean up temporary directories spare young files.
        with contextlib.suppress(OSError):
            _touch(self._path)
            try:
                _touch(self._notes)
            except FileNotFoundError:
                self._write()

    def settled(self) -> None:
        if not self.is_settled:
            self.is_settled = True
            with contextlib.suppress(OSError):  # then the next holder waits as well
                self._write()

    async def release(self) -> None:
        self._identity = None
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    async def holder(self) -> str | None:
        self._path = self._find()
        holder = self._read().get("holder")
        return holder if isinstance(holder, str) else None

    async def recall(self) -> str | None:
        return self._done

    async def remember(self, text: str) -> None:
        if not self._is_there():
            msg = f"its file {self._path} was removed or replaced"
            raise LockLostError(msg)
        self._done = text
        self._write()

    @property
    def _notes(self) -> Path:
        return self._path.with_name(self._path.name + ".json")

    def _find(self) -> Path:
        return _own_directory() / self._name if self._given is None else self._given

    def _is_there(self) -> bool:
        """Whether the file that is locked has its name still."""
        try:
            return self._identity == _identity(self._path.lstat())
        except OSError:
            return False

    def _read(self) -> dict[str, object]:
        try:
            with os.fdopen(_open_own(self._notes, os.O_RDONLY), encoding="utf-8") as file:
                return dict(json.load(file))
        except PermissionError:
            raise
        except (OSError, ValueError, TypeError):
            return {}

    def _write(self) -> None:
        settled = self._identity if self.is_settled else None
        notes = {
            "token": self._token,
            "holder": this_process(),
            "settled": settled,
            "done": self._done,
        }
        # Whoever knew its name could have put a link there.
        descriptor, fresh = tempfile.mkstemp(prefix=f"{self._notes.name}.", dir=self._path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(notes, file)
                file.flush()
                os.fsync(file.fileno())  # or a crash may leave an empty one
            Path(fresh).replace(self._notes)  # at once, so that nobody reads half of it
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise


def _own_directory() -> Path:
    """Return the directory for what the programs of this user keep while they run; it is made.

    Raises:
        PermissionError: If that can't be, or if somebody else has made it or can write to it.
    """
    try:
        directory = user_runtime_path("quattro-web", appauthor=False, ensure_exists=True)
    except OSError as exc:
        msg = f"FileLock finds no directory of this user, so give it a path in one: {exc}"
        raise PermissionError(msg) from exc
    if sys.platform != "win32":  # pragma: no branch - nobody else writes there on Windows
        descriptor = _open_own(directory, os.O_RDONLY | os.O_DIRECTORY)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        if mode & 0o022:
            raise _refusal(directory, f"can be written to by other users (mode {mode:o})")
    return directory


# What Windows lacks it needs not, since nobody else writes to a user's directories there.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def _open_own(path: Path, flags: int | None = None) -> int:
    """Open a file or a directory that nobody else has made; the file of a lock without *flags*.

    That one is made if it is missing. The owner of a directory can do with its files as he likes,
    so that his are as good as our own.

    Raises:
        PermissionError: If it belongs to another user, or is a link.
    """
    try:
        if flags is None:
            with contextlib.suppress(FileExistsError):
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600)
        descriptor = os.open(path, (os.O_RDONLY if flags is None else flags) | _NO_LINK)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            _check(path, path.lstat())  # it says more about why
        raise
    try:
        _check(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: Path, found: os.stat_result) -> None:
    """Raise PermissionError if a file or a directory may be somebody else's."""
    if stat.S_ISLNK(found.st_mode):
        raise _refusal(path, "is a symbolic link")
    if sys.platform == "win32":
        return  # pragma: no cover - files have no owner there that Python would show
    own = {os.geteuid()}
    if not stat.S_ISDIR(found.st_mode):
        own.add(path.parent.stat().st_uid)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise _refusal(path, "is not a regular file, or has a second name")
    if found.st_uid not in own:
        raise _refusal(path, f"belongs to another user (uid {found.st_uid}, not {os.geteuid()})")


def _check_way(path: Path) -> None:
    """Raise PermissionError if somebody else may have made a directory, or a link, on the way.

    That is where anybody can write, as beside the temporary files: he may have been there first.
    """
    if sys.platform == "win32":
        return  # pragma: no cover - directories have no owner there that Python would show
    for way in (path.absolute(), path.resolve()):
        for each in way.parents[:-1]:
            around, owner = each.parent.stat(), each.lstat().st_uid
            if around.st_mode & stat.S_IWOTH and owner not in (os.geteuid(), around.st_uid, 0):
                who = f"belongs to another user (uid {owner}, not {os.geteuid()})"
                raise _refusal(each, f"{who}, in a directory that anybody can write to")


def _refusal(path: Path, why: str) -> PermissionError:
    msg = f"{path} {why}: remove it, or give FileLock a path in a directory of your own"
    return PermissionError(msg)


def _identity(found: os.stat_result) -> list[int]:
    return [found.st_dev, found.st_ino]


def _touch(path: Path) -> None:
    os.utime(path, follow_symlinks=os.utime not in os.supports_follow_symlinks)


def _file_name(app: str, name: str) -> str:
    key = hashlib.sha256(f"{Path.cwd()}\0{app}\0{name}".encode()).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[:80]}-{key}.lock"
