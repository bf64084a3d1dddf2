"""How many calls are in flight: one more after every ten good ones, half as many when the server is full (AIMD)."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

GOOD_PER_STEP = 10


class CallLimit:
    """A limit that adapts, from 1 to `most`. Calls get their places in the order in which they asked."""

    def __init__(self, *, start: int = 4, most: int = 8) -> None:
        self.most = most
        self.limit = min(start, most)
        self.in_flight = 0
        self._good = 0
        self.cuts = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place and hold it for the block, pauses between tries included."""
        await self._enter()
        try:
            yield
        finally:
            self.in_flight -= 1
            self._admit()

    def good(self) -> None:
        self._good += 1
        if self._good >= GOOD_PER_STEP:
            self._good = 0
            self.limit = min(self.limit + 1, self.most)
            self._admit()

    def full(self, cuts_at_start: int) -> None:
        """Halve the limit, unless it was halved since the call was sent: its `cuts` were that many then."""
        if cuts_at_start == self.cuts:
            self.cuts += 1
            self._good = 0
            self.limit = max(1, self.limit // 2)

    async def _enter(self) -> None:
        if self.in_flight < self.limit and not self._waiting:
            self.in_flight += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had its place already
                self.in_flight -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self.in_flight < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self.in_flight += 1
