"""Functions that the tests run as jobs, and what they have done, where that is this process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException

from quattro_core import RestartPolicy
from quattro_web.jobs import Jobs, current_job

AT_ONCE = RestartPolicy(base=0.01)
MAY_SUCCEED: list[bool] = []

log: list[str] = []


class Coded(Exception):
    """An error whose arguments are not those of its ``__init__``."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Page(BaseModel):
    number: int
    text: str


@dataclass
class Book:
    title: str
    pages: list[Page]


def note(what: str) -> None:
    log.append(what)
    print(what, flush=True)  # for those who watch another process


async def double(number: int) -> int:
    return 2 * number


async def echo(data: bytes) -> bytes:
    return data


async def bind(title: str, *pages: Page, copies: int = 1) -> Book:
    return Book(title * copies, [*pages])


async def sleep(seconds: float, clean_up: float = 0.0) -> str:
    note(f"begins in {os.getpid()}")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note("cancelled")
        await asyncio.sleep(clean_up)
        note("cleaned up")
        raise
    note("done")
    return "done"


async def track(name: str, seconds: float) -> None:
    print(f"begin {name} {time.time():.3f}", flush=True)
    try:
        await asyncio.sleep(seconds)
    finally:
        try:
            await asyncio.sleep(0.1)
        finally:  # one that is cancelled when it is about to return
            print(f"end {name} {time.time():.3f}", flush=True)


async def do_once(name: str, seconds: float = 0.2) -> None:
    await asyncio.sleep(seconds)
    print(f"did {name}", flush=True)


async def fail_twice(name: str) -> None:
    note(f"attempt {current_job().attempt} of {name}")
    if current_job().attempt < 3:
        raise ValueError(f"not yet, {name}")


async def fail_as_told() -> None:
    note("tried")
    if not MAY_SUCCEED:
        raise Coded(7)


async def kill_its_worker() -> None:
    note("kills")
    await asyncio.sleep(0.05)  # which lets it be read
    os.kill(os.getpid(), signal.SIGKILL)


async def swallow() -> str:
    note("begins")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note("swallowed")
    return "done nevertheless"


async def stay() -> None:
    note("begins to stay")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note("stays")


async def fail_at_the_end() -> None:
    note("begins")
    try:
        await asyncio.sleep(60)
    finally:
        raise ValueError("the clean-up")


async def fail(what: str) -> None:
    match what:
        case "http":
            raise HTTPException(404, "no such page", headers={"x-page": "7"})
        case "coded":
            raise Coded(7)
        case "noted":
            exc = KeyError("page")
            exc.add_note("it was torn out")
            raise exc
        case "unknown":
            local = type("LocalError", (Exception,), {})
            raise local("nobody knows it")
        case "exit":
            sys.exit(3)
        case "cancelled":
            raise asyncio.CancelledError
    raise ExceptionGroup("two", [ValueError("one"), Coded(2)])


async def answer_wrongly() -> int:
    return "no number"  # type: ignore[return-value]


async def fan_out() -> int:
    async def child(number: int) -> int:
        try:
            await asyncio.sleep(60 if number else 0.01)
        finally:
            note(f"child {number} ended")
        raise HTTPException(409, "a child")

    tg = current_job().task_group
    tg.create_background_task(child(1))
    await tg.create_task(child(0))
    return 0


async def left_seconds() -> float | None:
    return current_job().time_left


class Functions:
    """Jobs of one engine, all under short names."""

    def __init__(self, url: str, name: str, **options: Any) -> None:
        # Worker and client of a test share one event loop, on a machine that may be busy.
        self.jobs = Jobs(url, name=name, **{"timeout": 10.0, "lease": 20.0, **options})
        job = self.jobs.job
        self.double = job(name="double")(double)
        self.echo = job(name="echo")(echo)
        self.bind = job(name="bind")(bind)
        self.sleep = job(name="sleep")(sleep)
        self.sleep_again = job(name="sleep again", idempotent=True)(sleep)
        self.sleep_shortly = job(name="sleep shortly", timeout=0.1)(sleep)
        self.fail_twice = job(name="fail twice", restart=AT_ONCE)(fail_twice)
        self.fail_as_told = job(name="fail as told", restart=AT_ONCE, max_attempts=2)(fail_as_told)
        self.kill_its_worker = job(name="kill its worker", max_attempts=2)(kill_its_worker)
        self.do_once = job(name="do once", restart=AT_ONCE, max_attempts=20)(do_once)
        self.track = job(name="track")(track)
        self.swallow = job(name="swallow")(swallow)
        self.stay = job(name="stay")(stay)
        self.fail_at_the_end = job(name="fail at the end")(fail_at_the_end)
        self.fail = job(name="fail")(fail)
        self.answer_wrongly = job(name="answer wrongly")(answer_wrongly)
        self.fan_out = job(name="fan out")(fan_out)
        self.left_seconds = job(name="left seconds", timeout=30)(left_seconds)

        async def call(seconds: float) -> str:
            return await self.sleep.remote(seconds)

        async def call_left() -> float | None:
            return await self.left_seconds.remote()

        async def branch(name: str, seconds: float) -> None:
            leaf = self.track.remote(f"{name}/leaf", seconds)
            current_job().task_group.create_task(leaf)
            await track(name, seconds)

        self.branch = job(name="branch")(branch)
        self.call = job(name="call")(call)
        self.call_left = job(name="call left", timeout=5)(call_left)


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something, with a bound that is far away."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
