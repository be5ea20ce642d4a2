"""The times of a cron expression, in a time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timezone, tzinfo
from importlib import import_module
from typing import Any
from zoneinfo import ZoneInfo

from quattro_web._util.arguments import checked_text

# Those of crontab(5); "@reboot" is a pump without a schedule.
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Cron:
    """The times of a cron expression, as Unix time.

    Args:
        expression: Its five fields, or a nickname for them.
        zone: The time zone, its name, or None for UTC.

    Raises:
        ModuleNotFoundError: If cronsim is not installed.
        TypeError: If one of them is of a wrong type.
        ValueError: If one of them is not understood, or if such a time never comes.
    """

    def __init__(self, expression: str, zone: tzinfo | str | None) -> None:
        self._expression = _NICKNAMES.get(checked_text("cron", expression), expression)
        self._zone = _checked_zone(zone)
        self._cronsim = _cronsim()
        if (fields := len(self._expression.split())) != 5:
            msg = (
                "cron must have five fields, such as '0 3 * * *', or be one of "
                f"{', '.join(_NICKNAMES)}, got {expression!r}: {fields}"
            )
            raise ValueError(msg)
        try:
            self.after(0.0)
        except (self._cronsim.CronSimError, ValueError) as exc:
            msg = f"cron must be a cron expression, such as '0 3 * * *', got {expression!r}: {exc}"
            raise ValueError(msg) from None

    def after(self, moment: float) -> float:
        """Return the first time after *moment*."""
        local = datetime.fromtimestamp(moment, self._zone)
        for found in self._cronsim.CronSim(self._expression, local):
            # In an hour that comes twice, it finds those of the first one in the second as well.
            if (time := found.timestamp()) > moment:
                return float(time)
        msg = "there is no such day"
        raise ValueError(msg)

    def text(self, moment: float) -> str:
        """Return a moment as a clock in the time zone shows it."""
        return datetime.fromtimestamp(moment, self._zone).isoformat(timespec="seconds")


def _cronsim() -> Any:
    try:
        return import_module("cronsim")
    except ModuleNotFoundError as exc:
        msg = 'Pump(cron=...) needs cronsim: pip install "quattro-web[cron]"'
        raise ModuleNotFoundError(msg, name=exc.name) from exc


def _checked_zone(zone: tzinfo | str | None) -> tzinfo:
    if zone is None:
        return UTC
    if isinstance(zone, ZoneInfo | timezone):
        return zone
    if not isinstance(zone, str):  # others, such as those of pytz, count their days differently
        msg = f"timezone must be a zoneinfo.ZoneInfo, the name of one, or None, got {zone!r}"
        raise TypeError(msg)
    try:
        return ZoneInfo(zone)
    except (LookupError, ValueError, OSError):
        msg = (
            f"timezone must be a time zone such as 'Europe/Berlin', got {zone!r}, which this "
            "machine does not know: if it knows none at all, pip install tzdata"
        )
        raise ValueError(msg) from None
