"""What a shutdown means for the requests that are open."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from quattro_web import ShutdownGrace
from tests.shutdown.shutting import Scene
from tests.support.apps import settle
from tests.support.asgi import Exchange, Socket, run
from tests.support.lifespan import Life
from tests.support.signals import send, server_handlers

GRACE = ShutdownGrace(requests=10, resources=None)  # the last resort would end the tests


def shut_down(
    scene: Scene,
    *requests: Exchange | Socket,
    then: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> list[Any]:
    """Open requests, send a SIGTERM, let the server drain them as servers do, end the lifespan."""

    async def main() -> list[Any]:
        life = Life(scene.app, log=scene.log)
        with server_handlers():
            await life.start()
            serving = [asyncio.create_task(request.run()) for request in requests]
            await settle()
            await asyncio.sleep(1)
            await send(signal.SIGTERM)
            scene.note("signal")
            if then is not None:
                await then()
            done = await asyncio.gather(*serving)
            scene.note("drained")
            await life.stop()
            return done

    return run(main())


def test_requests_may_finish() -> None:
    """A6: A request that is open when the signal comes may finish within its grace."""
    scene = Scene(GRACE)
    [slow] = shut_down(scene, Exchange(scene.app, "/slow?seconds=5"))
    assert (slow.status, slow.body) == (200, b"slow")


def test_requests_are_told_at_once() -> None:
    """A6: What awaits the shutdown event goes on at the signal, not when the lifespan ends."""
    scene = Scene(GRACE)
    [told] = shut_down(scene, Exchange(scene.app, "/told"))
    assert told.body == b"goodbye"
    assert "1 s: told" in scene.log
    assert scene.log.index("1 s: told") < scene.log.index("1 s: drained")


def test_slow_request_is_cancelled_after_its_grace() -> None:
    """A6: A request that goes on is cancelled when its grace is over, with a reason, and is
    answered with a 503."""
    scene = Scene(GRACE)
    [slow] = shut_down(scene, Exchange(scene.app, "/slow"))
    assert (slow.status, slow.headers["retry-after"]) == (503, "1")
    assert "11 s: cancelled: the server is shutting down" in scene.log


def test_children_are_cancelled_with_their_request() -> None:
    """A6: Children of a request are cancelled with it: a response that waits for them is a 503."""
    scene = Scene(GRACE)
    [child] = shut_down(scene, Exchange(scene.app, "/child"))
    assert child.status == 503
    assert "11 s: child ends" in scene.log


def test_event_stream_ends_cleanly() -> None:
    """A6: An endless event stream is ended when its grace is over, as such a stream ends: its
    client comes back (trap: a stream that ignores shutdown)."""
    scene = Scene(GRACE)
    [events] = shut_down(scene, Exchange(scene.app, "/events"))
    assert events.is_complete
    assert events.body == b"data: tick\n\n"
    assert "11 s: stream ends" in scene.log


def test_download_is_cut() -> None:
    """A6, R5: Any other stream is cut, so that nobody takes it for a complete one. That is in the
    log already, in one line for all: nothing is raised, of which a server would log a traceback."""
    scene = Scene(GRACE)
    [download] = shut_down(scene, Exchange(scene.app, "/download"))
    assert download.body == b"piece"
    assert not download.is_complete
    assert download.error is None


def test_failure_of_a_stream_that_is_cut() -> None:
    """A6, R5: A stream that fails in its clean-up, when the shutdown has cut it, is another matter:
    its error leaves the app as ever."""

    async def chunks() -> AsyncIterator[str]:
        try:
            yield "piece"
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(chunks())

    scene = Scene(GRACE)
    scene.app.router.routes.append(Route("/broken", endpoint))
    [broken] = shut_down(scene, Exchange(scene.app, "/broken"))
    assert not broken.is_complete
    assert isinstance(broken.error, BaseExceptionGroup)


def test_socket_is_closed_with_service_restart() -> None:
    """A6: An idle WebSocket is closed with 1012 (service restart) when its grace is over."""
    scene = Scene(GRACE)
    [socket] = shut_down(scene, Socket(scene.app, "/socket"))
    assert socket.log[-1] == "close 1012"
    assert socket.error is None
    assert "11 s: socket ends" in scene.log


def test_pumps_run_until_the_last_request_has_ended() -> None:
    """A6: Pumps end after the last request, and the app's resources are closed after the pumps
    (trap: pump cancelled before its users)."""
    scene = Scene(GRACE)
    shut_down(scene, Exchange(scene.app, "/slow"), Socket(scene.app, "/socket"))
    ends = ["socket ends", "drained", "pump ends", "resource closes", "shutdown.complete"]
    events = [line.rpartition(" s: ")[2] for line in scene.log]
    assert [event for event in events if event in ends] == ends


def test_pumps_wait_for_requests_that_the_server_does_not() -> None:
    """A6: A server that ends the lifespan while requests are open, as uvicorn does with
    --timeout-graceful-shutdown, still has its pumps end after them."""
    scene = Scene(GRACE)

    async def main() -> None:
        async with Life(scene.app, log=scene.log):
            serving = asyncio.create_task(Exchange(scene.app, "/slow?seconds=5").run())
            await settle()
        assert serving.done()

    run(main())
    assert scene.log[-3:] == ["pump ends", "resource closes", "shutdown.complete"]


def test_what_is_cancelled_is_named(errors: list[logging.LogRecord]) -> None:
    """A6: The log names each request that is cancelled, its tasks, and where they hang."""
    scene = Scene(GRACE)
    shut_down(scene, Exchange(scene.app, "/child"), Exchange(scene.app, "/slow"))
    [record] = [each for each in errors if each.levelno == logging.WARNING]
    message = record.getMessage()
    assert message.startswith(
        "the shutdown cancels everything that is still open after 10.0 s: GET /child"
    )
    assert "the child (Scene._child, " in message
    assert "GET /slow" in message
    assert "handler (Scene.slow, " in message


def test_many_are_named_in_one_line(errors: list[logging.LogRecord]) -> None:
    """A6: A thousand open streams are one line in the log, with the first of them by name."""
    scene = Scene(GRACE)
    shut_down(scene, *(Exchange(scene.app, f"/slow?{number}") for number in range(1000)))
    [record] = errors
    assert record.getMessage().count("GET /slow") == 20
    assert record.getMessage().endswith("; and 980 more")


def test_deaf_request_is_given_up(errors: list[logging.LogRecord]) -> None:
    """A6: A request that answers no cancellation is given up a second later, by name, and the app
    is shut down without it: its server may wait for it for ever."""
    scene = Scene(GRACE)

    async def main() -> None:
        life = Life(scene.app, log=scene.log)
        with server_handlers():
            await life.start()
            deaf = asyncio.create_task(Exchange(scene.app, "/deaf").run())
            await settle()
            await send()
            await life.ended()
            scene.note("the server waits still")
            scene.released.set()
            await deaf

    run(main())
    [given_up] = [each.getMessage() for each in errors if each.levelno == logging.ERROR]
    assert "no longer waits for requests that were cancelled 1 s ago: GET /deaf" in given_up
    assert scene.log[-4:-1] == ["pump ends", "resource closes", "shutdown.complete"]
    assert scene.log[-1].endswith("the server waits still")
