"""Work that others can tell to end: it is cancelled, cleans up, and whoever ran it goes on."""

import asyncio
from collections.abc import Awaitable, Callable


class Scope:
    """One piece of work at a time."""

    def __init__(self) -> None:
        self._timeout: asyncio.Timeout | None = None

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Return when the work is done, or has ended because it was told to. Raises what it raises."""
        try:
            async with asyncio.timeout(None) as timeout:
                self._timeout = timeout
                await work()
        except TimeoutError:
            if not timeout.expired():
                raise
        finally:
            self._timeout = None

    def end(self) -> bool:
        """Tell the work to end; whether there was any."""
        if self._timeout is None or self._timeout.expired():
            return False
        self._timeout.reschedule(0)
        return True
