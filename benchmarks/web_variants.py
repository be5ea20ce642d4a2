"""What `benchmarks.web` compares with what."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from benchmarks import web_apps as apps
from benchmarks.web_apps import Endpoint, Wrap
from quattro_web import install

CHILDREN = 10


@dataclass(frozen=True)
class Variant:
    """An app, and what it is measured against: the first of its group."""

    framework: str
    label: str
    endpoint: Endpoint
    wrap: Wrap | None = None
    goal: float | None = None  # of the ratio
    children: int = 0

    @property
    def group(self) -> str:
        """What is compared with each other."""
        return f"{self.framework}, {self.children or 'no'} children"

    @property
    def name(self) -> str:
        return f"{self.group}: {self.label}"

    def make(self) -> ASGIApp:
        app: Starlette
        if self.framework == FAST:
            app = FastAPI()
            app.get("/")(self.endpoint)
        else:
            app = Starlette(routes=[Route("/", self.endpoint)])
        if self.wrap is not None:
            self.wrap(app)
        return app


FAST, STAR = "FastAPI", "Starlette"
# The peers by the names of their modules; what is not there is said to be left out.
PEERS: dict[str, Wrap] = {
    "asgi_background": apps.asgi_background,
    "fastapi_disconnect": apps.fastapi_disconnect,
}


def missing_peers() -> list[str]:
    """Return the packages that can't be compared with, for they can't be imported here."""
    return [name.replace("_", "-") for name in PEERS if importlib.util.find_spec(name) is None]


def unused(framework: str) -> list[Variant]:
    """Return the apps that start nothing."""
    hello, goal = (apps.fast_hello, 1.02) if framework == FAST else (apps.star_hello, 1.03)
    found = [
        Variant(framework, "bare", hello),
        Variant(framework, "ours", hello, install, goal),
        Variant(framework, "ours, watching", hello, apps.watching),
        Variant(framework, "empty middleware", hello, apps.empty_middleware),
        Variant(framework, "BaseHTTPMiddleware", hello, apps.no_middleware),
        *(Variant(framework, name.replace("_", "-"), hello, PEERS[name]) for name in PEERS),
    ]
    if framework == FAST:
        found[3:3] = [
            Variant(framework, "plain dependency", apps.fast_plain),
            Variant(framework, "yield dependency", apps.fast_around),
        ]
    return installed(found)


def spawning(framework: str, count: int = CHILDREN) -> list[Variant]:
    """Return the apps that start so many children for each request."""
    fast = framework == FAST
    hand = (apps.fast_by_hand if fast else apps.star_by_hand)(count)
    ours = (apps.fast_ours if fast else apps.star_ours)(count)
    background = (apps.fast_background if fast else apps.star_background)(count)
    found = [
        Variant(framework, "by hand", hand, None, None, count),
        Variant(framework, "ours", ours, install, 1.03, count),
        Variant(framework, "ours, watching", ours, apps.watching, 1.05, count),
        Variant(framework, "BaseHTTPMiddleware", hand, apps.no_middleware, None, count),
        Variant(framework, "asgi-background", background, apps.asgi_background, None, count),
        Variant(framework, "fastapi-disconnect", hand, apps.fastapi_disconnect, None, count),
    ]
    if fast:
        around = apps.fast_yield(count)
        found.insert(3, Variant(framework, "yield dependency", around, None, None, count))
    return installed(found)


def all_variants() -> list[Variant]:
    """Return the apps that are compared in process: with no children, and with ten."""
    return [*unused(FAST), *unused(STAR), *spawning(FAST), *spawning(STAR)]


def variant_app(framework: str, children: int, label: str) -> ASGIApp:
    """Return the app of a variant by what it is called, for another process."""
    variants = spawning(framework, children) if children else unused(framework)
    return next(variant for variant in variants if variant.label == label).make()


def installed(variants: list[Variant]) -> list[Variant]:
    missing = missing_peers()
    return [variant for variant in variants if variant.label not in missing]
