"""How far an engine's means are from exact ones: measured once for each verification, whoever asks first."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from proxy.embedding import chunk_means
from proxy.scheduling.entries import Outcome
from proxy.types import Ids

log = logging.getLogger(__name__)


class RoundingCheck:
    """Belongs to one verified backend. Callers that ask meanwhile wait for the one that measures.

    If that one leaves or runs out of time, the next one measures, with its own share and deadline.
    """

    def __init__(self) -> None:
        self._measuring = asyncio.Lock()
        self._error: float | None = None

    async def error(self, name: str, longest: int, embed: Callable[[Sequence[Ids]], Awaitable[Outcome]]) -> float:
        """The relative error; see `late.noise`. `longest` is how many tokens fit one batch.

        `embed` computes texts each in a call of its own; what it raises is raised.
        """
        async with self._measuring:
            if self._error is None:
                lengths = [n for n in chunk_means.NOISE_LENGTHS if n <= longest]
                outcome = await embed([[chunk_means.NOISE_TOKEN] * n for n in lengths])
                self._error = chunk_means.noise(outcome.rows)
                log.info("backend %s: means are exact to %.1e", name, self._error)
            return self._error
