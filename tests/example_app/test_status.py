"""How a target is, after its latest results."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from example_app.status import Status, status_of
from example_app.targets import Target
from tests.example_app.support import result

A = Target(name="a", url="http://a.test/")


@pytest.mark.parametrize(
    ("seen", "state", "failed"),
    [
        ([], "none", 0),
        (["up"], "up", 0),
        (["down", "slow"], "slow", 0),
        (["down"], "failing", 1),
        (["up", "down", "down"], "failing", 2),
        (["up", "down", "down", "down"], "down", 3),
        (["down"] * 9, "down", 9),
        (["down", "down", "up", "down"], "failing", 1),
        (["down", "down", "down", "up"], "up", 0),
    ],
)
def test_one_failure_is_not_yet_down(seen: list[str], state: str, failed: int) -> None:
    """A target is down after three failures in a row, and up after a single good check."""
    recent = [result(state=each) for each in seen]
    assert status_of(A, recent) == Status.model_validate({"state": state, "failed": failed})


def test_each_target_has_its_number() -> None:
    """How many failures it takes is up to the target, in bounds."""
    recent = [result(state="down")]
    assert status_of(A.model_copy(update={"failures": 1}), recent).state == "down"
    assert status_of(A.model_copy(update={"failures": 2}), recent).state == "failing"
    for number in (0, 21):
        with pytest.raises(ValidationError):
            Target(name="a", url="http://a.test/", failures=number)


def test_what_is_paused_is_paused() -> None:
    """A paused target is that, whatever was seen before."""
    paused = A.model_copy(update={"paused": True})
    for recent in ([], [result(state="down")] * 3, [result()]):
        assert status_of(paused, recent).state == "paused"
