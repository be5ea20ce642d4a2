"""What the lifespan opens, and hands to pumps and handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict, cast

import httpx
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from example_app.board import RECENT, Board
from example_app.probe import Result, new_client, probe
from example_app.settings import Settings
from example_app.store import Store, open_store
from example_app.targets import Target, load_targets


class State(TypedDict):
    """The resources of a running app."""

    settings: Settings
    client: httpx.AsyncClient
    store: Store
    board: Board
    to_record: asyncio.Queue[Result]
    to_show: asyncio.Queue[Result]


@asynccontextmanager
async def open_state(app: FastAPI) -> AsyncIterator[State]:
    """Open everything before the first pump starts; close it after the last one has ended."""
    settings: Settings = app.state.settings
    async with open_store(settings.database, settings.keep_days) as store, new_client() as client:
        app.state.board = board = await _filled_board(settings, store)
        yield State(
            settings=settings,
            client=client,
            store=store,
            board=board,
            to_record=asyncio.Queue(),
            to_show=asyncio.Queue(),
        )


async def _filled_board(settings: Settings, store: Store) -> Board:
    added = {target.name: target for target in await store.targets()}
    listed = {target.name: target for target in load_targets(settings.targets, settings.url)}
    board = Board((listed | added | listed).values())
    for name in board.targets:
        for result in reversed(await store.history(name, RECENT)):
            board.publish(result)
    return board


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
