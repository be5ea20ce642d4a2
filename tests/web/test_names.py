"""The names that quattro_web exports."""

import pytest

import quattro_core
import quattro_web

# What an app has no use for: the pumps and the limits of install are made of them.
FOR_OTHERS = {"SharedLimit", "Supervisor", "SupervisorState"}


@pytest.mark.parametrize("name", sorted({*quattro_core.__all__} - FOR_OTHERS))
def test_what_an_app_annotates_or_catches(name: str) -> None:
    """A user of quattro_web imports from it alone: what is of quattro_core is there as well."""
    assert name in quattro_web.__all__
    assert getattr(quattro_web, name) is getattr(quattro_core, name)
