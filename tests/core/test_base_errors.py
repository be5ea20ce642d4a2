"""Errors that end the program, and what a group tells of errors while it lasts."""

from __future__ import annotations

import asyncio

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_errors import KINDS, errors_of, fail, fail_when_cancelled


@KINDS
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_errors_that_end_the_program(
    run_plain: Run, method: str, error: type[BaseException]
) -> None:
    """C5: KeyboardInterrupt and SystemExit leave the group as themselves; others are logged."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        group = TaskGroup()
        with pytest.raises(error):
            async with group as tg:
                getattr(tg, method)(fail_when_cancelled(ValueError("other")))
                await asyncio.sleep(0)
                raise error
        assert group.exceptions == ()
        assert not [one for one in vars(group).values() if isinstance(one, BaseException)]
        assert loop.is_running()

    run_plain(main)
    assert [str(report["exception"]) for report in run_plain.reports] == ["other"]
    run_plain.reports.clear()


@KINDS
def test_child_that_ends_the_program(run_plain: Run, method: str) -> None:
    """C5: a child that raises KeyboardInterrupt stops the loop, and its group raises just that."""
    seen = []

    async def main() -> None:
        try:
            async with TaskGroup() as tg:
                getattr(tg, method)(fail(KeyboardInterrupt()))
                await forever()
        except KeyboardInterrupt as error:
            seen.append(error)
            raise

    with pytest.raises(KeyboardInterrupt):
        run_plain(main)
    assert len(seen) == 1


def test_exceptions_so_far(run: Run) -> None:
    """C5: `exceptions` tells the errors of children so far, in order, and keeps none afterwards."""
    first, second = ValueError("first"), ValueError("second")
    group = TaskGroup()

    async def main() -> None:
        assert not group.exceptions
        async with group as tg:
            tg.create_task(fail(first))
            tg.create_background_task(fail_when_cancelled(second))
            try:
                await forever()
            finally:
                assert list(group.exceptions) == [first]
                await asyncio.sleep(0.001)
                assert list(group.exceptions) == [first, second]

    assert errors_of(run, main) == ["first", "second"]
    assert group.exceptions == ()
