"""Messages that are signed, pickles among them: what is not signed as it has to be runs nothing."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import pickle
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from redis.asyncio import Redis

from quattro_web._jobs.engine import Submission
from quattro_web._jobs.signing import CALL, KEPT, OUTCOME, Signer
from quattro_web._jobs.wire import frame
from quattro_web.jobs import BadSignatureError, Jobs, UnknownJobError
from tests.jobs.functions import Coded, Functions, log, note, until
from tests.jobs.test_children import running, working
from tests.jobs.test_untrusted import Evil, message

KEY, OTHER = "k" * 32, b"o" * 32
EVIL = pickle.dumps(((Evil(),), {}))


class Shape:
    """What JSON can't carry."""

    def __init__(self, corners: frozenset[complex]) -> None:
        self.corners = corners


class Unpicklable:
    def __reduce__(self) -> Any:
        raise LookupError("it stays here")


async def turn(shape: Shape, by: complex = 1j) -> Shape:
    return Shape(frozenset(corner * by for corner in shape.corners))


async def record(what: Any) -> None:
    note(f"recorded {what}")


class Signed(Functions):
    """Jobs whose messages are signed, and are pickles."""

    def __init__(self, url: str, name: str, key: Any = KEY, **options: Any) -> None:
        super().__init__(url, name, signing_key=key, **{"pickle": True, **options})
        self.turn = self.jobs.job(name="turn")(turn)
        self.record = self.jobs.job(name="record", max_attempts=1)(record)
        self.other = self.jobs.job(name="other", max_attempts=1)(record)


def test_pickles_carry_anything(url: str, name: str) -> None:
    """D1: On request, arguments and results travel as pickles, and errors as ever."""

    async def scene() -> None:
        f = Signed(url, name)
        async with running(f):
            turned = await f.turn.remote(Shape(frozenset({1, 1j})), by=-1)
            assert turned.corners == {-1, -1j}
            assert await f.double.remote(4) == 8
            with pytest.raises(Coded, match="code 7"):
                await f.fail.remote("coded")
            with pytest.raises(TypeError, match="shape"):
                await f.turn.remote()  # type: ignore[call-arg]
            await f.jobs.hand_over(f.record.call(frozenset({1j})))
            await until(lambda: log == ["recorded frozenset({1j})"])

    asyncio.run(scene())


def test_what_has_no_pickle(url: str, name: str) -> None:
    """D3: An argument or a result that can't be pickled is a ValueError that says why."""

    async def scene() -> None:
        f = Signed(url, name)

        @f.jobs.job(name="make")
        async def make() -> Unpicklable:
            return Unpicklable()

        async with running(f):
            for coro in (f.record.remote(Unpicklable()), make.remote()):
                with pytest.raises(ValueError, match=r"can't be pickled.*it stays here"):
                    await coro

    asyncio.run(scene())


def test_class_of_another_release(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch, errors: list[logging.LogRecord]
) -> None:
    """D3: A pickle whose class is not there is an error of the request, and the worker goes on."""

    async def scene() -> None:
        f = Signed(url, name)
        shape = pickle.dumps(((Shape(frozenset()),), {}))
        with monkeypatch.context() as patch:
            patch.setattr(f.record.types, "dump_arguments", lambda *_: shape)
            patch.delattr(f"{__name__}.Shape")
            async with running(f):
                with pytest.raises(AttributeError, match="Shape"):
                    await f.record.remote(1)
                patch.setattr(f.record.types, "load_arguments", lambda *_: ((1,), {}))
                patch.setattr(f.record.types, "dump_result", lambda *_: shape)
                with pytest.raises(ValueError, match=r"it can't be unpickled.*Shape"):
                    await f.record.remote(1)
                assert await f.double.remote(1) == 2
        assert log == ["recorded 1"]
        assert not errors

    asyncio.run(scene())


@pytest.mark.parametrize("of_web", [True, False])
def test_pickle_for_one_alone(url: str, name: str, of_web: bool) -> None:
    """D3: Where only one of web and worker has pickles, that is an error that says so."""

    async def scene() -> None:
        web, worker = (
            Functions(url, name, signing_key=KEY, pickle=each) for each in (of_web, not of_web)
        )
        async with web.jobs.open(), working(worker):
            with pytest.raises(UnknownJobError, match="another version of double"):
                await web.double.remote(1)

    asyncio.run(scene())


