"""The result of a run: tables and goals, printed as they come, and kept in a JSON file."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.goals import HEADER, Goal
from benchmarks.plot import Bar

PACKAGES = (
    *("quattro-web", "quattro", "anyio", "aiojobs", "aiometer", "aiostream"),
    *("fastapi", "starlette", "uvicorn", "granian", "uvloop", "httptools", "websockets"),
    *("asgi-background", "fastapi-disconnect", "sse-starlette"),
)


class Report:
    """What a run found out."""

    def __init__(self, size: str) -> None:
        self._started = time.monotonic()
        self.environment = environment(size)
        self.tables: dict[str, Any] = {}
        self.goals: list[Goal] = []
        self.notes: list[str] = []
        for name, value in self.environment.items():
            print(f"- {name}: {value}", flush=True)

    def note(self, text: str) -> None:
        """Say something about the run, such as what was left out."""
        self.notes.append(text)
        print(f"\n{text}", flush=True)

    def table(
        self,
        key: str,
        title: str,
        header: list[str],
        rows: list[list[str]],
        *,
        bars: Sequence[Bar] = (),
        unit: str = "",
    ) -> None:
        """Print a Markdown table, and keep it, with the bars of its plot if there are any."""
        self.tables[key] = {
            "title": title,
            "header": header,
            "rows": rows,
            "bars": [asdict(bar) for bar in bars],
            "unit": unit,
        }
        print(f"\n{title} ({self._seconds()} s so far)\n\n{markdown(header, rows)}", flush=True)

    def goal(self, goal: Goal) -> None:
        """Keep what came out for a goal, for the table of all of them."""
        self.goals.append(goal)

    def close(self, path: Path | None, *, only: Sequence[str] = ()) -> None:
        """Print the goals, and write all of it, if there is a file to write it to.

        Args:
            path: The file.
            only: The benchmarks that were run, if some were left out: what the file has of the
                others is kept, and it says which are newer.
        """
        self.environment["took"] = f"{self._seconds()} s"
        rows = [goal.row() for goal in self.goals]
        print(f"\nGoals ({self._seconds()} s in all)\n\n{markdown(HEADER, rows)}", flush=True)
        if path is not None:
            data: dict[str, Any] = {
                "environment": self.environment,
                "notes": self.notes,
                "goals": [asdict(goal) for goal in self.goals],
                "tables": self.tables,
            }
            if only and path.exists():
                data = _updated(json.loads(path.read_text("utf-8")), data, only)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _seconds(self) -> int:
        return round(time.monotonic() - self._started)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def environment(size: str) -> dict[str, str]:
    """Return what the figures depend on."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} not installed")
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{os.cpu_count()} CPUs, {_processor()}, {platform.system()}",
        "load before": load,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(versions),
        "rounds": size,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _updated(old: dict[str, Any], new: dict[str, Any], only: Sequence[str]) -> dict[str, Any]:
    """Return a result with what was measured anew in the place of what it had."""
    there = new["environment"]
    what = f"{', '.join(only)}: {there['date']}, {there['machine']}, {there['python']}"
    what += f", load before {there['load before']}"
    if there["rounds"] != old["environment"]["rounds"]:
        what += f", rounds: {there['rounds']}"
    anew = [
        each
        for each in old["environment"].get("measured anew", "").split("; ")
        if each and not set(each.partition(":")[0].split(", ")) <= set(only)
    ]
    goals = {(goal["what"], goal["measured_as"]): goal for goal in (*old["goals"], *new["goals"])}
    return {
        "environment": {**old["environment"], "measured anew": "; ".join([*anew, what])},
        "notes": [*dict.fromkeys((*old["notes"], *new["notes"]))],
        "goals": [*goals.values()],
        "tables": {**old["tables"], **new["tables"]},
    }
