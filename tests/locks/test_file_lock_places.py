"""Where a lock on a file is, and what others may have put there before."""

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest

from quattro_web import FileLock, LockLostError
from quattro_web._locks import file

OTHER = 65534  # nobody
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


def take(lock: FileLock, then: Callable[[Any], Any] | None = None) -> None:
    """Take a lock, do something with it, and give it back."""

    async def main() -> None:
        claim = lock.claim("pump")
        try:
            assert await claim.acquire() is not None
            if then is not None:
                await then(claim)
        finally:
            await claim.release()

    asyncio.run(main())


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for what this user's programs keep while they run, as a login makes it."""
    directory = tmp_path / "runtime"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_file_of_its_own_is_in_the_users_directory(runtime: Path) -> None:
    """A7: Without a path, the file is where the system keeps what a user's programs need while they
    run, in a directory that nobody else can look into."""
    take(FileLock())
    assert mode_of(runtime / "quattro-web") == 0o700
    files = sorted((runtime / "quattro-web").iterdir())
    assert [path.suffix for path in files] == [".lock", ".json"]


def test_nothing_is_made_before_it_is_needed(runtime: Path) -> None:
    """A7: To make a lock and to compare it with others makes no directory: the app may be imported
    by another user than the one who runs it."""
    assert FileLock().key("pump") != FileLock(app="another").key("pump")
    assert list(runtime.iterdir()) == []


def test_system_without_such_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A7: Where there is none, as in a container, there is one beside the temporary files, without
    a warning."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    take(FileLock())
    if not Path(f"/run/user/{os.geteuid()}").exists():  # pragma: no branch - one has logged in
        directory = tmp_path / f"runtime-{os.geteuid()}" / "quattro-web"
        assert [mode_of(directory), mode_of(directory.parent)] == [0o700, 0o700]


def test_directory_that_cannot_be_made(runtime: Path) -> None:
    """A7: Where that can't be, the error says to give it a path."""
    (runtime / "quattro-web").write_text("")
    claim = FileLock().claim("pump")
    with pytest.raises(PermissionError, match=r"FileLock finds no directory .* give it a path"):
        asyncio.run(claim.acquire())


def test_directory_of_another_user(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A7: A directory of another user's is refused, with who that is."""
    take(FileLock())
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    with pytest.raises(PermissionError, match=r"quattro-web belongs to another user \(uid"):
        take(FileLock())


def test_directory_that_is_a_link(runtime: Path, tmp_path: Path) -> None:
    """A7: A link in its place is not followed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (runtime / "quattro-web").symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="quattro-web is a symbolic link: remove it, or give"):
        take(FileLock())
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("mode", [0o702, 0o720])
def test_directory_that_others_can_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """A7: One in which others can make files is refused, whether platformdirs looks or not."""
    directory = tmp_path / "quattro-web"
    directory.mkdir()
    directory.chmod(mode)
    monkeypatch.setattr(file, "user_runtime_path", lambda *_, **__: directory)
    with pytest.raises(PermissionError, match=rf"can be written to by other users \(mode {mode:o}"):
        take(FileLock())


def test_directory_of_a_path_is_made(tmp_path: Path) -> None:
    """A7: That of a path that you give is made where it is missing, for nobody else."""
    take(FileLock(tmp_path / "one" / "two" / "the.lock"))
    assert mode_of(tmp_path / "one" / "two") == 0o700


def test_other_directory_than_before(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A7: If the user's directory is another one now, as when a login ends, the lock is lost: those
    that come take the new one."""
    later = tmp_path / "later"
    later.mkdir(mode=0o700)

    async def then(claim: Any) -> None:
        await claim.prove()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(later))
        with pytest.raises(LockLostError, match="is not the one that others use now"):
            await claim.prove()
        await claim.release()
        assert await claim.acquire() is not None

    take(FileLock(), then)
    assert (later / "quattro-web").is_dir()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that nothing may be written to."""
    path = tmp_path / "victim"
    path.write_text("precious")
    os.utime(path, (1, 1))
    return path


@pytest.mark.parametrize("name", ["the.lock", "the.lock.json"])
@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
def test_file_that_is_a_link(tmp_path: Path, victim: Path, name: str, link: Any) -> None:
    """A7: A link in the place of the file, or of what is noted beside it, is refused, and what it
    leads to stays as it is."""
    link(tmp_path / name, victim)
    reason = "is a symbolic link" if link is Path.symlink_to else "has a second name"
    with pytest.raises(PermissionError, match=f"{name} .*{reason}: remove it, or give FileLock"):
        take(FileLock(tmp_path / "the.lock"))
    assert victim.read_text() == "precious"
    assert victim.stat().st_mtime == 1


def test_names_of_new_notes_are_not_foretold(tmp_path: Path, victim: Path) -> None:
    """A7: Nobody can put a link where notes are about to be written."""
    (tmp_path / f"the.lock.json.{os.getpid()}").symlink_to(victim)
    take(FileLock(tmp_path / "the.lock"))
    assert victim.read_text() == "precious"


def test_links_that_come_later(tmp_path: Path, victim: Path) -> None:
    """A7: Nor is a link followed that takes the place of either while the lock is held."""
    path = tmp_path / "the.lock"

    async def then(claim: Any) -> None:
        notes = tmp_path / "the.lock.json"
        notes.unlink()
        notes.symlink_to(victim)
        await claim.prove()
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(LockLostError, match="was removed or replaced"):
            await claim.prove()

    take(FileLock(path), then)
    assert victim.stat().st_mtime == 1


@pytest.mark.parametrize("name", ["the.lock", "the.lock.json"])
def test_file_that_is_none(tmp_path: Path, name: str) -> None:
    """A7: A pipe in its place is refused, and nobody waits for its other end."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(PermissionError, match=f"{name} is not a regular file"):
        take(FileLock(tmp_path / "the.lock"))


