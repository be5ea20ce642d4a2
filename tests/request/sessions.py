"""Dependencies that close, and a child that takes its time to end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends

log: list[str] = []


async def request_session() -> AsyncIterator[None]:
    try:
        yield
    finally:
        log.append("request session closed")


async def function_session() -> AsyncIterator[None]:
    try:
        yield
    finally:
        log.append("function session closed")


async def child() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        log.append("child ended")


RequestSession = Annotated[None, Depends(request_session)]


FunctionSession = Annotated[None, Depends(function_session, scope="function")]
