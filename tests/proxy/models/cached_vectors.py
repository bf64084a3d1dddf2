"""A model of four dimensions that counts what it computes, and its vectors through a cache."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from proxy.faults import PoisonedInput
from proxy.models.cache import Cache, key_of
from proxy.models.cache import cached as cached_by_key
from proxy.models.vector_store import OVERHEAD_BYTES
from proxy.scheduling.entries import Outcome
from proxy.types import Ids

DIMENSIONS = 4
ENTRY = 4 * DIMENSIONS + OVERHEAD_BYTES


def vector(space: str, ids: Ids) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """What the model of that space gives: no two are alike."""
    return np.frombuffer(key_of(space, ids)[: 4 * DIMENSIONS], dtype="<u4").astype(np.float32)


async def cached(
    cache: Cache,
    space: str,
    inputs: Sequence[Ids],
    compute: Callable[[Sequence[Ids]], Awaitable[Outcome]],
    still_there: Callable[[], bool],
) -> Outcome:
    """The vectors of texts in that space."""
    keys = [key_of(space, ids) for ids in inputs]
    return await cached_by_key(cache, keys, lambda missing: compute([inputs[at] for at in missing]), still_there)


class Model:
    """Computes `vector`, after a turn of the loop, and counts; id 13 is poison."""

    def __init__(self, space: str) -> None:
        self.space = space
        self.computed = 0

    async def __call__(self, inputs: Sequence[Ids]) -> Outcome:
        await asyncio.sleep(0)
        self.computed += len(inputs)
        rows = np.stack([vector(self.space, ids) for ids in inputs])
        return Outcome(rows, {row: PoisonedInput(row) for row, ids in enumerate(inputs) if 13 in ids})
