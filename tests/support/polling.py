"""Waits for what another process or task does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 60.0


async def until(found: Callable[[], Awaitable[T | None]]) -> T:
    """The first result that is not None or False."""
    async with asyncio.timeout(DEADLINE_S):
        while not (result := await found()):
            await asyncio.sleep(0.02)
        return result
