"""How a target is, after its latest results."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

from pydantic import BaseModel, Field

from example_app.probe import Result
from example_app.targets import Target


class Status(BaseModel):
    """How a target is.

    Attributes:
        state: What it is called. It is ``failing`` while too few checks in a row have failed for it
            to be down, and up again after a single good one.
        failed: How many checks in a row have failed.
    """

    state: Literal["none", "paused", "up", "slow", "failing", "down"]
    failed: int = 0


def status_of(target: Target, recent: Sequence[Result]) -> Status:
    """Return how a target is, after its latest results, the newest last."""
    failed = len(list(takewhile(lambda result: result.state == "down", reversed(recent))))
    if target.paused:
        return Status(state="paused", failed=failed)
    if not recent:
        return Status(state="none")
    if not failed:
        return Status(state=recent[-1].state)
    return Status(state="down" if failed >= target.failures else "failing", failed=failed)


class Change(BaseModel):
    """A target has gone down, or has come back: what the webhook is sent.

    Attributes:
        id: Unique; a change that is sent again has the same one.
        target: The name of the target.
        url: Its address.
        state: What it is now.
        at: When the probe began that has found it so, in seconds since 1970.
        error: What is wrong with the target, if it is down.
    """

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    target: str
    url: str
    state: Literal["up", "down"]
    at: float
    error: str