def test_a_signature_is_for_one_message() -> None:
    """D3: A signature is over the kind of a message, the name of the jobs, the key of the call and
    the job, each with its end, and over all that it says."""
    signer = Signer([KEY.encode()], "jobs")
    signed = signer.signed(CALL, "a:1", "render", b"[1]\n[2]")
    assert signer.opened(CALL, "a:1", "render", signed) == b"[1]\n[2]"
    for kind, key, job in (
        (OUTCOME, "a:1", "render"),
        (CALL, "a:2", "render"),
        (CALL, "a:1", "delete"),
        (CALL, "a:1r", "ender"),
    ):
        with pytest.raises(BadSignatureError, match=f"the {kind} of {job} is not signed"):
            signer.opened(kind, key, job, signed)
    for other in (Signer([KEY.encode()], "other"), Signer([OTHER], "jobs")):
        with pytest.raises(BadSignatureError):
            other.opened(CALL, "a:1", "render", signed)
    for bad in (signed + b" ", signed.partition(b"\n")[2], b"", signed[1:], b"\n" + signed):
        with pytest.raises(BadSignatureError):
            signer.opened(CALL, "a:1", "render", bad)


def forged(job: str, key: str, kind: str, name: str) -> bytes:
    """Return an evil pickle that somebody without the key has made."""
    header = {"owner": "", "kept": True, "deadline": None, "version": "", "at": 0}
    data = frame(header, EVIL)
    if kind == "unsigned":
        return data
    if kind == "wrongly signed":
        return Signer([OTHER], name).signed(CALL, key, job, data)
    if kind == "empty key":
        return b"signed " + hmac.new(b"", data, hashlib.sha256).hexdigest().encode() + b"\n" + data
    return b"signed \n" + data


@pytest.mark.parametrize("kind", ["unsigned", "wrongly signed", "empty key", "empty signature"])
@pytest.mark.parametrize("key", ["kept:record:1", "a:1"])
def test_forged_calls_are_refused(
    redis: str, name: str, kind: str, key: str, errors: list[logging.LogRecord]
) -> None:
    """D3: A pickle that somebody has written to Redis is not unpickled, and named in the log."""

    async def scene() -> None:
        f = Signed(redis, name)
        async with Redis.from_url(redis) as client, running(f):
            args = pickle.dumps((forged("record", key, kind, name),))
            fields: Any = message(key=key.encode(), function=b"record", args=args, generation=b"0")
            await client.xadd(f"{name}:stream", fields)
            said = "the call of record is not signed"
            await until(lambda: any(said in e.getMessage() for e in errors))
            assert await f.double.remote(1) == 2
            assert log == []

    asyncio.run(scene())


def test_calls_are_not_taken_for_others(
    redis: str, name: str, errors: list[logging.LogRecord]
) -> None:
    """D3: What was signed for one call of one job is refused as another call, or of another job."""

    async def scene() -> None:
        f = Signed(redis, name)
        call = f.record.call("once")
        header = {"owner": "", "kept": True, "version": call.version}
        key = "kept:record:1"
        payload = f.jobs._signer.signed(CALL, key, "record", frame(header, call.arguments))
        async with running(f), f.jobs._engine.connect() as connection:
            await connection.submit(
                [
                    Submission("kept:record:2", "record", payload),
                    Submission("kept:other:1", "other", payload),
                ]
            )
            await until(lambda: sum("a call was rejected" in e.getMessage() for e in errors) == 2)
            assert log == []
            await connection.submit([Submission(key, "record", payload)])
            await until(lambda: log == ["recorded once"])

    asyncio.run(scene())


