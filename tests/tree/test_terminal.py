"""The tasks of an app in a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.server import PATIENCE, ROOT, Server, free_port, uvicorn
from tests.support.wire import Wire


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(uvicorn("tests.tree.app:app", "--timeout-graceful-shutdown", "1")) as server:
        with Wire(server.port) as stuck:
            stuck.ask("/users/%1b[31m%0aada")
            server.wait_for("is stuck")
            yield server


def shown(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quattro_web.tasks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_once(server: Server) -> None:
    """O1: The terminal shows each request with its children, and nothing that a client has sent as
    it came."""
    result = shown(f"http://127.0.0.1:{server.port}/tasks")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"^process \d+ \(.*\): 2 open requests, ", result.stdout)
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    [request] = [n for n, line in enumerate(lines) if line.startswith("GET /users/")]
    assert lines[request].startswith(r"GET /users/\x1b[31m\nada (/users/{name}) from 127.0.0.1:")
    assert lines[request + 1].startswith("   users [")
    assert lines[request + 2].startswith(r"   ├─ stuck_child [\x1b[31m\nada], at stuck_child, ")
    assert lines[request + 3].startswith("   └─ ticking_child [<b>ticks</b>], at ticking_child, ")


def test_address_of_the_page(server: Server) -> None:
    """O1: The address of the page, as it is copied from a browser, will do."""
    for url in ("/tasks/", "/tasks/?token=secret", "/tasks?token=secret"):
        assert "GET /users/" in shown(f"http://127.0.0.1:{server.port}{url}").stdout


def test_redirect(server: Server) -> None:
    """O2: A redirect is not followed: it would be given the token that is for the app."""
    url = f"http://127.0.0.1:{server.port}/elsewhere"
    result = shown(url, "--header", "Authorization: Bearer secret")
    assert result.stderr == f"{url} has answered 307 Temporary Redirect\n"


def test_filter(server: Server) -> None:
    """O1: It shows only what one looks for, in whatever line it is."""
    result = shown(f"http://127.0.0.1:{server.port}/tasks", "--filter", "STUCK_child")
    lines = result.stdout.splitlines()
    assert lines[1].startswith("GET /users/")
    assert len(lines) == 5


def test_header(server: Server) -> None:
    """O1: A header lets it in where a dependency wants one; else it says what it was answered."""
    url = f"http://127.0.0.1:{server.port}/private"
    refused = shown(url)
    assert refused.returncode == 1
    assert refused.stderr == f"{url} has answered 403 Forbidden\n"
    assert shown(url, "--header", "Authorization: Bearer secret").returncode == 0


def test_watch(server: Server) -> None:
    """O1: It shows it again each second, marks what does not move, and ends at a Ctrl-C."""
    parent, child = pty.openpty()
    url = f"http://127.0.0.1:{server.port}/tasks"
    process = subprocess.Popen(
        [sys.executable, "-m", "quattro_web.tasks", url, "--watch", "--filter", "stuck"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "LINES": "30"},
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(child)
    seen = b""
    try:
        while not (
            seen.count(b"\x1b[H\x1b[J") > 1
            and re.search(rb"\x1b\[33m[^\n]*stuck_child[^\n]*, unmoved for [1-9]\d\.\d s", seen)
        ):
            seen += os.read(parent, 65536)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        os.close(parent)
    assert b"\x1b[1mprocess " in seen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["file:///etc/passwd"],
            "url must begin with http:// or https://, got 'file:///etc/passwd'",
        ),
        (["http://127.0.0.1/tasks", "--header", "secret"], "--header must be like 'NAME: VALUE'"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    """O1: What can't be meant is said."""
    result = shown(*arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_what_is_no_app(server: Server) -> None:
    """O1: An address that does not answer, or answers something else, is said, without a
    traceback."""
    for url in (
        f"http://127.0.0.1:{free_port()}/tasks",
        f"http://127.0.0.1:{server.port}/sign-up",
    ):
        result = shown(url)
        assert result.returncode == 1
        assert result.stderr.startswith(f"{url} does not show the tasks of an app: ")
        assert "Traceback" not in result.stderr
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "quattro_web.tasks", f"http://127.0.0.1:{port}/tasks"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = listener.accept()
        connection.close()
        _, errors = process.communicate(timeout=PATIENCE)
        assert "Traceback" not in errors
