"""What the environment decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from example_app.settings import ConfigurationError, Settings


def test_nothing_has_to_be_set() -> None:
    """Without any variable the board listens on this machine alone, on port 8000."""
    assert Settings.from_environment({}) == Settings(host="127.0.0.1", port=8000)


def test_each_variable_counts() -> None:
    """Every setting can be given by the environment."""
    environ = {
        "HOST": "::1",
        "PORT": "0",
        "BOARD_TARGETS": "mine.toml",
        "BOARD_DATABASE": "mine.db",
        "BOARD_INTERVAL": "0.5",
        "BOARD_KEEP_DAYS": "1",
        "BOARD_TOKEN": "secret",
    }
    assert Settings.from_environment(environ) == Settings(
        host="::1",
        port=0,
        targets=Path("mine.toml"),
        database=Path("mine.db"),
        interval=0.5,
        keep_days=1,
        token="secret",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "http"), ("PORT", "65536"), ("BOARD_INTERVAL", "0"), ("BOARD_KEEP_DAYS", "nan")],
)
def test_a_bad_number_is_refused(name: str, value: str) -> None:
    """The error names the variable, and shows its value."""
    with pytest.raises(ConfigurationError, match=f"{name} must be a number .* got '{value}'"):
        Settings.from_environment({name: value})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
        ("board.test", "http://board.test:8000"),
    ],
)
def test_the_board_knows_its_own_address(host: str, url: str) -> None:
    """The URL is one that this machine can reach, whatever the board listens on."""
    assert Settings(host=host).url == url
