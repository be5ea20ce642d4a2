"""What the environment decides."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from example_app.urls import checked_url

HERE = Path(__file__).parent
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # not bound to


class ConfigurationError(ValueError):
    """The environment or the targets file says something that can't be meant."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run the board.

    Attributes:
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        targets: The TOML file that lists the targets.
        database: The SQLite file that keeps results and the targets added later.
        interval: Seconds between two rounds of probes.
        keep_days: Days after which a result is deleted; how many there were in each hour is known
            for 30 days.
        token: What a client that changes targets must present. Without a token they change on
            a board that listens on this machine alone.
        public_badges: Whether pages elsewhere may show the badges of targets.
        webhook: The URL that is sent each change of a target from up to down and back; empty means
            that nobody is.
        workers: How many processes serve the board; one of them probes.
        hosts: By which names clients call the board, beside those of this machine alone and the
            address that it listens on; ``*`` stands for all.
        lock: Where the locks are of the pumps that run in one process: the URL of a Redis or of a
            PostgreSQL; empty means in files beside the database.
        jobs: Where the places are reached that targets are probed from as well: the URL of a Redis,
            or ``memory://`` for places that are all in this process; empty means that there are
            none.
        places: The names of the places.
        jobs_key: A secret that the board shares with its places, which sign what they send with it.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    targets: Path = HERE / "targets.toml"
    database: Path = Path("status-board.db")
    interval: float = 5.0
    keep_days: float = 7.0
    token: str = ""
    public_badges: bool = False
    webhook: str = field(default="", repr=False)
    workers: int = 1
    hosts: tuple[str, ...] = ()
    lock: str = field(default="", repr=False)
    jobs: str = ""
    places: tuple[str, ...] = ("here",)
    jobs_key: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings that the environment variables give.

        Raises:
            ConfigurationError: If a number isn't one, or is out of range, or a name is none.
        """
        return cls(
            host=(environ.get("HOST") or cls.host).lower(),
            port=int(_number(environ, "PORT", cls.port, 0, 65535)),
            targets=Path(environ.get("BOARD_TARGETS", cls.targets)),
            database=Path(environ.get("BOARD_DATABASE", cls.database)),
            interval=_number(environ, "BOARD_INTERVAL", cls.interval, 0.1, 86400),
            keep_days=_number(environ, "BOARD_KEEP_DAYS", cls.keep_days, 0.01, 36500),
            token=environ.get("BOARD_TOKEN", cls.token),
            public_badges=bool(_number(environ, "BOARD_PUBLIC_BADGES", 0, 0, 1)),
            webhook=_webhook(environ, "BOARD_WEBHOOK"),
            workers=int(_number(environ, "WORKERS", cls.workers, 1, 64)),
            hosts=_names(environ, "BOARD_HOSTS"),
            lock=_lock(environ, "BOARD_LOCK"),
            jobs=environ.get("BOARD_JOBS", cls.jobs),
            places=_listed(environ, "BOARD_PLACES") or cls.places,
            jobs_key=environ.get("BOARD_JOBS_KEY", cls.jobs_key),
        )

    @property
    def allowed_hosts(self) -> list[str]:
        """The hosts in the address of a request that the board answers."""
        hosts = {*LOOPBACK, self.host, *self.hosts} - EVERYWHERE.keys()
        return sorted(f"[{host}]" if ":" in host else host for host in hosts)

    @property
    def url(self) -> str:
        """The address under which this machine reaches the board."""
        host = EVERYWHERE.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def _names(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    hosts = _listed(environ, name)
    for host in hosts:
        if not re.fullmatch(r"\*|(\*\.)?[\w.-]+|[\da-fA-F:.]+", host):
            msg = (
                f"{name} must be names of hosts and commas, such as board.example,*.local, or * "
                f"for all, got {host!r}"
            )
            raise ConfigurationError(msg)
    return hosts


def _lock(environ: Mapping[str, str], name: str) -> str:
    address = environ.get(name, "")
    if address and not re.match(r"postgres|redis|unix", address):
        # What it is may be a password.
        msg = f"{name} must be the URL of a PostgreSQL or of a Redis, such as redis://cache"
        raise ConfigurationError(msg)
    return address


def _webhook(environ: Mapping[str, str], name: str) -> str:
    url = environ.get(name, "")
    try:
        return url and checked_url(url)
    except ValueError as exc:
        msg = f"{name} must be an address such as https://chat.example/hook: {exc}"
        raise ConfigurationError(msg) from None


def _listed(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in environ.get(name, "").split(",") if each.strip())


def _number(
    environ: Mapping[str, str], name: str, default: float, least: float, most: float
) -> float:
    text = environ.get(name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        msg = f"{name} must be a number from {least:g} to {most:g}, got {text!r}"
        raise ConfigurationError(msg)
    return number
