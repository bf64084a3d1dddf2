"""How far an engine's means are from exact ones, measured once after each verification when it is first needed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from proxy.scheduling.entries import Outcome
from proxy.types import Ids, Matrix

log = logging.getLogger(__name__)

TOKEN = 64  # one that every vocabulary has; a letter in most
ROUNDING_LENGTHS = (17, 67, 251)  # the first needs fillers; no powers of two, whose 1/n no format rounds


class RoundingCheck:
    """Belongs to one verified backend. Concurrent callers wait for the one that measures.

    If that one is cancelled or runs out of time, the next one measures, with its own share and deadline.
    """

    def __init__(self) -> None:
        self._measuring = asyncio.Lock()
        self._error: float | None = None

    async def error(self, name: str, longest: int, embed: Callable[[Sequence[Ids]], Awaitable[Outcome]]) -> float:
        """The relative error; see `rounding_error`. `longest` is how many tokens fit one batch.

        `embed` computes each text in a batch of its own; its errors are raised.
        """
        async with self._measuring:
            if self._error is None:
                lengths = [n for n in ROUNDING_LENGTHS if n <= longest]
                outcome = await embed([[TOKEN] * n for n in lengths])
                self._error = rounding_error(outcome.rows)
                log.info("backend %s: means are exact to %.1e", name, self._error)
            return self._error


def rounding_error(rows: Matrix) -> float:
    """How far the engine's means are from the true ones, relative; `rows`: one token repeated, ROUNDING_LENGTHS times.

    Each token of such a text sees nothing but itself: all states are equal, and so would be all exact means.
    """
    exact = rows.astype(np.float64)
    middle = exact.mean(axis=0)
    return float(np.linalg.norm(exact - middle, axis=1).max() / np.linalg.norm(middle))
