"""An app that tells in which context a request begins, and what its children see."""

from contextvars import ContextVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_web import install, request_task_group

visitor: ContextVar[str] = ContextVar("visitor", default="nobody")


async def visit(request: Request) -> Response:
    """Set the variable before the body is read, as a middleware does that knows the user."""
    found = visitor.get()
    visitor.set(request.query_params["name"])
    await request.body()

    async def child() -> str:
        return visitor.get()

    seen = await request_task_group(request).create_task(child())
    return PlainTextResponse(f"found {found}, child sees {seen}")


app = Starlette(routes=[Route("/visit", visit, methods=["GET", "POST"])])
install(app)
