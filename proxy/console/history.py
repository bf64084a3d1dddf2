"""How many tokens a second each backend computed in the last ten minutes."""

import asyncio
from collections import deque
from collections.abc import Mapping

from proxy.models.served_model import ServedModel

STEP_S = 5.0
POINTS = 120


class SpeedHistory:
    """A point for each STEP_S, the latest last; it is 0 while a backend has nothing to do."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._models = models
        self._totals = self._read()
        self._points = {name: deque[float](maxlen=POINTS) for name in models}

    async def record(self) -> None:
        """Add points until cancelled."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(STEP_S)
            now = loop.time()
            self.sample(now - before)
            before = now

    def sample(self, seconds: float) -> None:
        """Add a point for what was computed since the last one, so many seconds ago."""
        totals = self._read()
        for name, total in totals.items():
            self._points[name].append(round((total - self._totals[name]) / seconds, 1))
        self._totals = totals

    def points(self, name: str) -> list[float]:
        return list(self._points[name])

    def _read(self) -> dict[str, int]:
        return {name: model.dispatcher.throughput.total for name, model in self._models.items()}
