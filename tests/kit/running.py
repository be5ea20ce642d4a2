"""Runs of tests on the virtual clock of the kit."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp

from quattro_web.testing import AppClient, VirtualClockLoop, no_leaked_tasks


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test in a loop of its own, which must not leave a task behind."""

    async def awaited() -> None:
        await main()

    with no_leaked_tasks(), asyncio.Runner(debug=True, loop_factory=VirtualClockLoop) as runner:
        runner.run(awaited())


def visit(app: ASGIApp, test: Callable[[AppClient], Awaitable[None]], **options: Any) -> None:
    """Run a test with a client."""

    async def main() -> None:
        async with AppClient(app, **options) as client:
            await test(client)

    run(main)
