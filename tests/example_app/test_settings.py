"""What the environment decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from example_app.settings import ConfigurationError, Settings


def test_nothing_has_to_be_set() -> None:
    """Without any variable the board listens on this machine alone, on port 8000."""
    assert Settings.from_environment({}) == Settings(host="127.0.0.1", port=8000)


def test_host_that_is_empty_or_in_capitals() -> None:
    """An empty host is that of this machine alone, and capitals make no other one."""
    assert Settings.from_environment({"HOST": ""}) == Settings()
    assert Settings.from_environment({"HOST": "LOCALHOST"}).url == "http://localhost:8000"


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
        "BOARD_PUBLIC_BADGES": "1",
        "BOARD_WEBHOOK": "https://chat.test/hook",
        "BOARD_HOSTS": "board.test, *.local",
        "BOARD_LOCK": "postgresql://base",
        "BOARD_JOBS": "redis://cache",
        "BOARD_PLACES": "oslo, rome",
        "BOARD_JOBS_KEY": "secret, too",
    }
    assert Settings.from_environment(environ) == Settings(
        host="::1",
        port=0,
        targets=Path("mine.toml"),
        database=Path("mine.db"),
        interval=0.5,
        keep_days=1,
        token="secret",
        public_badges=True,
        webhook="https://chat.test/hook",
        hosts=("board.test", "*.local"),
        lock="postgresql://base",
        jobs="redis://cache",
        places=("oslo", "rome"),
        jobs_key="secret, too",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "http"), ("PORT", "65536"), ("BOARD_INTERVAL", "0"), ("BOARD_KEEP_DAYS", "nan")],
)
def test_a_bad_number_is_refused(name: str, value: str) -> None:
    """The error names the variable, and shows its value."""
    with pytest.raises(ConfigurationError, match=f"{name} must be a number .* got '{value}'"):
        Settings.from_environment({name: value})


@pytest.mark.parametrize("hosts", ["http://board.test", "board.*", "a b"])
def test_a_bad_name_is_refused(hosts: str) -> None:
    """What is no name of a host is refused with what would be one."""
    with pytest.raises(ConfigurationError, match=r"BOARD_HOSTS must be names .* got '"):
        Settings.from_environment({"BOARD_HOSTS": hosts})


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        (Settings(), []),
        (Settings(host="0.0.0.0"), []),
        (Settings(host="192.0.2.1"), ["192.0.2.1"]),
        (Settings(host="fd00::1"), ["[fd00::1]"]),
        (Settings(hosts=("board.test",)), ["board.test"]),
    ],
)
def test_names_of_the_board(settings: Settings, more: list[str]) -> None:
    """The board answers to the names of this machine alone, its address, and those that are set."""
    assert settings.allowed_hosts == sorted(["127.0.0.1", "[::1]", "localhost", *more])


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


def test_a_lock_that_is_nowhere_is_refused() -> None:
    """The error names the variable, and not its value, which may have a password."""
    with pytest.raises(ConfigurationError, match="BOARD_LOCK must be the URL of a") as caught:
        Settings.from_environment({"BOARD_LOCK": "ftp://board:secret@cache"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("chat.test/secret", "only http and https"),
        ("file:///secret", "only http and https"),
        ("https://u:secret@chat.test/", "user name or password"),
    ],
)
def test_a_webhook_is_a_web_address(url: str, reason: str) -> None:
    """A webhook has to be what a target has to be; what was given may be secret, and isn't told."""
    with pytest.raises(ConfigurationError, match=f"BOARD_WEBHOOK must be .*: .*{reason}") as caught:
        Settings.from_environment({"BOARD_WEBHOOK": url})
    assert "secret" not in str(caught.value)
