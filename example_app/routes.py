"""What a request may ask for."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request, status
from fastapi.responses import FileResponse

from example_app.origin import is_own_page
from example_app.probe import Result
from example_app.settings import HERE, LOOPBACK
from example_app.state import AppState, State, probe_and_report
from example_app.store import BoardFullError, TargetExistsError
from example_app.targets import MAX_TARGETS, Target
from quattro_web.fastapi import AppTaskGroup, RequestTaskGroup

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
# One of these is set by each proxy that is set up to say for whom it asks.
PROXY_HEADERS = {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"}

router = APIRouter()


def _configured(state: State, name: str) -> Target:
    """Return a target of the board; anything else is not for probing, whatever it is."""
    try:
        return state["board"].targets[name]
    except KeyError:
        detail = f"no target of that name is configured: {name!r}"
        raise HTTPException(status.HTTP_404_NOT_FOUND, detail) from None


async def _may_add(request: Request, state: AppState) -> None:
    """Refuse those who could make the board probe what they can't reach themselves."""
    settings = state["settings"]
    if settings.token:
        given = request.headers.get("Authorization", "").encode()
        if not secrets.compare_digest(given, f"Bearer {settings.token}".encode()):
            detail = "adding targets takes the token of this board"
            headers = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(status.HTTP_401_UNAUTHORIZED, detail, headers)
    # The name in the address counts too: a page elsewhere may have its own name point to us. And
    # what a proxy of this machine passes on comes from anywhere.
    elif (
        settings.host not in LOOPBACK
        or request.url.hostname not in LOOPBACK
        or any(name in request.headers for name in PROXY_HEADERS)
    ):
        detail = "this board takes targets from its own machine only, unless BOARD_TOKEN is set"
        raise HTTPException(status.HTTP_403_FORBIDDEN, detail)
    elif not is_own_page(request):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "targets are added on the board's own page")


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
    targets = [_configured(state, name) for name in dict.fromkeys(names)]
    tasks = [tg.create_task(probe_and_report(state, target)) for target in targets]
    return [await task for task in tasks]


@router.post("/targets", status_code=status.HTTP_201_CREATED, dependencies=[Depends(_may_add)])
async def add_target(target: Target, state: AppState, app_tg: AppTaskGroup) -> Target:
    """Add a target. Its first probe outlives this response: the app's task group runs it."""
    board = state["board"]
    try:
        await state["store"].add_target(target, board.targets)
    except BoardFullError:
        detail = f"a board holds at most {MAX_TARGETS} targets"
        raise HTTPException(status.HTTP_409_CONFLICT, detail) from None
    except TargetExistsError:
        detail = f"there is a target of that name already: {target.name}"
        raise HTTPException(status.HTTP_409_CONFLICT, detail) from None
    board.add(target)
    app_tg.create_task(probe_and_report(state, target), name=f"first probe of {target.name}")
    return target


@router.get("/history/{name}")
async def history(
    name: str, state: AppState, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[Result]:
    """Return the latest recorded results of a target, the newest first."""
    return await state["store"].history(_configured(state, name).name, limit)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer, as a sign of life."""
    return {"status": "ok"}


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the page; everything it shows comes from /events."""
    return FileResponse(STATIC / "page.html", headers=PAGE_HEADERS)
