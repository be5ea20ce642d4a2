"""The names that quattro_web exports, and those of the options that two of them share."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

import quattro_core
import quattro_web
from quattro_web import Pump, TaskGroupMiddleware, install
from quattro_web._pumps.pump import PumpOptions

# What an app has no use for: the pumps and the limits of install are made of them.
FOR_OTHERS = {"SharedLimit", "Supervisor", "SupervisorState"}


@pytest.mark.parametrize("name", sorted({*quattro_core.__all__} - FOR_OTHERS))
def test_what_an_app_annotates_or_catches(name: str) -> None:
    """A user of quattro_web imports from it alone: what is of quattro_core is there as well."""
    assert name in quattro_web.__all__
    assert getattr(quattro_web, name) is getattr(quattro_core, name)


def options_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a function."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_middleware_has_the_options_of_install() -> None:
    """Whatever install takes the middleware takes, with the same type and default: it is described
    in one place. But for jobs, which their workers find by their app."""
    options = options_of(install)
    del options["jobs"]
    assert options_of(TaskGroupMiddleware) == options


def test_decorator_has_the_options_of_a_pump() -> None:
    """Whatever Pump takes Pumps.pump takes, with the same type: it is described in one place."""
    types = get_type_hints(Pump.__init__)
    assert get_type_hints(PumpOptions) == {name: types[name] for name in options_of(Pump)}
