"""What the board watches."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from example_app.settings import ConfigurationError
from example_app.urls import checked_url

MAX_TARGETS = 100


def _checked_name(name: str) -> str:
    if not name.isprintable() or "/" in name or name in {".", ".."}:
        msg = "a name is printable text without a slash"
        raise ValueError(msg)
    return name


def _checked_group(group: str) -> str:
    if not group.isprintable():
        msg = "a group is printable text"
        raise ValueError(msg)
    return group


class TargetFields(BaseModel):
    """What may change of a target.

    Attributes:
        url: What a probe fetches, with GET.
        timeout: Seconds until a probe gives up.
        slow_after: Seconds after which an answer counts as slow.
        failures: How many checks in a row must fail until it counts as down.
        group: Under which heading it is shown; empty means under none.
        paused: Whether it is left alone for now.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, StringConstraints(max_length=2000), AfterValidator(checked_url)]
    timeout: float = Field(default=5.0, gt=0, le=30)
    slow_after: float = Field(default=1.0, gt=0, le=30)
    failures: int = Field(default=3, ge=1, le=20)
    group: Annotated[
        str,
        StringConstraints(strip_whitespace=True, max_length=40),
        AfterValidator(_checked_group),
    ] = ""
    paused: bool = False


class Target(TargetFields):
    """An HTTP address that is probed again and again.

    Attributes:
        name: What people call it; unique on the board, and never another one.
    """

    name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=60),
        AfterValidator(_checked_name),
    ]


def load_targets(path: Path, own_url: str) -> list[Target]:
    """Return the targets that a TOML file lists; a URL that begins with a slash is the board's own.

    Raises:
        ConfigurationError: If the file can't be read, or isn't a list of targets.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("target", [])
        targets = [_target(table, own_url) for table in tables]
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        reason = _reason(exc) if isinstance(exc, ValidationError) else exc
        msg = f"can't use the targets in {path}: {reason}"
        raise ConfigurationError(msg) from None
    if len({target.name for target in targets}) < len(targets):
        msg = f"two targets in {path} have the same name"
        raise ConfigurationError(msg)
    if len(targets) > MAX_TARGETS:
        msg = f"{len(targets)} targets in {path}; a board holds at most {MAX_TARGETS}"
        raise ConfigurationError(msg)
    return targets


def _target(table: dict[str, object], own_url: str) -> Target:
    url = table.get("url", "")
    if isinstance(url, str) and url.startswith("/"):
        table = {**table, "url": own_url + url}
    return Target.model_validate(table)


def _reason(error: ValidationError) -> str:
    return "; ".join(
        f"{detail['msg']}: {'.'.join(map(str, detail['loc']))} = {detail['input']!r}"
        for detail in error.errors()
    )
