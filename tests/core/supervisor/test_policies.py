"""The policies that a supervisor takes, and those that it refuses."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from quattro_core import RestartPolicy, Supervisor
from tests.core.supervisor.flaky import Flaky


@pytest.mark.parametrize("name", ["on_failure", "on_return"])
def test_unknown_policy(name: str) -> None:
    """A3: A policy that does not exist is an error that names those that do."""
    with pytest.raises(ValueError, match=f"{name} must be one of 'stop', 'restart', .*got 'never'"):
        Supervisor(Flaky(), **{name: "never"})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["base", "ceiling", "reset_after", "within"])
@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
def test_bad_seconds(name: str, value: float) -> None:
    """A3: A time that is none is an error that names it."""
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds .*got {value!r}"):
        RestartPolicy(**{name: value})  # type: ignore[arg-type]


def test_no_time_to_count_in() -> None:
    """A3: A window of no time would be no limit: it is an error that says how to have none."""
    with pytest.raises(ValueError, match=r"within must be more than 0.*max_restarts=None"):
        RestartPolicy(max_restarts=2, within=0)


def test_seconds_of_a_wrong_type() -> None:
    """A3: What is no number is an error that names it."""
    for value in (True, "1", None):
        with pytest.raises(TypeError, match="base must be a number of seconds, got"):
            RestartPolicy(base=value)  # type: ignore[arg-type]


def test_bad_limit() -> None:
    """A3: A limit that is none is an error that names it, and so is a base above the ceiling."""
    with pytest.raises(ValueError, match="max_restarts must not be negative, got -1"):
        RestartPolicy(max_restarts=-1)
    for value in (1.5, True):
        with pytest.raises(TypeError, match=f"max_restarts must be an int or None, got {value}"):
            RestartPolicy(max_restarts=value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"base must be at most the ceiling of 30\.0 .*got 31"):
        RestartPolicy(base=31)


def test_policy_is_a_value() -> None:
    """A3: A policy has the limits that the reference shows, by name alone, and does not change:
    several pumps may share one."""
    policy = RestartPolicy()
    said = RestartPolicy(base=0.5, ceiling=30, reset_after=60, max_restarts=10, within=300)
    assert policy == said
    with pytest.raises(AttributeError):
        policy.base = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        RestartPolicy(1)  # type: ignore[call-arg]


def test_jitter_is_full() -> None:
    """A3: A delay is anything between nothing and its longest, and never more than the ceiling,
    however often it has failed."""
    policy = RestartPolicy(base=1, ceiling=8)
    uniform = random.Random(1).uniform
    delays = [policy.delay(2, uniform=uniform) for _ in range(1000)]
    assert 0 <= min(delays) < 0.1
    assert 3.9 < max(delays) <= 4
    assert policy.delay(10**6, uniform=lambda _, high: high) == 8


NEVER_USED = (
    r"restart=RestartPolicy\(base=0\.25, .*\) "
    'needs on_failure="restart" or on_return="restart"'
)


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("restart", [5, True, "often"])
def test_restart_that_is_no_policy(restart: Any) -> None:
    """A3: Something else than a RestartPolicy is an error now, and not with the first failure."""
    with pytest.raises(
        TypeError, match=f"restart must be a RestartPolicy or None, got {restart!r}"
    ):
        Supervisor(forever, on_failure="restart", restart=restart)


@pytest.mark.parametrize("options", [{}, {"on_failure": "ignore", "on_return": "ok"}])
def test_restart_that_is_never_used(options: Any) -> None:
    """A3: A RestartPolicy of what is never restarted is an error that names the way out."""
    with pytest.raises(ValueError, match=NEVER_USED):
        Supervisor(forever, restart=RestartPolicy(base=0.25), **options)


@pytest.mark.parametrize("when", ["on_failure", "on_return"])
def test_restart_that_is_used(when: str) -> None:
    """A3: A RestartPolicy is for failures, for returns, or for both."""
    Supervisor(forever, restart=RestartPolicy(), **{when: "restart"})  # type: ignore[arg-type]
