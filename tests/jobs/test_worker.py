"""What a worker makes of a call that is cancelled, on an engine that answers as a test wants."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from quattro_web._jobs.engine import Delivery, HandedBackError, Renewal
from quattro_web._jobs.wire import frame, is_failure
from quattro_web._jobs.worker import _OUT_OF_REACH, _SHUT_DOWN, JobWorker
from quattro_web.jobs import current_job
from tests.jobs.functions import Functions
from tests.support.asgi import run


class Settled:
    """A connection that knows of nothing that is over."""

    async def is_settled(self, key: str) -> bool:
        return False

    async def renew(self, names: Any, seconds: Any, others: Any) -> Renewal:
        await asyncio.sleep(0)
        return Renewal(frozenset(others), 0.0)


def make(functions: Functions, engine: Any) -> JobWorker:
    worker = JobWorker(
        engine,
        functions.jobs._jobs,
        concurrency=1,
        lease=60.0,
        timeout=1.0,
        max_size=1000,
        grace=1.0,
        clean_up=1.0,
        state={},
    )
    worker._connection = engine
    return worker


def test_call_that_comes_late() -> None:
    """D3, D4: A job that comes when its worker shuts down already is another one's."""

    async def scene() -> None:
        f = Functions("memory://", "late")
        worker = make(f, Settled())
        worker._is_ending = True
        with pytest.raises(HandedBackError):
            await worker._run(Delivery("a:1", "double", frame({"owner": "a"}, b"[]"), 1))

    asyncio.run(scene())


@pytest.mark.parametrize("reason", [_SHUT_DOWN, _OUT_OF_REACH])
@pytest.mark.parametrize("is_kept", [True, False])
def test_cancelled_before_its_first_step(reason: str, is_kept: bool) -> None:
    """D3, D4: A job that a worker has to cancel at the moment when it begins is handed back if it
    was handed over, and else an error of its request: it is not lost."""

    async def scene() -> None:
        f = Functions("memory://", "steps")
        worker = make(f, Settled())
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            for call in worker._runs.values():
                call.cancel(reason)

        def make_task(loop: Any, coro: Any, **options: Any) -> Any:
            loop.call_soon(cancel)
            return asyncio.Task(coro, loop=loop, **options)

        loop.set_task_factory(make_task)
        header = {"owner": "", "kept": True} if is_kept else {"owner": "a"}
        arguments = f.sleep.types.dump_arguments((60,), {})
        running = worker._run(Delivery("kept:1", "sleep", frame(header, arguments), 1))
        if is_kept:
            with pytest.raises(HandedBackError):
                await running
        else:
            assert is_failure(await running)

    asyncio.run(scene())


@pytest.mark.parametrize("cut", ["by a child that fails", "by its timeout"])
def test_clean_up_is_cut_by_nothing_of_its_own(cut: str) -> None:
    """D1: The clean-up of a job that was cancelled is not cut by a child of the job that fails
    meanwhile, nor by the timeout of the job."""
    log: list[str] = []
    f = Functions("memory://", "cuts")

    async def fail() -> None:
        await asyncio.sleep(4.5)
        raise ZeroDivisionError

    @f.jobs.job(name="clean", timeout=5)
    async def clean() -> None:
        if cut == "by a child that fails":
            current_job().task_group.create_task(fail())
        try:
            await asyncio.sleep(60)
        finally:
            log.append("cancelled")
            await asyncio.sleep(2)
            log.append("cleaned up")

    async def scene() -> None:
        worker = make(f, Settled())
        call = frame({"owner": "a"}, clean.types.dump_arguments((), {}))
        running = asyncio.create_task(worker._run(Delivery("a:1", "clean", call, 1)))
        await asyncio.sleep(4)
        running.cancel()
        await asyncio.wait((running,))
        assert running.cancelled()
        assert asyncio.get_running_loop().time() == 6

    run(scene())
    assert log == ["cancelled", "cleaned up"]


def test_job_that_cancels_its_own_group() -> None:
    """D3: A job that cancels its own task group has no result, and says so."""
    f = Functions("memory://", "own")

    @f.jobs.job(name="own")
    async def own() -> None:
        current_job().task_group.cancel()
        await asyncio.sleep(60)

    async def scene() -> None:
        worker = make(f, Settled())
        call = frame({"owner": "a"}, own.types.dump_arguments((), {}))
        outcome = await worker._run(Delivery("a:1", "own", call, 1))
        assert is_failure(outcome)
        assert b"own has cancelled its task group before it had a result" in outcome

    run(scene())
