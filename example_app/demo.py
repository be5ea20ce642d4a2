"""Two services to watch where there is no internet: one is slow, one is flaky."""

from __future__ import annotations

import asyncio
import random
import time

from fastapi import APIRouter, HTTPException

router = APIRouter(prefix="/demo", include_in_schema=False)


@router.get("/slow")
async def slow() -> dict[str, str]:
    """Answer after a moment, now and then after a long one."""
    await asyncio.sleep(random.triangular(0.2, 1.2, 0.4))
    return {"status": "at last"}


@router.get("/flaky")
async def flaky() -> dict[str, str]:
    """Fail for twenty seconds of every ninety."""
    if time.time() % 90 < 20:
        raise HTTPException(503, "out of order, for some seconds")
    await asyncio.sleep(random.uniform(0.01, 0.08))
    return {"status": "ok, for now"}
