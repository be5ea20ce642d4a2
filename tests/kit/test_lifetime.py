"""The life of an app under the testing kit: its shutdown, its pumps and its work."""

import asyncio
import signal
import threading

import pytest
from fastapi import FastAPI

from quattro_core import TaskGroup
from quattro_web import Pump, ShutdownGrace, install
from quattro_web.fastapi import (
    AppTaskGroup,
    RequestTaskGroup,
    ShutdownEvent,
    get_app_task_group,
    get_request_task_group,
    get_shutdown_event,
)
from quattro_web.testing import AppClient, advance
from tests.kit.running import visit

# What a shutdown would end the process after, if this were a server.
SHORT = ShutdownGrace(requests=1, tasks=1, pumps=1, resources=0)


def app_of(*pumps: Pump, grace: ShutdownGrace | None = None) -> tuple[FastAPI, list[str]]:
    log: list[str] = []
    app = FastAPI()

    @app.get("/told")
    async def told(shutdown: ShutdownEvent) -> str:
        await shutdown.wait()
        return "goodbye"

    @app.get("/deaf")
    async def deaf() -> str:
        try:
            await asyncio.sleep(3600)
        finally:
            log.append(f"cut after {asyncio.get_running_loop().time():.0f} s")
        return "late"

    @app.post("/mail")
    async def mail(seconds: int, group: AppTaskGroup) -> None:
        group.create_task(write(seconds))

    async def write(seconds: int) -> None:
        await asyncio.sleep(abs(seconds))
        if seconds < 0:
            raise ZeroDivisionError
        log.append("mail")

    install(app, pumps=pumps, shutdown_grace=grace)
    return app, log


def test_shutdown_is_told_at_once() -> None:
    """A6: A request that waits for the shutdown ends by itself when the test announces one."""
    app, _ = app_of()

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", "/told")
        await advance(1)
        client.begin_shutdown()
        assert (await exchange.response()).json() == "goodbye"
        assert client.health.is_shutting_down
        assert not client.health.is_ready

    visit(app, test)


def test_shutdown_within_its_grace() -> None:
    """A6: What does not end is cut after its grace; no process is ended, and no signal is taken."""
    app, log = app_of(grace=SHORT)
    handler = signal.getsignal(signal.SIGTERM)
    before = threading.enumerate()  # the watchdogs of other tests count until their time is over

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", "/deaf")
        await advance(1)
        await client.shut_down()
        assert (await exchange.response()).status_code == 503
        assert signal.getsignal(signal.SIGTERM) is handler
        assert [thread for thread in threading.enumerate() if thread not in before] == []

    visit(app, test)
    assert log == ["cut after 2 s"]


def test_shutdown_that_was_announced_has_its_grace() -> None:
    """A6: A shutdown that was announced before it is awaited is not hurried by that."""
    app, log = app_of(grace=SHORT)

    async def test(client: AppClient) -> None:
        client.start("GET", "/deaf")
        client.begin_shutdown()
        await advance(0.2)
        await client.shut_down()

    visit(app, test, raise_app_exceptions=False)
    assert log == ["cut after 1 s"]


def test_second_signal_hurries() -> None:
    """A6: A second call hurries, as a second signal does."""
    app, log = app_of()

    async def test(client: AppClient) -> None:
        client.start("GET", "/deaf")
        await advance(1)
        client.begin_shutdown()
        client.begin_shutdown()
        await client.shut_down()

    visit(app, test, raise_app_exceptions=False)
    assert log == ["cut after 1 s"]


def test_work_is_waited_for() -> None:
    """A5: Work that was handed over can be waited for, and is awaited at the end of the block."""
    app, log = app_of()

    async def test(client: AppClient) -> None:
        assert (await client.post("/mail?seconds=3")).status_code == 200
        assert log == []
        assert client.health.tasks == 1
        await client.wait_work_done()
        assert log == ["mail"]
        await client.post("/mail?seconds=3")

    visit(app, test)
    assert log == ["mail", "mail"]


def test_work_of_the_tests_own(caplog: pytest.LogCaptureFixture) -> None:
    """A5: A test may hand work over as a handler does; the log names it as where it came from."""
    app, log = app_of()

    async def fail() -> None:
        raise ZeroDivisionError

    async def mail(group: AppTaskGroup, more: int = 1) -> None:
        await asyncio.sleep(3)
        log.append("mail")
        if more:
            group.create_task(mail(group, more - 1))

    async def test(client: AppClient) -> None:
        client.app_task_group.create_task(mail(client.app_task_group))
        client.app_task_group.create_task(fail())
        await client.wait_work_done()
        assert log == ["mail", "mail"]  # what work hands over is work

    visit(app, test, raise_app_exceptions=False)
    assert "handed over by the test, failed" in caplog.text


@pytest.mark.parametrize("waits", [True, False])
def test_failed_work_is_raised(waits: bool) -> None:
    """A5: A failure of handed-over work is raised to the test, once."""
    app, _ = app_of()

    async def test(client: AppClient) -> None:
        await client.post("/mail?seconds=-1")
        if waits:
            with pytest.raises(ZeroDivisionError):
                await client.wait_work_done()
        else:
            await advance(2)

    if waits:
        visit(app, test)
    else:
        with pytest.raises(ZeroDivisionError):
            visit(app, test)


def test_failed_work_may_be_let_go() -> None:
    """A5: Without raise_app_exceptions a failure of handed-over work is in the log alone."""
    app, _ = app_of()

    async def test(client: AppClient) -> None:
        await client.post("/mail?seconds=-1")
        await client.wait_work_done()
        await client.post("/mail?seconds=-1")

    visit(app, test, raise_app_exceptions=False)


def test_overrides() -> None:
    """R1: What FastAPI's parameters stand for can be replaced by ``dependency_overrides``."""
    app = FastAPI()
    seen: list[object] = []

    @app.get("/")
    async def handler(tg: RequestTaskGroup, group: AppTaskGroup, event: ShutdownEvent) -> None:
        seen.extend([tg, group, event])

    install(app)
    mine = TaskGroup()
    app.dependency_overrides = {
        get_request_task_group: lambda: mine,
        get_app_task_group: lambda: "app",
        get_shutdown_event: lambda: "event",
    }

    async def test(client: AppClient) -> None:
        assert (await client.get("/")).status_code == 200

    visit(app, test)
    assert seen == [mine, "app", "event"]
