"""What other software can't do, as tests have found it, and how the end of a run says so.

A test of a limitation passes where the limitation is gone, too: there is nothing wrong then, but
with our documentation, and with what was built around the limitation.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import Protocol

import pytest

PROPERTY = "limitation"
"""The name of the property of a report; pytest-xdist brings those to the process that prints."""


class Limitation(Protocol):
    """The fixture `limitation`, of tests/conftest.py."""

    def __call__(self, whose: str, what: str, *, remains: bool) -> bool:
        """Note whether a limitation remains, and return that.

        Args:
            whose: The distribution that has it, or "CPython".
            what: What it does, as in "granian drops its WebSockets".
            remains: Whether the test has seen it.
        """


def line(whose: str, what: str, *, remains: bool) -> str:
    """Return the line of the summary."""
    number = platform.python_version() if whose == "CPython" else version(whose)
    return f"{whose} {number} {what}: {'still there' if remains else 'repaired'}"


def summary(reports: Iterable[object]) -> list[str]:
    """Return the lines that the reports of tests have, each once, in order."""
    return sorted(
        {
            str(value)
            for report in reports
            if isinstance(report, pytest.TestReport)
            for name, value in report.user_properties
            if name == PROPERTY
        }
    )
