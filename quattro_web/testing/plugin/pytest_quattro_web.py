"""The pytest plugin of quattro-web. It does nothing in tests that do not use it.

A module of its own where it is installed, since pytest imports it at each start: importing
anything of `quattro_web` would import all of Starlette.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

_OPTION = "no_leaked_tasks"
_MARK = "allow_leaked_tasks"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that turns the fixture on for all tests."""
    parser.addini(_OPTION, "Fail each test that leaves a task behind.", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Turn the fixture on for all tests, if the option says so."""
    config.addinivalue_line("markers", f"{_MARK}: this test may leave tasks behind")
    if config.getini(_OPTION):
        config.pluginmanager.register(_ForAllTests(), "quattro_web_for_all_tests")


@pytest.fixture
def no_leaked_tasks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test if a task that was made in it is left behind."""
    if request.node.get_closest_marker(_MARK) is not None:
        yield
        return
    from quattro_web import testing  # noqa: PLC0415  # not before somebody asks for it

    failure = None
    try:
        with testing.no_leaked_tasks():
            yield
    except testing.LeakedTaskError as exc:
        failure = str(exc)
    if failure is not None:
        pytest.fail(failure, pytrace=False)


class _ForAllTests:
    @pytest.fixture(autouse=True)
    def _no_leaked_tasks(self, no_leaked_tasks: None) -> None:
        """Ask for the fixture."""
