"""Which page a request comes from."""

from __future__ import annotations

from starlette.requests import HTTPConnection


def is_own_page(connection: HTTPConnection) -> bool:
    """Tell whether a request comes from the board's own page, or from what is no browser.

    Browsers name the page that sends a request, and let any page open a WebSocket to any host.
    """
    origin = connection.headers.get("Origin")
    # An origin is a scheme and a host. TLS may end at a proxy, so that the scheme is another one.
    return origin is None or origin.partition("://")[2] == connection.headers.get("Host")
