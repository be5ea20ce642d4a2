"""Sends a change to the webhook."""

from __future__ import annotations

import asyncio
import logging

import httpx

from example_app.status import Change

TIMEOUT = 10.0

logger = logging.getLogger(__name__)


async def send(client: httpx.AsyncClient, url: str, change: Change) -> bool:
    """Send a change, and tell whether it was taken, with a status from 200 to 299.

    The id is in a header too, so that a receiver can tell a repeat before it reads the body. The
    address is in no log: for many services it is all that one needs to write there.
    """
    request = client.build_request(
        "POST",
        url,
        content=change.model_dump_json(),
        headers={"Content-Type": "application/json", "Webhook-Id": change.id},
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            response = await client.send(request, stream=True)
            await response.aclose()
    except (TimeoutError, httpx.HTTPError, OSError) as exc:
        logger.warning("the webhook can't be reached: %s", type(exc).__name__)
        return False
    if not response.is_success:
        logger.warning("the webhook answered with status %d", response.status_code)
    return response.is_success
