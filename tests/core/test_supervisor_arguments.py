"""What a supervisor is given, and what is an error at once."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Any

import pytest

from quattro_core import RestartPolicy, SharedLimit, Supervisor

NEVER_USED = (
    r"restart=RestartPolicy\(base=0\.25, .*\) "
    'needs on_failure="restart" or on_return="restart"'
)


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("restart", [5, True, "often"])
def test_restart_that_is_no_policy(restart: Any) -> None:
    """A3: Something else than a RestartPolicy is an error now, and not with the first failure."""
    with pytest.raises(
        TypeError, match=f"restart must be a RestartPolicy or None, got {restart!r}"
    ):
        Supervisor(forever, on_failure="restart", restart=restart)


@pytest.mark.parametrize("options", [{}, {"on_failure": "ignore", "on_return": "ok"}])
def test_restart_that_is_never_used(options: Any) -> None:
    """A3: A RestartPolicy of what is never restarted is an error that names the way out."""
    with pytest.raises(ValueError, match=NEVER_USED):
        Supervisor(forever, restart=RestartPolicy(base=0.25), **options)


@pytest.mark.parametrize("when", ["on_failure", "on_return"])
def test_restart_that_is_used(when: str) -> None:
    """A3: A RestartPolicy is for failures, for returns, or for both."""
    Supervisor(forever, restart=RestartPolicy(), **{when: "restart"})  # type: ignore[arg-type]


def test_function_that_yields() -> None:
    """A3: An async generator function never runs by being awaited: that is an error now."""

    async def pump() -> Any:
        yield

    with pytest.raises(TypeError, match=r"pump is an async generator: .*leave out the yield"):
        Supervisor(pump)


def blocks() -> None: ...


@pytest.mark.parametrize("function", [blocks, partial(blocks)])
def test_function_that_blocks(function: Any) -> None:
    """A3: A def function is refused at once: it would block the event loop when it is called."""
    with pytest.raises(TypeError, match=r"blocks is a def function.*asyncio\.to_thread"):
        Supervisor(function)


def test_def_function_that_returns_an_awaitable() -> None:
    """A3: What returns an awaitable, and says so, can be supervised."""

    def later() -> Awaitable[None]:
        return asyncio.sleep(0)

    async def main() -> None:
        for function in (later, lambda: asyncio.sleep(0)):
            await Supervisor(function, on_return="ok").run()

    asyncio.run(main())


def test_waiting_for_what_nobody_runs() -> None:
    """A2: Who waits for a function that was never run is told so."""

    async def main() -> None:
        supervisor = Supervisor(forever)
        with pytest.raises(TimeoutError, match=r"has not been run: .* run\(\) within 0\.01 s"):
            await supervisor.wait_started(0.01)

    asyncio.run(main())


def test_total_is_not_optional() -> None:
    """C6: A shared limit that is none is an error that does not offer None."""
    with pytest.raises(TypeError, match="total must be an int, got None"):
        SharedLimit(None)  # type: ignore[arg-type]
