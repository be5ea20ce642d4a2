"""What a test gives the kit by mistake is an error at once."""

import asyncio
from typing import Any

import pytest

from quattro_web.testing import VirtualClockLoop, advance


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("1", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_time_that_never_comes(seconds: Any, error: type[Exception]) -> None:
    """Virtual time passes by a number of seconds: anything else is an error by name."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        with pytest.raises(error, match=f"seconds must be a number of seconds.*got {seconds!r}"):
            runner.run(advance(seconds))
