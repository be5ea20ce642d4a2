"""What a request may ask for."""

from __future__ import annotations

import secrets
import time
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request, status
from fastapi.responses import FileResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from example_app.availability import Span, spans_of
from example_app.badge import badge_of
from example_app.board import TargetState
from example_app.origin import is_own_page
from example_app.probe import Result
from example_app.settings import HERE, LOOPBACK, Settings
from example_app.state import AppState, State, probe_and_report, show_targets
from example_app.store import BoardFullError, TargetExistsError, UnknownTargetError
from example_app.targets import MAX_TARGETS, Target, TargetFields
from quattro_web.fastapi import AppTaskGroup, CancelOnDisconnect, RequestTaskGroup
from quattro_web.prometheus import TaskCollector

STATIC = HERE / "static"
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
BADGE_HEADERS = {
    "Content-Type": "image/svg+xml",
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
# One of these is set by each proxy that is set up to say for whom it asks.
PROXY_HEADERS = {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"}

router = APIRouter()


def _configured(state: State, name: str) -> Target:
    """Return a target of the board; anything else is not for probing, whatever it is."""
    try:
        return state["board"].targets[name]
    except KeyError:
        raise _not_configured(name) from None


def _not_configured(name: str) -> HTTPException:
    detail = f"no target of that name is configured: {name!r}"
    return HTTPException(status.HTTP_404_NOT_FOUND, detail)


def _to_probe(state: State, name: str) -> Target:
    """Return a target of the board that is not paused."""
    target = _configured(state, name)
    if target.paused:
        raise HTTPException(status.HTTP_409_CONFLICT, f"this target is paused: {name}")
    return target


async def _may_change(request: Request, state: AppState) -> None:
    """Refuse those who could make the board probe what they can't reach themselves."""
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not _is_let_in(request, state["settings"], given, "lets targets be changed"):
        return
    if not is_own_page(request):
        raise HTTPException(
            status.HTTP_403_FORBIDDEN, "targets are changed on the board's own page"
        )


async def may_look(request: Request, state: AppState, token: str = "") -> None:
    """Refuse those who may not see what the board does, and for whom.

    A browser sends the token in the address, everybody else as when a target is changed.
    """
    given = token or request.headers.get("Authorization", "").removeprefix("Bearer ")
    _is_let_in(request, state["settings"], given, "shows its tasks")


def _is_let_in(request: Request, settings: Settings, given: str, what: str) -> bool:
    """Refuse those who have no token, and are not on this machine.

    Tells whether there is no token, so that a page elsewhere could ask.
    """
    if settings.token:
        if not secrets.compare_digest(given.encode(), settings.token.encode()):
            detail = f"this board {what} for those who have its token"
            headers = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(status.HTTP_401_UNAUTHORIZED, detail, headers)
        return False
    # The name in the address counts too: a page elsewhere may have its own name point to us. And
    # what a proxy of this machine passes on comes from anywhere.
    if (
        settings.host not in LOOPBACK
        or request.url.hostname not in LOOPBACK
        or any(name in request.headers for name in PROXY_HEADERS)
    ):
        detail = f"this board {what} on its own machine only, unless BOARD_TOKEN is set"
        raise HTTPException(status.HTTP_403_FORBIDDEN, detail)
    return True


@router.get("/metrics", dependencies=[Depends(may_look)])
async def metrics() -> Response:
    """Return the metrics of this process, for Prometheus."""
    return Response(generate_latest(_METRICS), media_type=CONTENT_TYPE_LATEST)


_METRICS = CollectorRegistry()
TaskCollector().register(_METRICS)


@router.get("/check")
async def check(
    names: Annotated[list[str], Query(alias="target", min_length=1, max_length=MAX_TARGETS)],
    tg: RequestTaskGroup,
    state: AppState,
) -> list[Result]:
    """Probe targets now, side by side, and return what was seen of each, failures included.

    Every probe has its deadline, and the limit on how many run at once is that of the request's
    task group (see `create_app`). Nothing of them is left when the response is complete.
    """
    targets = [_to_probe(state, name) for name in dict.fromkeys(names)]
    tasks = [tg.create_task(probe_and_report(state, target)) for target in targets]
    return [await task for task in tasks]


@router.get("/check/{name}/places", dependencies=[CancelOnDisconnect()])
async def check_from_places(
    name: str, tg: RequestTaskGroup, state: AppState
) -> dict[str, Result | None]:
    """Probe a target from all places at once, each as a child of the request that runs there.

    A place that can't be reached has seen nothing; what it has seen is not recorded.
    """
    target, places = _to_probe(state, name), state["places"]
    if not places:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "BOARD_JOBS is not set: no places")
    results = await tg.gather(*[probe(target) for probe in places.values()])
    return dict(zip(places, results, strict=True))


@router.post("/targets", status_code=status.HTTP_201_CREATED, dependencies=[Depends(_may_change)])
async def add_target(target: Target, state: AppState, app_tg: AppTaskGroup) -> Target:
    """Add a target. Its first probe outlives this response: the app's task group runs it."""
    try:
        await state["store"].add_target(target)
    except BoardFullError:
        detail = f"a board holds at most {MAX_TARGETS} targets"
        raise HTTPException(status.HTTP_409_CONFLICT, detail) from None
    except TargetExistsError:
        detail = f"there is a target of that name already: {target.name}"
        raise HTTPException(status.HTTP_409_CONFLICT, detail) from None
    await show_targets(state)
    if not target.paused:
        app_tg.create_task(probe_and_report(state, target), name=f"first probe of {target.name}")
    return target


@router.put("/targets/{name}", dependencies=[Depends(_may_change)])
async def change_target(name: str, fields: TargetFields, state: AppState) -> Target:
    """Change a target, or pause it; what the body does not say is as by default."""
    target = Target(name=_configured(state, name).name, **fields.model_dump())
    try:
        await state["store"].change_target(target)
    except UnknownTargetError:  # another process has deleted it just now
        raise _not_configured(name) from None
    await show_targets(state)
    return target


@router.delete(
    "/targets/{name}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[Depends(_may_change)],
)
async def delete_target(name: str, state: AppState) -> None:
    """Delete a target and its history."""
    try:
        await state["store"].delete_target(name)
    except UnknownTargetError:
        raise _not_configured(name) from None
    await show_targets(state)


@router.get("/targets")
async def targets(state: AppState, group: str | None = None) -> list[TargetState]:
    """Return the targets of the board, or of one group, and how each of them is."""
    board = state["board"]
    return [
        TargetState(target=target, status=board.status(name))
        for name, target in board.targets.items()
        if group in {None, target.group}
    ]


@router.get("/targets/{name}/badge.svg")
async def badge(name: str, state: AppState) -> Response:
    """Return a picture that says how a target is, for whoever may see the page.

    A browser shows it on the board's own page alone, unless badges are public: any page could ask
    for it through the browser of somebody who reaches the board, and its size tells the state.
    """
    target, board = _configured(state, name), state["board"]
    public = state["settings"].public_badges
    headers = {
        **BADGE_HEADERS,
        "Cross-Origin-Resource-Policy": "cross-origin" if public else "same-origin",
    }
    return Response(badge_of(target, board.status(name)), headers=headers)


@router.get("/history/{name}")
async def history(
    name: str, state: AppState, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[Result]:
    """Return the latest recorded results of a target, the newest first."""
    return await state["store"].history(_configured(state, name).name, limit)


@router.get("/availability/{name}")
async def availability(name: str, state: AppState) -> list[Span]:
    """Return how much of the last 24 hours, 7 and 30 days a target was up, check by check."""
    hours = await state["store"].hours(_configured(state, name).name)
    return spans_of(hours, time.time())


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer, as a sign of life."""
    return {"status": "ok"}


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the page; everything it shows comes from /events."""
    return FileResponse(STATIC / "page.html", headers=PAGE_HEADERS)
