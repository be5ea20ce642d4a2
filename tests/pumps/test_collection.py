"""Collections of pumps."""

import asyncio
from functools import partial

import pytest
from starlette.applications import Starlette

from quattro_web import Pump, Pumps, RestartPolicy, app_health, install
from tests.support.apps import settle
from tests.support.asgi import run
from tests.support.lifespan import Life


async def forever() -> None:
    await asyncio.Event().wait()


async def poll() -> None:
    await asyncio.Event().wait()


def names(app: Starlette) -> list[str]:
    """Return the names of the pumps that run when the app does."""

    async def main() -> list[str]:
        async with Life(app):
            await settle()
            return [pump.name for pump in app_health(app).pumps if pump.is_up]

    return run(main())


def test_decorated_functions_are_pumps() -> None:
    """A2: A function that is decorated, with options or without, is run, and stays as it is."""
    pumps = Pumps()
    assert pumps.pump(forever) is forever
    assert (
        pumps.pump(name="poller", on_failure="restart", restart=RestartPolicy(base=1))(poll) is poll
    )
    app = Starlette()
    install(app, pumps=pumps)
    assert names(app) == ["forever", "poller"]


def test_pumps_of_other_modules() -> None:
    """A2: Collections of other modules are included, also with what they add after install."""
    main, other = Pumps([forever]), Pumps()
    main.include(other)
    app = Starlette()
    install(app, pumps=main)
    other.add(poll)
    assert names(app) == ["forever", "poll"]
    assert len(main) == 2
    assert repr(main) == "<Pumps forever, poll>"


def test_what_comes_after_the_start_is_refused() -> None:
    """A2: A pump that is added when the app has started would never run: that is an error."""
    main, other = Pumps(), Pumps()
    main.include(other)
    app = Starlette()
    install(app, pumps=main)
    assert names(app) == []
    for pumps in (main, other):
        with pytest.raises(RuntimeError, match="<Pump poll> comes too late, the app has started"):
            pumps.add(poll)
    with pytest.raises(RuntimeError, match="comes too late"):
        main.include(Pumps())


def test_collection_serves_several_runs() -> None:
    """A2: The same collection runs again when the app does, as in several tests."""
    app = Starlette()
    install(app, pumps=Pumps([poll]))
    assert names(app) == names(app) == ["poll"]


@pytest.mark.parametrize("pump", [forever, Pump(forever)])
def test_single_pump_is_no_collection(pump: object) -> None:
    """A2: A pump instead of a list of pumps is an error that tells what to write."""
    with pytest.raises(TypeError, match=r"pumps must be a list .* write pumps=\[\.\.\.\]"):
        Pumps(pump)  # type: ignore[arg-type]


def test_collection_includes_a_list() -> None:
    """A2: Including something else than a collection is an error that tells what to call."""
    with pytest.raises(TypeError, match=r"include takes a Pumps collection, got \[\]: add takes"):
        Pumps().include([])  # type: ignore[arg-type]


def test_collection_is_not_included_in_itself() -> None:
    """A2: A circle of collections is an error."""
    one, two, three = Pumps(), Pumps(), Pumps()
    one.include(two)
    two.include(three)
    for inner, outer in [(one, one), (two, one), (three, one)]:
        with pytest.raises(ValueError, match="can't be included in itself"):
            inner.include(outer)


def test_two_pumps_of_one_name() -> None:
    """A2: Two pumps that were given the same name are an error, wherever they come from."""
    one, two = Pumps([Pump(poll, name="feed")]), Pumps([Pump(forever, name="feed")])
    with pytest.raises(ValueError, match="two pumps are named 'feed'"):
        one.add(Pump(forever, name="feed"))
    with pytest.raises(ValueError, match="two pumps are named 'feed'"):
        one.include(two)
    later = Pumps()
    one.include(later)
    later.add(Pump(forever, name="feed"))
    app = Starlette()
    install(app, pumps=one)
    life = Life(app)

    async def main() -> None:
        assert await life.start() == "startup.failed"
        await life.stop()

    run(main())
    assert "two pumps are named 'feed'" in str(life.error)


def test_what_a_collection_offers() -> None:
    """A2: What only an app calls does not look as if it were for users."""
    assert {name for name in dir(Pumps) if not name.startswith("_")} == {"add", "include", "pump"}


def test_functions_of_one_name_get_numbers() -> None:
    """A2: Functions that share their name, as a factory makes them, can be told apart."""
    app = Starlette()
    install(app, pumps=[forever, forever, partial(forever)])
    assert names(app) == ["forever", "forever (2)", "forever (3)"]
