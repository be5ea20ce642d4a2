"""What the environment decides."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
        keep_days: Days after which a result is deleted.
        token: What a client that adds targets must present. Without a token only a board that
            listens on this machine alone takes new targets.
        workers: How many processes serve the board; one of them probes.
        hosts: By which names clients call the board, beside those of this machine alone and the
            address that it listens on; ``*`` stands for all.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    targets: Path = HERE / "targets.toml"
    database: Path = Path("status-board.db")
    interval: float = 5.0
    keep_days: float = 7.0
    token: str = ""
    workers: int = 1
    hosts: tuple[str, ...] = ()

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
            workers=int(_number(environ, "WORKERS", cls.workers, 1, 64)),
            hosts=_names(environ, "BOARD_HOSTS"),
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
    hosts = [host.strip() for host in environ.get(name, "").split(",") if host.strip()]
    for host in hosts:
        if not re.fullmatch(r"\*|(\*\.)?[\w.-]+|[\da-fA-F:.]+", host):
            msg = (
                f"{name} must be names of hosts and commas, such as board.example,*.local, or * "
                f"for all, got {host!r}"
            )
            raise ConfigurationError(msg)
    return tuple(hosts)


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
