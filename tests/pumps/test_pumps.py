"""Pumps: which functions are, how they are called, and how they are ended."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial, wraps
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from quattro_web import Pump, install, task_group_lifespan
from tests.support.apps import lifespan_of, settle
from tests.support.asgi import run
from tests.support.lifespan import Life


async def first_words(pump: Any, log: list[Any]) -> list[Any]:
    """Return what a pump has logged when it has been running for a while."""
    app = Starlette(lifespan=lifespan_of([], colour="red"))
    install(app, pumps=[pump])
    async with Life(app):
        await settle()
    return log


def test_pump_of_no_arguments() -> None:
    """A2: A pump may be an async function of no arguments."""
    log: list[str] = []

    async def pump() -> None:
        log.append("runs")
        await asyncio.Event().wait()

    assert run(first_words(pump, log)) == ["runs"]


def test_pump_that_takes_the_state() -> None:
    """A2: A pump of one argument gets the state that the user's lifespan has yielded."""
    log: list[str] = []

    async def pump(state: dict[str, str]) -> None:
        log.append(state["colour"])
        await asyncio.Event().wait()

    assert run(first_words(pump, log)) == ["red"]


def test_partial_is_a_pump() -> None:
    """A2: A functools.partial is a pump: of what is left, one argument is the state."""
    log: list[str] = []

    async def pump(word: str, state: dict[str, str], *, other: str) -> None:
        log.append(f"{word} {state['colour']} {other}")
        await asyncio.Event().wait()

    assert run(first_words(partial(pump, "a", other="b"), log)) == ["a red b"]


def test_method_and_callable_object_are_pumps() -> None:
    """A2: A bound method is a pump, and so is an object with an async __call__."""
    log: list[str] = []

    class Pump:
        async def __call__(self, state: dict[str, str]) -> None:
            log.append(state["colour"])
            await asyncio.Event().wait()

        async def method(self) -> None:
            log.append("method")
            await asyncio.Event().wait()

    assert run(first_words(Pump(), log)) == ["red"]
    assert run(first_words(Pump().method, log)) == ["red", "method"]


def test_options_of_a_pump_keep_their_defaults() -> None:
    """A2: Arguments with a default are not the state's place: they keep their default."""
    log: list[Any] = []

    async def pump(interval: float = 5.0, *args: Any, **kwargs: Any) -> None:
        log.append((interval, args, kwargs))
        await asyncio.Event().wait()

    assert run(first_words(pump, log)) == [(5.0, (), {})]


def test_callable_without_a_signature_gets_no_argument() -> None:
    """A2: What does not tell its arguments is called without any; it may return any awaitable."""
    log: list[str] = []

    class Endless(dict[str, str]):
        def __await__(self) -> Generator[Any, None, bool]:
            log.append("runs")
            return asyncio.Event().wait().__await__()

    assert run(first_words(Endless, log)) == ["runs"]


def test_pump_runs_while_requests_are_served() -> None:
    """A2: A pump runs as a background task for as long as the app lives, not only at its start."""
    inbox: asyncio.Queue[str] = asyncio.Queue()
    log: list[str] = []

    async def pump() -> None:
        while True:
            log.append(await inbox.get())
            inbox.task_done()

    async def endpoint(request: Any) -> Any:
        await inbox.put(request.url.path)
        await inbox.join()
        return lambda scope, receive, send: send({"type": "http.response.start", "status": 204})

    app = Starlette(routes=[Route("/{name}", endpoint)])
    install(app, pumps=[pump])

    async def main() -> None:
        async with Life(app) as life:
            await life.get("/one")
            await life.get("/two")

    run(main())
    assert log == ["/one", "/two"]


def test_clean_up_of_a_pump_is_awaited() -> None:
    """A2: A pump is cancelled at shutdown, and what its clean-up awaits has its time."""
    log: list[str] = []

    async def pump() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            for step in range(3):
                await asyncio.sleep(0)
                log.append(f"step {step}")
            raise

    app = Starlette(lifespan=lifespan_of(log))
    install(app, pumps=[pump])
    run(_stay(Life(app)))
    assert log == ["resource opens", "step 0", "step 1", "step 2", "resource closes"]


def test_coroutine_is_no_pump() -> None:
    """A2: A coroutine instead of a function is a TypeError that says so; it is closed."""

    async def pump() -> None: ...

    with pytest.raises(TypeError, match=r"got the coroutine .*leave out the call"):
        install(Starlette(), pumps=[pump()])  # type: ignore[list-item]


@pytest.mark.parametrize("what", [None, 5, "pump"])
def test_what_cannot_be_called_is_no_pump(what: Any) -> None:
    """A2: Something that is no function is a TypeError that shows it."""
    with pytest.raises(TypeError, match=rf"a pump is an async function, got {what!r}"):
        install(Starlette(), pumps=[what])


async def two_arguments(first: Any, second: Any) -> None: ...


async def keyword_only(*, first: Any) -> None: ...


@pytest.mark.parametrize("pump", [two_arguments, keyword_only])
def test_pump_with_other_arguments(pump: Any) -> None:
    """A2: A function that takes other arguments is a TypeError that names function and way out."""
    with pytest.raises(TypeError, match=rf"{pump.__name__} takes first.*functools\.partial"):
        install(Starlette(), pumps=[pump])


@pytest.mark.parametrize("install_by", [task_group_lifespan, "install"])
def test_bad_pump_is_told_at_once(install_by: Callable[..., Any] | str) -> None:
    """A2: A bad pump is an error where it is given, not when the app starts."""
    with pytest.raises(TypeError, match="a pump is an async function"):
        if callable(install_by):
            install_by(pumps=[5])
        else:
            install(Starlette(), pumps=[5])  # type: ignore[list-item]


def sync_function() -> None: ...


async def async_function() -> None: ...


def test_function_that_blocks_is_no_pump() -> None:
    """A2: A def function is refused at once: it would block the event loop in the start-up."""
    with pytest.raises(
        TypeError, match=r"pump sync_function is a def function.*asyncio\.to_thread"
    ):
        install(Starlette(), pumps=[sync_function])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="pump sync_function is a def function"):
        Pump(partial(sync_function))  # type: ignore[arg-type]


def test_def_function_that_returns_an_awaitable_is_a_pump() -> None:
    """A2: What returns an awaitable, and says so, is a pump as well; so is a wrapped async one."""

    def later() -> Awaitable[None]:
        return asyncio.sleep(0)

    @wraps(async_function)
    def wrapper() -> Any:
        return async_function()

    for function in (later, wrapper, lambda: asyncio.sleep(0)):
        assert Pump(function).function is function


@pytest.mark.parametrize("function", [lambda: None, dict])
def test_what_returns_no_awaitable_is_no_pump(function: Any) -> None:
    """A2: A function that is not async is a TypeError that names it, as a failed pump is told."""
    app = Starlette()
    install(app, pumps=[function])
    life = Life(app)
    run(_stay(life))
    assert isinstance(life.error, TypeError)
    assert "is not an async function" in str(life.error)


async def _stay(life: Life) -> None:
    async with life:
        await settle()
