"""One look at one target."""

from __future__ import annotations

import asyncio
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Literal
from uuid import uuid4

import httpx
from pydantic import BaseModel, ConfigDict, Field

from example_app.targets import Target

MAX_BYTES = 256 * 1024
MAX_REDIRECTS = 3
DEFAULT_PORTS = {"http": 80, "https": 443}


class Result(BaseModel):
    """What a probe has seen.

    Attributes:
        id: Unique, so that recording a result twice does no harm.
        target: The name of the target.
        at: When the probe began, in seconds since 1970.
        state: What this probe found: the target is up, up but slow, or down.
        seconds: How long it took to answer, or to fail.
        status: The HTTP status of the answer, if there was one.
        error: Why the target counts as down; empty if it doesn't.
    """

    model_config = ConfigDict(frozen=True)

    id: str = Field(default_factory=lambda: uuid4().hex)
    target: str
    at: float
    state: Literal["up", "slow", "down"]
    seconds: float
    status: int | None = None
    error: str = ""


class ProbeError(Exception):
    """The target answered, but not in a way that counts as up."""


def new_client(transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """Return the client for probes: no proxies, no redirects by itself, few connections.

    It keeps no cookies: those of one target would be sent to others, as a host has the same ones at
    each of its ports.
    """
    return httpx.AsyncClient(
        transport=transport,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={"User-Agent": "status-board", "Accept-Encoding": "identity"},
        follow_redirects=False,
        limits=httpx.Limits(max_connections=50, max_keepalive_connections=10),
        timeout=None,  # `probe` has one deadline for everything  # noqa: S113
        trust_env=False,
    )


async def probe(client: httpx.AsyncClient, target: Target) -> Result:
    """Fetch the target once. Whatever is wrong with it is in the result, not raised."""
    at, start = time.time(), time.perf_counter()
    status, error = None, ""
    try:
        async with asyncio.timeout(target.timeout):
            status = await _fetch(client, httpx.URL(target.url))
    except TimeoutError:
        error = f"no answer within {target.timeout:g} s"
    except (ProbeError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
        error = _printable(str(exc)) or type(exc).__name__
    seconds = time.perf_counter() - start
    if status is not None and status >= 400:
        error = f"answered with status {status}"
    state: Literal["up", "slow", "down"] = (
        "down" if error else "slow" if seconds > target.slow_after else "up"
    )
    return Result(
        target=target.name, at=at, state=state, seconds=seconds, status=status, error=error[:300]
    )


def _printable(text: str) -> str:
    """Return text without what a terminal or a page would obey: a target may be in it."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


async def _fetch(client: httpx.AsyncClient, url: httpx.URL) -> int:
    """Return the status of the answer, after redirects on the same host and a bounded read."""
    request = client.build_request("GET", url)
    for _ in range(MAX_REDIRECTS + 1):
        response = await client.send(request, stream=True)
        try:
            if response.next_request is None:
                await _read_some(response)
                return response.status_code
        finally:
            await response.aclose()
        request = response.next_request
        if not _same_place(url, request.url):
            msg = f"redirects to another host, not followed: {request.url}"
            raise ProbeError(msg)
    msg = f"redirects more than {MAX_REDIRECTS} times"
    raise ProbeError(msg)


async def _read_some(response: httpx.Response) -> None:
    """Read an answer to its end, or to the byte from which on it doesn't matter."""
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size >= MAX_BYTES:
            break


def _same_place(configured: httpx.URL, url: httpx.URL) -> bool:
    """Tell whether a redirect stays where the configuration points, or only turns on TLS there.

    Another port is another service: following it would let a target point the board at anything
    that runs beside it.
    """
    if url.host != configured.host or url.scheme not in DEFAULT_PORTS:
        return False
    if (url.scheme, _port(url)) == (configured.scheme, _port(configured)):
        return True
    return configured.scheme == "http" and _port(configured) == 80 and _port(url) == 443


def _port(url: httpx.URL) -> int:
    return url.port or DEFAULT_PORTS[url.scheme]
