"""What the lifespan opens, and hands to pumps and handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, TypedDict, cast

import httpx
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from example_app.board import RECENT, Board
from example_app.probe import Result, new_client, probe
from example_app.settings import Settings
from example_app.store import Store, open_store
from example_app.targets import Target, load_targets

Probe = Callable[[Target], Awaitable[Result | None]]
"""A probe from elsewhere, which has seen nothing if it could not be made."""


class State(TypedDict):
    """The resources of a running app."""

    settings: Settings
    client: httpx.AsyncClient
    store: Store
    board: Board
    to_record: asyncio.Queue[Result]
    to_show: asyncio.Queue[Result]
    showing: asyncio.Lock
    places: Mapping[str, Probe]


@asynccontextmanager
async def open_state(app: FastAPI) -> AsyncIterator[State]:
    """Open everything before the first pump starts; close it after the last one has ended."""
    settings: Settings = app.state.settings
    listed = load_targets(settings.targets, settings.url)
    async with (
        open_store(
            settings.database, settings.keep_days, listed, announce=bool(settings.webhook)
        ) as store,
        new_client() as client,
        AsyncExitStack() as stack,
    ):
        for place in app.state.places:
            await stack.enter_async_context(place.jobs.open())
        app.state.board = board = await _filled_board(store)
        yield State(
            settings=settings,
            client=client,
            store=store,
            board=board,
            to_record=asyncio.Queue(),
            to_show=asyncio.Queue(),
            showing=asyncio.Lock(),
            places={place.name: place.probe for place in app.state.places},
        )


async def _filled_board(store: Store) -> Board:
    board = Board(await store.targets())
    for name in board.targets:
        for result in reversed(await store.history(name, RECENT)):
            board.publish(result)
    return board


async def show_targets(state: State) -> None:
    """Put onto the board what is stored, whichever process has changed it.

    One at a time: what was read first must not be shown last.
    """
    async with state["showing"]:
        state["board"].show(await state["store"].targets())


async def probe_and_report(state: State, target: Target) -> Result:
    """Probe a target; the result goes to the recorder and to the broadcaster, and is returned."""
    result = await probe(state["client"], target)
    state["to_record"].put_nowait(result)
    state["to_show"].put_nowait(result)
    return result


async def _state_of(connection: HTTPConnection) -> State:
    return cast("State", connection.scope["state"])


AppState = Annotated[State, Depends(_state_of)]
"""The state, as the parameter of a handler."""
