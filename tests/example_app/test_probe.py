"""One look at one target."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from example_app.probe import MAX_BYTES, Result, new_client, probe
from example_app.targets import Target
from tests.example_app.support import answer

pytestmark = pytest.mark.anyio

Web = Callable[[httpx.Request], httpx.Response]


async def look(web: Web, url: str = "http://a.test/", **options: float) -> Result:
    async with new_client(httpx.MockTransport(web)) as client:
        return await probe(client, Target.model_validate({"name": "a", "url": url, **options}))


class Redirects:
    """A web in which one address redirects to another, and every other one answers."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if request.url.path == "/from":
            return answer(302, Location=self.location)
        return answer(200)


async def test_a_good_answer_is_up() -> None:
    """A target that answers in time is up, with its status and how long it took."""
    result = await look(lambda _: answer(204))
    assert (result.target, result.state, result.status, result.error) == ("a", "up", 204, "")
    assert result.seconds > 0


async def test_a_late_answer_is_slow() -> None:
    """An answer after `slow_after` is up, but slow."""
    result = await look(lambda _: answer(200), slow_after=1e-9)
    assert result.state == "slow"


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_an_error_status_is_down(status: int) -> None:
    """An answer with an error status is down, and says so."""
    result = await look(lambda _: answer(status))
    assert (result.state, result.status) == ("down", status)
    assert result.error == f"answered with status {status}"


async def test_no_answer_in_time_is_down() -> None:
    """The deadline of the target ends the probe."""

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            never: asyncio.Future[httpx.Response] = asyncio.get_running_loop().create_future()
            return await never

    async with new_client(Silent()) as client:
        target = Target(name="a", url="http://a.test/", timeout=0.01)
        # A task of its own: coverage on 3.11 loses track of the frames that a cancellation crosses.
        result = await asyncio.create_task(probe(client, target))
    assert (result.state, result.status) == ("down", None)
    assert result.error == "no answer within 0.01 s"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (httpx.ConnectError("refused"), "refused"),
        (httpx.ReadError(""), "ReadError"),
        (OSError("x" * 1000), "x" * 300),
        (UnicodeError("label empty"), "label empty"),
    ],
)
async def test_whatever_fails_is_a_result(error: Exception, text: str) -> None:
    """A failure of the target never is one of the prober; what is said about it is bounded."""

    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    result = await look(fail)
    assert (result.state, result.error) == ("down", text)


@pytest.mark.parametrize(
    ("url", "location", "end"),
    [
        ("http://a.test/from", "/to", "http://a.test/to"),
        ("http://a.test/from", "http://A.test:80/to", "http://a.test/to"),
        ("http://a.test/from", "https://a.test/to", "https://a.test/to"),
        ("http://a.test:81/from", "/to", "http://a.test:81/to"),
    ],
)
async def test_a_redirect_on_the_host_is_followed(url: str, location: str, end: str) -> None:
    """Redirects that stay where the configuration points, or turn on TLS there, are followed."""
    web = Redirects(location)
    assert (await look(web, url)).state == "up"
    assert web.asked == [url, end]


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("http://a.test/from", "http://b.test/"),
        ("http://a.test/from", "http://169.254.169.254/latest/meta-data"),
        ("http://a.test/from", "//b.test/"),
        ("http://a.test/from", "http://a.test.b.test/"),
        ("http://a.test/from", "http://a.test:6379/"),
        ("http://a.test:81/from", "https://a.test/"),
        ("https://a.test/from", "http://a.test/"),
        ("http://a.test/from", "ftp://a.test/"),
    ],
)
async def test_a_redirect_elsewhere_is_not_followed(url: str, location: str) -> None:
    """Another host or port, no TLS any more, or another scheme: never asked, and down."""
    web = Redirects(location)
    result = await look(web, url)
    assert result.state == "down"
    assert "redirect" in result.error
    assert web.asked == [url]


async def test_redirects_end() -> None:
    """A target that redirects in a circle is down, after a few requests."""
    web = Redirects("/from")
    result = await look(web, "http://a.test/from")
    assert (result.state, result.error) == ("down", "redirects more than 3 times")
    assert len(web.asked) == 4


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    """No more of an answer is read than a bounded number of bytes."""
    size = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal size
        while True:
            size += 4096
            yield b"x" * 4096

    assert (await look(lambda _: httpx.Response(200, content=endless()))).state == "up"
    assert size <= MAX_BYTES + 4096


async def test_a_short_answer_is_read_to_its_end() -> None:
    """The time of a probe is that of the whole answer."""
    read = []

    async def short() -> AsyncIterator[bytes]:
        yield b"x"
        read.append("all")

    await look(lambda _: httpx.Response(200, content=short()))
    assert read == ["all"]


async def test_cookies_are_not_kept() -> None:
    """What one target sets is sent to no other, though it is on the same host."""
    seen: list[str | None] = []

    def web(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Cookie"))
        if request.url.path == "/":
            return answer(302, Location="/next", **{"Set-Cookie": "session=secret; Path=/"})
        return answer(200, **{"Set-Cookie": "other=secret; Path=/"})

    async with new_client(httpx.MockTransport(web)) as client:
        for url in ("http://a.test:1/", "http://a.test:2/", "http://a.test:1/"):
            await probe(client, Target(name="a", url=url))
    assert seen == [None] * 6


async def test_errors_are_printable() -> None:
    """What a target has sent gets into an error without what a terminal or a page would obey."""

    def web(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("no \x1b[31mgood\n\u202ereason")

    assert (await look(web)).error == "no \ufffd[31mgood\ufffd\ufffdreason"