@as_root
@pytest.mark.parametrize("name", ["the.lock", "the.lock.json"])
def test_file_of_another_user(tmp_path: Path, name: str) -> None:
    """A7: A file of another user's is refused: he could hold the lock for ever, or say that nobody
    need be waited for."""
    (tmp_path / name).write_text("{}")
    os.chown(tmp_path / name, OTHER, OTHER)
    with pytest.raises(PermissionError, match=rf"{name} belongs to another user \(uid {OTHER}, "):
        take(FileLock(tmp_path / "the.lock"))


@as_root
def test_files_of_the_directorys_owner(tmp_path: Path) -> None:
    """A7: The owner of the directory that you give can do with it what he likes: his files are as
    good as your own, as where root runs an app that belongs to a user."""
    take(FileLock(tmp_path / "the.lock"))
    for path in (tmp_path, *tmp_path.iterdir()):
        os.chown(path, OTHER, OTHER)
    take(FileLock(tmp_path / "the.lock"))


@as_root
@pytest.mark.parametrize("below", ["the.lock", "more/the.lock"])
@pytest.mark.parametrize("is_link", [False, True])
def test_directory_that_another_user_has_made_first(
    tmp_path: Path, below: str, is_link: bool
) -> None:
    """A7: Where anybody can write, a directory or a link on the way to your path that another user
    has made is refused: he may take what is in it away, or lead it to where nothing of it belongs.
    """
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    shared.mkdir()
    shared.chmod(0o1777)
    elsewhere.mkdir()
    theirs = shared / "app"
    if is_link:
        theirs.symlink_to(elsewhere)
    else:
        theirs.mkdir()
    os.chown(theirs, OTHER, OTHER, follow_symlinks=False)
    with pytest.raises(PermissionError, match=rf"/app belongs to another user \(uid {OTHER}, "):
        take(FileLock(theirs / below))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    os.chown(theirs, 0, 0, follow_symlinks=False)
    take(FileLock(theirs / below))


@as_root
def test_link_to_a_directory_that_another_user_has_made_first(tmp_path: Path) -> None:
    """A7: So it is where a link of your own leads to."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "app").mkdir()
    os.chown(shared / "app", OTHER, OTHER)
    (tmp_path / "own").symlink_to(shared / "app")
    with pytest.raises(PermissionError, match="/shared/app belongs to another user"):
        take(FileLock(tmp_path / "own" / "the.lock"))


def test_file_that_is_replaced_while_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A7: If the file is replaced at the moment in which it is locked, nobody knows which one is:
    the lock counts as taken, and is tried again."""
    path = tmp_path / "the.lock"
    acquire = filelock.FileLock.acquire

    def replace(self: Any, **options: Any) -> Any:
        path.unlink()
        path.write_text("")
        return acquire(self, **options)

    async def main() -> None:
        claim = FileLock(path).claim("pump")
        with monkeypatch.context() as patch:
            patch.setattr(filelock.FileLock, "acquire", replace)
            assert await claim.acquire() is None
        assert await claim.acquire() is not None
        await claim.release()

    asyncio.run(main())
