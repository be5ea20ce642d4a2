"""Which addresses the board may ask."""

from __future__ import annotations

import httpx


def checked_url(url: str) -> str:
    """Return the URL as a client will use it.

    Raises:
        ValueError: If it is no plain web address.
    """
    # The parser that will fetch the URL also judges it: two parsers may see two hosts in one text.
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        msg = f"not a URL: {exc}"
        raise ValueError(msg) from None
    if parsed.scheme not in {"http", "https"}:
        msg = "only http and https are fetched"
        raise ValueError(msg)
    if not parsed.host:
        msg = "the URL names no host"
        raise ValueError(msg)
    if parsed.port is not None and not 0 < parsed.port < 65536:
        msg = "a port is a number from 1 to 65535"
        raise ValueError(msg)
    if parsed.userinfo:
        msg = "a user name or password in a URL would be shown"
        raise ValueError(msg)
    return str(parsed)
