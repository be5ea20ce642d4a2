"""The arguments of a pump, and those that are refused."""

import asyncio

import pytest

from quattro_web import Pump, RestartPolicy


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("name", ["on_failure", "on_return"])
def test_unknown_policy(name: str) -> None:
    """A3: A policy that does not exist is an error that names those that do."""
    with pytest.raises(
        ValueError, match=f"{name} must be one of 'stop', 'restart', '.*', got 'no'"
    ):
        Pump(forever, **{name: "no"})  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_bad_ready_timeout(seconds: float) -> None:
    """A2: A time-out that is no time is an error that names it."""
    with pytest.raises(ValueError, match="ready_timeout must be a positive number"):
        Pump(forever, ready_timeout=seconds)


def test_restart_that_is_no_policy() -> None:
    """A3: A number instead of a RestartPolicy is an error that names the argument."""
    with pytest.raises(TypeError, match="restart must be a RestartPolicy or None, got 5"):
        Pump(forever, restart=5)  # type: ignore[arg-type]


def test_restart_that_is_never_used() -> None:
    """A3: A RestartPolicy of a pump that is never restarted is an error that names the way out."""
    needs = r'restart=RestartPolicy\(.*\) needs on_failure="restart" or on_return="restart"'
    for options in ({}, {"on_failure": "ignore", "on_return": "ok"}):
        with pytest.raises(ValueError, match=needs):
            Pump(forever, restart=RestartPolicy(), **options)  # type: ignore[arg-type]
    assert Pump(forever, on_return="restart", restart=RestartPolicy()).on_failure == "stop"


@pytest.mark.parametrize("once", [True, "lock", object])
def test_once_that_is_no_lock(once: object) -> None:
    """A7: Something else than a lock is an error that names the argument and a lock."""
    with pytest.raises(TypeError, match=r"once must be a lock such as FileLock\(\), got"):
        Pump(forever, once=once)  # type: ignore[arg-type]


def test_lease_without_a_lock() -> None:
    """A7: A pump that takes a lease but has no lock is an error."""

    async def pump(*, lease: object) -> None: ...

    with pytest.raises(TypeError, match=r"pump .*pump takes a lease, which only a pump with once="):
        Pump(pump)
