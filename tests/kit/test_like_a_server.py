"""The client of the testing kit, held against a real server: uvicorn serves the same apps."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.typing import Subprotocol

from quattro_web.testing import AppClient, Response, ResponseCutError, WebSocketRefusedError
from tests.kit import habits
from tests.kit.habits import Habit, Talk

# What servers add of their own.
OWN = {"date", "server", "connection", "transfer-encoding", "content-length"}
METHODS = ("GET", "POST", "HEAD")
CUT = "cut"


class Served:
    """An app of many habits: the path says which, and the log of the last request is kept."""

    def __init__(self) -> None:
        self.talk: Talk
        self._has_ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] != "lifespan"
        self.talk = Talk(scope, receive, send)
        try:
            await getattr(habits, scope["path"][1:])(self.talk)
        finally:
            self._has_ended.set()

    async def log(self) -> list[Any]:
        await asyncio.wait_for(self._has_ended.wait(), 10)
        self._has_ended.clear()
        return self.talk.log


@asynccontextmanager
async def uvicorn_of(app: Any, http: Any = "auto") -> AsyncIterator[str]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, http=http, lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"127.0.0.1:{sock.getsockname()[1]}"
        server.should_exit = True
        await serving


def seen(response: Response | httpx.Response) -> Any:
    headers = {name: text for name, text in response.headers.items() if name not in OWN}
    return response.status_code, headers, response.text


async def by_uvicorn(http: str) -> dict[str, Any]:
    app = Served()
    all_of_it: dict[str, Any] = {}
    async with uvicorn_of(app, http) as host, httpx.AsyncClient(timeout=20) as client:
        for habit in habits.HTTP:
            for method in METHODS:
                try:
                    what = seen(await client.request(method, f"http://{host}/{habit.__name__}"))
                except httpx.RemoteProtocolError:
                    what = CUT
                all_of_it[f"{method} {habit.__name__}"] = what, await app.log()
    return all_of_it


@pytest.fixture(scope="module", params=["h11", "httptools"])
def on_uvicorn(request: pytest.FixtureRequest) -> dict[str, Any]:
    return asyncio.run(by_uvicorn(request.param))


async def by_client(habit: Habit, method: str) -> tuple[Any, Any]:
    app = Served()
    async with AppClient(app, raise_app_exceptions=False) as client:
        try:
            what = seen(await client.request(method, f"/{habit.__name__}"))
        except ResponseCutError:
            what = CUT
        return what, await app.log()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("habit", habits.HTTP, ids=lambda habit: habit.__name__)
def test_responses(on_uvicorn: dict[str, Any], habit: Habit, method: str) -> None:
    """What an app may send, what its client gets of it, and what it is told, is as on uvicorn."""
    what, log = asyncio.run(by_client(habit, method))
    on_server, server_log = on_uvicorn[f"{method} {habit.__name__}"]
    assert log == server_log
    # HEAD and 204 end with their headers: a client does not see that the app fails later.
    if what != CUT or not (method == "HEAD" or on_server[0] == 204):
        assert what == on_server


def test_scope() -> None:
    """Paths, query strings and headers reach an app in the form in which uvicorn hands them on."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await habits.ordinary(Talk(scope, receive, send))

    async def main() -> None:
        path, headers = "/\u00fc %20/a;b=c?q=\u00fc&r=a b&s=%26", {"X-One": "1"}
        async with uvicorn_of(app) as host, httpx.AsyncClient(timeout=20) as client:
            await client.get(f"http://{host}{path}", headers=headers)
        async with AppClient(app) as client_of_ours:
            await client_of_ours.get(path, headers=headers)

    asyncio.run(main())
    theirs, ours = scopes[0], scopes[-1]
    for key in ("path", "raw_path", "query_string", "root_path", "scheme", "http_version"):
        assert ours[key] == theirs[key]
    assert theirs.keys() <= ours.keys()
    assert (b"x-one", b"1") in ours["headers"]
    assert (b"x-one", b"1") in theirs["headers"]


async def sockets_of_uvicorn() -> dict[str, Any]:
    app = Served()
    all_of_it: dict[str, Any] = {}
    async with uvicorn_of(app) as host:
        for habit in habits.WEBSOCKET:
            url = f"ws://{host}/{habit.__name__}"
            what: Any = []
            try:
                async with connect(url, subprotocols=[Subprotocol("chat")]) as connection:
                    try:
                        while True:
                            what.append(await connection.recv())
                    except ConnectionClosed:
                        what += [connection.subprotocol, connection.close_code]
                        what += [connection.close_reason]
            except InvalidStatus as exc:
                what = [exc.response.status_code, bytes(exc.response.body or b"").decode()]
            except InvalidMessage:
                what = CUT
            all_of_it[habit.__name__] = what, await app.log()
        async with connect(f"ws://{host}/sends_when_its_client_has_left") as connection:
            await connection.close(4005, "bye")
            all_of_it["sends_when_its_client_has_left"] = None, await app.log()
    return all_of_it


@pytest.fixture(scope="module")
def sockets_on_uvicorn() -> dict[str, Any]:
    return asyncio.run(sockets_of_uvicorn())


async def socket_of_client(habit: Habit) -> tuple[Any, Any]:
    app = Served()
    what: list[Any] = []
    async with AppClient(app, raise_app_exceptions=False) as client:
        try:
            path = f"/{habit.__name__}"
            async with client.websocket(path, subprotocols=["chat"]) as connection:
                try:
                    what.append(await connection.receive_text())
                    what.append(await connection.receive_bytes())
                    await connection.receive_text()
                except WebSocketDisconnect as exc:
                    what += [connection.subprotocol, exc.code, exc.reason]
                await connection.wait_finished()
        except WebSocketRefusedError as exc:
            what = [exc.response.status_code, exc.response.text]
        return what, await app.log()


@pytest.mark.parametrize("habit", habits.WEBSOCKET, ids=lambda habit: habit.__name__)
def test_websockets(sockets_on_uvicorn: dict[str, Any], habit: Habit) -> None:
    """R6: So are the messages, refusals and codes of WebSockets."""
    what, log = asyncio.run(socket_of_client(habit))
    on_server, server_log = sockets_on_uvicorn[habit.__name__]
    assert log == server_log
    if on_server != CUT:  # the client of a broken refusal knows its status, and no more
        assert what == on_server


def test_websocket_whose_client_leaves(sockets_on_uvicorn: dict[str, Any]) -> None:
    """R6: The code of a client's close reaches the app, which can send nothing any more."""

    async def main() -> list[Any]:
        app = Served()
        async with (
            AppClient(app) as client,
            client.websocket("/sends_when_its_client_has_left") as connection,
        ):
            connection.close(4005, "bye")
            return await app.log()

    ours = asyncio.run(main())
    assert ours[-1] == "lost"
    assert ours == sockets_on_uvicorn["sends_when_its_client_has_left"][1]
