"""``python -m quattro_web.tasks``: the tasks of an app in a terminal."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from quattro_web._tree.text import Line, Mark, blocks_of

_COLOURS = {Mark.HEADING: "1", Mark.UNMOVED: "33", Mark.LATE: "31"}
_CLEAR = "\x1b[H\x1b[J"

# Seconds that an app gets to answer.
_TIMEOUT = 10.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m quattro_web.tasks",
        description="Show what an app is doing right now, using its task_routes().",
    )
    parser.add_argument("url", help="their URL, such as http://127.0.0.1:8000/tasks")
    parser.add_argument("--watch", action="store_true", help="refresh every second, until Ctrl-C")
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header of the request, such as 'Authorization: Bearer ...'",
    )
    parser.add_argument(
        "--filter", default="", help="show only entries with this text in one of their lines"
    )
    options = parser.parse_args(arguments)
    parts = urlsplit(options.url)
    if parts.scheme not in {"http", "https"}:
        parser.error(f"url must begin with http:// or https://, got {options.url!r}")
    headers = {}
    for header in options.header:
        name, colon, value = header.partition(":")
        if not colon:
            parser.error(f"--header must be like 'NAME: VALUE', got {header!r}")
        headers[name.strip()] = value.strip()
    url = parts._replace(path=parts.path.rstrip("/")).geturl()  # that of the page, too
    try:
        if not options.watch:
            _print(_lines(_fetch(url, headers), options.filter))
            return
        while True:
            try:
                lines = _lines(_fetch(url, headers), options.filter)
            except (ConnectionError, TimeoutError, URLError) as exc:
                if isinstance(exc, HTTPError):
                    raise
                lines = [Line(f"{url} does not answer: {exc}", Mark.LATE)]  # it may start again
            sys.stdout.write(_CLEAR if sys.stdout.isatty() else "")
            _print(_that_fit(lines) if sys.stdout.isatty() else lines)
            time.sleep(1)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.stderr.close()  # or Python tells of the pipe, too
    except HTTPError as exc:
        sys.exit(f"{options.url} has answered {exc.code} {exc.reason}")
    except (OSError, ValueError, LookupError, TypeError, HTTPException) as exc:
        sys.exit(f"{options.url} does not show the tasks of an app: {exc!r}")


def _fetch(url: str, headers: dict[str, str]) -> dict[str, Any]:
    request = Request(url, headers={"accept": "application/json", **headers})  # noqa: S310  # checked
    with build_opener(_NoRedirects).open(request, timeout=_TIMEOUT) as response:
        tasks: dict[str, Any] = json.load(response)
    return tasks


class _NoRedirects(HTTPRedirectHandler):
    """It would send the headers, and so a token, to wherever it is sent."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _lines(tasks: dict[str, Any], wanted: str) -> list[Line]:
    first, *blocks = blocks_of(tasks)
    wanted = wanted.lower()
    found = [block for block in blocks if any(wanted in line.text.lower() for line in block)]
    return [*first, *(line for block in found for line in block)]


def _that_fit(lines: list[Line]) -> list[Line]:
    size = shutil.get_terminal_size()
    shown = [Line(line.text[: size.columns], line.mark) for line in lines[: size.lines - 2]]
    more = len(lines) - len(shown)
    return [*shown, Line(f"and {more} more lines")] if more else shown


def _print(lines: Iterable[Line]) -> None:
    is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in lines:
        colour = _COLOURS.get(line.mark) if is_coloured else None
        sys.stdout.write(f"\x1b[{colour}m{line.text}\x1b[0m\n" if colour else f"{line.text}\n")
    sys.stdout.flush()
