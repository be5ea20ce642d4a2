"""The module that the README's examples call their own; it tells what became of its calls."""

import asyncio

from fastapi import HTTPException

told: list[str] = []


async def ask_price(shop: str) -> float:
    """Return a price after a while; the shop "closed" fails at once."""
    if shop == "closed":
        raise HTTPException(503, "the shop is closed")
    try:
        await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        told.append(f"{shop}: cancelled")
        raise
    told.append(f"{shop}: answered")
    return 9.99


async def count_search(shops: str) -> None:
    """Count, which takes longer than asking; the search for "uncountable" fails."""
    if shops == "uncountable":
        msg = "can't count"
        raise ValueError(msg)
    await asyncio.sleep(1)
    told.append("counted")
