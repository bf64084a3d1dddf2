"""Work that another task can end: it is cancelled and cleans up, and the task that ran it continues."""

import asyncio
from collections.abc import Awaitable, Callable


class Scope:
    """One piece of work at a time."""

    def __init__(self) -> None:
        self._timeout: asyncio.Timeout | None = None

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Return when the work is done or was ended by `end`. Raises what the work raises."""
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
        """End the work; False if there was none."""
        if self._timeout is None or self._timeout.expired():
            return False
        self._timeout.reschedule(0)
        return True