def test_forged_outcome_is_refused(redis: str, name: str, errors: list[logging.LogRecord]) -> None:
    """D3: An outcome that somebody has written to Redis is an error, and is not unpickled."""

    async def scene() -> None:
        f = Signed(redis, name, lease=60.0)
        async with Redis.from_url(redis) as client, f.jobs.open():
            task = asyncio.create_task(f.double.remote(1))
            await until(lambda: bool(f.jobs.client("double")._calls))
            (call,) = f.jobs.client("double")._calls.values()
            await until(lambda: call.is_submitted)
            outcome = frame({"ok": True, "worker": "w"}, pickle.dumps(Evil()))
            await client.set(f"{name}:outcome:{call.key}", outcome)
            state = json.dumps({"type": "state", "state": "completed"})
            await client.publish(f"{name}:state:{call.key}", state)
            with pytest.raises(BadSignatureError, match="the outcome of double is not signed"):
                await task
        assert log == []
        assert any("the result of a job was rejected" in e.getMessage() for e in errors)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("of_web", "of_worker"), [(KEY, OTHER), (KEY, None), (None, KEY)], ids=["two", "web", "worker"]
)
def test_keys_that_differ(
    url: str, name: str, of_web: Any, of_worker: Any, errors: list[logging.LogRecord]
) -> None:
    """D3: Web and worker that do not share a key refuse each other, and both say so."""

    async def scene() -> None:
        web = Functions(url, name, signing_key=of_web)
        worker = Functions(url, name, signing_key=of_worker)
        async with web.jobs.open(), working(worker):
            with pytest.raises(BadSignatureError, match="sign"):
                await web.double.remote(1)
        assert len([e for e in errors if "was rejected" in e.getMessage()]) >= 1

    asyncio.run(scene())


def test_key_is_changed(url: str, name: str) -> None:
    """D3: While a key is changed, those who sign with the old and with the new one share both."""

    async def scene() -> None:
        first, last = [KEY, OTHER], [OTHER, KEY]
        for of_web, of_worker in ((KEY, first), (last, first), (first, last), (OTHER, last)):
            web, worker = (Functions(url, name, signing_key=each) for each in (of_web, of_worker))
            async with web.jobs.open(), working(worker):
                assert await web.double.remote(1) == 2

    asyncio.run(scene())


def test_refused_work_is_not_lost(url: str, name: str, errors: list[logging.LogRecord]) -> None:
    """D4: What was handed over with another key is kept, told, and done when the key is known."""

    async def scene() -> None:
        web, worker, both = (Signed(url, name, key) for key in (KEY, OTHER, [OTHER, KEY]))
        async with web.jobs.open(), working(worker):
            key = await web.jobs.hand_over(web.record.call("late"), key="7")
            await until(lambda: bool(worker.jobs.failures))
        async with both.jobs.open(), working(both):
            failed = await both.jobs.failed()
            assert [each.key for each in failed] == [key]
            assert "BadSignatureError" in failed[0].error
            assert log == []
            await both.jobs.start_again(key)
            await until(lambda: log == ["recorded late"])

    asyncio.run(scene())


def test_forged_failures_are_refused(url: str, name: str, errors: list[logging.LogRecord]) -> None:
    """D3: What somebody has put among the failures that were kept is neither shown nor begun."""

    async def scene() -> None:
        f = Signed(url, name)
        key = "kept:record:1"
        data = frame({"job": "record", "at": 0}, forged("record", key, "unsigned", name))
        async with running(f), f.jobs._engine.connect() as connection:
            await connection.settle(key, data)
            assert await f.jobs.failed() == []
            assert "the kept call of kept:record:1 was rejected" in errors[-1].getMessage()
            with pytest.raises(BadSignatureError):
                await f.jobs.start_again(key)
            signed = Signer([KEY.encode()], name).signed(KEPT, key, "", data)
            await connection.settle(key, signed)
            await f.jobs.start_again(key)  # its call is refused all the same
            await until(lambda: any("a call was rejected" in e.getMessage() for e in errors))
        assert log == []

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"signing_key": "s3cret"}, "at least 32 bytes, got 6"),
        ({"signing_key": [KEY, b"s3cret"]}, "at least 32 bytes, got 6"),
        ({"signing_key": []}, "got none"),
        ({"signing_key": [7]}, "must be bytes or a str, or several of them, got <class 'int'>"),
        ({"pickle": True}, "pickle=True needs a signing_key"),
    ],
)
def test_bad_keys(options: dict[str, Any], error: str) -> None:
    """O3: A key that is none is an error that names the option, and does not show the key."""
    with pytest.raises((TypeError, ValueError), match=error) as caught:
        Jobs("memory://", **options)
    assert "signing_key" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_key_is_not_shown() -> None:
    """O3: No key is in the text of an object that has it."""
    jobs = Jobs("memory://", signing_key=KEY)
    job = jobs.job(name="record")(record)
    assert KEY not in repr(jobs) + repr(jobs._signer) + repr(job) + repr(job.call(1))
    assert KEY.encode() not in job.call(1).arguments
