"""Shops for the README's handlers, which tell what becomes of the calls."""

import asyncio

from fastapi import HTTPException


class Shop:
    """What the README's first program calls, for a test that wants to know."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    async def ask_price(self, shop: str) -> float:
        """Return a price after a while; the shop "closed" fails at once."""
        if shop == "closed":
            raise HTTPException(503, "the shop is closed")
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            self.told.append(f"{shop}: cancelled")
            raise
        self.told.append(f"{shop}: answered")
        return 9.99

    async def count_search(self, shops: str) -> None:
        """Count, which takes longer than asking; the search for "uncountable" fails."""
        if shops == "uncountable":
            msg = "can't count"
            raise ValueError(msg)
        await asyncio.sleep(1)
        self.told.append("counted")
