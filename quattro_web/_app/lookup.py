"""Which run of an app a request belongs to, and which runs an app has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from starlette.requests import HTTPConnection

from quattro_web._app.run import AppRun
from quattro_web._errors import NoTaskGroupError
from quattro_web._util.asyncio import current_loop
from quattro_web._util.scope import APP, REQUEST, Connection, scope_of, told_run


def run_of(conn: Connection) -> AppRun:
    """Return the run of the app that serves a request.

    Raises:
        NoTaskGroupError: If there is none.
        TypeError: If *conn* is no request.
    """
    scope = scope_of(conn)
    request = scope.get(REQUEST)
    run: AppRun | None = (
        told_run(scope) or (request and request.app_run()) or scope.get("state", {}).get(APP)
    )
    if run is None or not run.has_started:
        msg = (
            "no app task group: call quattro_web.install(app), or give the app "
            "lifespan=quattro_web.task_group_lifespan(), and run its lifespan: servers do "
            "by default, but only for the outermost app, not for a mounted one; a "
            "TestClient does so in its with block, httpx.ASGITransport does not"
        )
        raise NoTaskGroupError(msg)
    return run


def register(app: Any, run: AppRun) -> None:
    """Make the run of an app known to `runs_of`."""
    runs = _RUNS.setdefault(app, {})
    runs[ref(run, runs.pop)] = None


def every_run() -> list[AppRun]:
    """Return the runs of all apps in this process, in all event loops, in any thread."""
    found = [each() for runs in [*_RUNS.values()] for each in tuple(runs)]
    return [run for run in found if run is not None and run.is_alive and run.has_started]


def all_runs_of(app: Any) -> list[AppRun] | None:
    """Return the runs of an app in all event loops, in any thread; None if it has never run."""
    try:
        runs = _RUNS.get(app)
    except TypeError:  # None, or whatever else never was an app
        return None
    if runs is None:
        return None
    found = [each() for each in tuple(runs)]  # at once, while others come and go in other threads
    return [run for run in found if run is not None and run.is_alive]


def runs_of(app: Any) -> Iterator[AppRun]:
    """Return the runs of an app in the current event loop: more than one if it is composed."""
    loop = current_loop()
    for run in all_runs_of(app) or ():
        # In a thread, whatever runs will do.
        if loop is None or run.loop in (None, loop):
            yield run


def runs_for(conn: HTTPConnection) -> list[AppRun]:
    """Return the runs of the app that serves a request, also where it is in a sub-app of it.

    Raises:
        NoTaskGroupError: If it does not run its lifespan.
    """
    return list(runs_of(conn.scope.get("app"))) or [run_of(conn)]


_RUNS: WeakKeyDictionary[Any, dict[ReferenceType[AppRun], None]] = WeakKeyDictionary()
