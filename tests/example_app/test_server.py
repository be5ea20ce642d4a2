"""`python -m example_app`, as a person starts and ends it."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from example_app.settings import Settings
from tests.example_app.support import PATIENCE, ROOT, Site, served

# In the log of a process that its shutdown's bound has ended; how long all of it takes is a matter
# of the machine.
AT_THE_BOUND = "the shutdown has not ended"
TARGET = "[[target]]\nname = 'a'\nurl = '{}'\nslow_after = 30\n"


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Yield the name and data of the events in a stream, until it ends."""
    name = ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        if field == "data":
            yield name, json.loads(value)


def test_it_runs_out_of_the_box(tmp_path: Path) -> None:
    """With the default targets and no internet, each of them has a result in the first round."""
    default = str(Settings().targets)
    with served(tmp_path, BOARD_TARGETS=default, BOARD_INTERVAL="3600") as server:
        first: dict[str, Any] = {}
        with httpx.stream("GET", f"{server.url}/events", timeout=PATIENCE) as response:
            for name, data in events(response):  # pragma: no branch - the stream is endless
                rows = data["rows"] if name == "snapshot" else []
                results = [each for row in rows for each in row["recent"]]
                first |= {each["target"]: each for each in results}
                if name == "result":
                    first[data["result"]["target"]] = data["result"]
                if len(first) == 3:
                    break
        assert set(first) == {"This board", "Slow service", "Flaky service"}
        assert first["This board"]["state"] in {"up", "slow"}


def test_check_on_a_real_server(tmp_path: Path, site: Site) -> None:
    """A target that is up and one that is not are both in the answer."""
    targets = TARGET.format(site.url) + TARGET.format("http://127.0.0.1:1/").replace("'a'", "'b'")
    with served(tmp_path, targets) as server:
        response = httpx.get(f"{server.url}/check?target=a&target=b", timeout=PATIENCE)
    assert [each["state"] for each in response.json()] == ["up", "down"]


def test_interrupt_ends_it_while_clients_are_connected(tmp_path: Path, site: Site) -> None:
    """Ctrl-C ends the server, streams end properly, and nothing is complained of: nothing had to be
    cancelled, which would be in the log."""
    with served(tmp_path, TARGET.format(site.url)) as server, ExitStack() as stack:
        url = f"{server.url}/events"
        streams = [
            stack.enter_context(httpx.stream("GET", url, timeout=PATIENCE)) for _ in range(3)
        ]
        iterators = [stream.iter_raw() for stream in streams]
        for iterator in iterators:
            next(iterator)
        socket = stack.enter_context(connect(f"{server.url}/follow/a".replace("http", "ws")))
        socket.recv(timeout=PATIENCE)
        status, output = server.interrupt()
        assert (status, output) == (0, "")
        for iterator in iterators:
            for _ in iterator:  # raises if the stream was cut off instead of ended
                pass
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


def test_clients_that_leave(tmp_path: Path, site: Site) -> None:
    """Browsers that leave, with a closing handshake or without a word, leave nothing in the log."""
    with served(tmp_path, TARGET.format(site.url), BOARD_INTERVAL="0.1") as server:
        for vanishes in (False, True):
            with httpx.stream("GET", f"{server.url}/events", timeout=PATIENCE) as response:
                assert next(response.iter_raw())
            with connect(f"{server.url}/follow/a".replace("http", "ws")) as websocket:
                assert websocket.recv(timeout=PATIENCE)
                if vanishes:
                    websocket.socket.shutdown(socket.SHUT_RDWR)
        assert server.interrupt() == (0, "")


def test_interrupt_ends_it_although_a_client_does_not_read(tmp_path: Path, site: Site) -> None:
    """A client that has asked for the events, and reads none, does not keep it from ending."""
    with served(tmp_path, TARGET.format(site.url), BOARD_INTERVAL="0.1") as server:
        with closing(socket.create_connection(("127.0.0.1", httpx.URL(server.url).port))) as still:
            still.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            still.recv(1)
            status, output = server.interrupt()
    assert status == 0
    assert AT_THE_BOUND not in output


def test_nothing_that_was_shown_is_lost(tmp_path: Path, site: Site) -> None:
    """Every result that a browser has seen by the end is in the database afterwards, once."""
    shown: list[str] = []
    enough = threading.Event()

    with served(tmp_path, TARGET.format(site.url), BOARD_INTERVAL="0.1") as server:

        def watch() -> None:
            with httpx.stream("GET", f"{server.url}/events", timeout=PATIENCE) as response:
                for name, data in events(response):
                    if name == "result":
                        shown.append(data["result"]["id"])
                    if len(shown) >= 5:
                        enough.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert enough.wait(PATIENCE)
        server.interrupt()
        watcher.join(PATIENCE)
    with closing(sqlite3.connect(tmp_path / "board.db")) as database:
        recorded = [row[0] for row in database.execute("SELECT id FROM result")]
    assert set(shown) <= set(recorded)
    assert len(set(recorded)) == len(recorded)


