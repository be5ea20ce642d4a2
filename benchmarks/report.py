"""Tables, and where they come from: printed, and kept in a JSON file."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


class Report:
    """The result of a run."""

    def __init__(self, *packages: str) -> None:
        self._data: dict[str, Any] = {"environment": environment(packages), "tables": []}
        for name, value in self._data["environment"].items():
            print(f"- {name}: {value}")

    def note(self, text: str) -> None:
        """Say something about the run."""
        self._data.setdefault("notes", []).append(text)
        print(f"\n{text}", flush=True)

    def table(self, title: str, header: list[str], rows: list[list[str]], **data: object) -> None:
        """Print a Markdown table; what else there is of *data* goes to the file alone."""
        self._data["tables"].append({"title": title, "header": header, "rows": rows, **data})
        lines = "\n".join(
            f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)
        )
        print(f"\n{title}\n\n{lines}", flush=True)

    def save(self, path: Path | None) -> None:
        """Write it all, if there is a file to write it to."""
        if path is not None:
            path.write_text(json.dumps(self._data, indent=1) + "\n")


def environment(packages: tuple[str, ...]) -> dict[str, str]:
    """Return what the figures depend on."""
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} not installed")
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{os.cpu_count()} CPUs, {_processor()}, {platform.system()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(versions),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