def test_a_pump_that_fails_ends_the_server(tmp_path: Path, site: Site) -> None:
    """When results can't be recorded any more the server does not go on as if nothing was."""
    with served(tmp_path, TARGET.format(site.url)) as server:
        httpx.get(f"{server.url}/healthz", timeout=PATIENCE)
        with closing(sqlite3.connect(tmp_path / "board.db")) as database:
            database.execute("DROP TABLE result")
        output, _ = server.process.communicate(timeout=PATIENCE)
    assert "pump recorder failed" in output
    assert "no such table: result" in output
    assert server.process.returncode != 0


def test_an_unknown_target_can_not_be_followed(tmp_path: Path) -> None:
    """The handshake is refused."""
    with served(tmp_path) as server, pytest.raises(InvalidStatus, match="403"):
        connect(f"{server.url}/follow/a".replace("http", "ws"))


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"PORT": "web"}, "PORT must be a number"),
        ({"BOARD_TARGETS": "/nowhere/targets.toml"}, "No such file"),
        ({"HOST": "192.0.2.1"}, "assign"),
        ({"BOARD_LOCK": "postgresql://a@b:c/d", "PORT": "0"}, "dsn is not a URL that"),
        ({"BOARD_DATABASE": "/nowhere/x.db", "PORT": "0"}, "can't use the database /nowhere/x.db"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(environ: dict[str, str], reason: str) -> None:
    """A setting that can't be is an exit status and a line, without a traceback."""
    process = subprocess.run(
        [sys.executable, "-m", "example_app"],
        cwd=ROOT,
        env={**os.environ, "PYTHONASYNCIODEBUG": "", **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.startswith("status board: ")
    assert reason in process.stderr
    assert process.stderr.count("\n") == 1


def test_several_processes_probe_once(tmp_path: Path, site: Site) -> None:
    """With four processes one of them probes, each shows what is found, and a target that is added
    in one is on the board of all."""
    with (
        served(tmp_path, TARGET.format(site.url), WORKERS="4", BOARD_INTERVAL="3600") as server,
        ExitStack() as stack,
    ):
        first = wait_for_results(server.url, "a")
        assert len(first) == 1  # one process has probed it, and none of the others
        httpx.post(
            f"{server.url}/targets", json={"name": "b", "url": site.url}, timeout=PATIENCE
        ).raise_for_status()
        for _ in range(8):  # connections of their own: they go to different processes
            stream = stack.enter_context(
                httpx.stream("GET", f"{server.url}/events", timeout=PATIENCE)
            )
            seen: set[str] = set()
            for name, data in events(stream):
                if name == "snapshot":
                    seen |= {row["target"]["name"] for row in data["rows"] if row["recent"]}
                elif name == "result":
                    seen.add(data["result"]["target"])
                if seen >= {"a", "b"}:
                    break
        health = httpx.get(f"{server.url}/readyz", timeout=PATIENCE).json()
        assert health["ready"]
        assert health["pumps"]["prober"]["state"] in {"running", "standby"}
        assert health["pumps"]["prober"]["holder"]
        status, output = server.interrupt()
        assert status == 0
        assert AT_THE_BOUND not in output


def test_a_public_board_answers_to_its_names(tmp_path: Path) -> None:
    """A board that listens for others answers to the names that are set, and says so if none is."""
    for environ, status in (({}, 400), ({"BOARD_HOSTS": "board.test"}, 200)):
        with served(tmp_path, HOST="0.0.0.0", **environ) as server:
            if not environ:
                assert server.process.stdout is not None
                assert "unless BOARD_HOSTS lists some" in server.process.stdout.readline()
            headers = {"Host": "board.test"}
            response = httpx.get(f"{server.url}/healthz", headers=headers, timeout=PATIENCE)
            assert response.status_code == status


def wait_for_results(url: str, target: str) -> list[Any]:
    """Wait until a target has recorded results, and return them."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = httpx.get(f"{url}/history/{target}", timeout=PATIENCE).json()
        if found:
            return list(found)
        time.sleep(0.05)
    raise AssertionError("nothing was recorded")


def test_orchestrators_can_ask(tmp_path: Path) -> None:
    """/livez and /readyz answer, and name the pumps."""
    with served(tmp_path) as server:
        for path in ("/livez", "/readyz"):
            response = httpx.get(f"{server.url}{path}", timeout=PATIENCE)
            assert response.status_code == 200
            assert {"prober", "recorder", "closer"} <= response.json()["pumps"].keys()
