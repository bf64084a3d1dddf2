"""A cache of computed vectors, keyed by exactly what they depend on. Off unless the configuration gives it bytes.

A key is the vector space (file, pooling, Unicode form, prefixes) and a text's token ids, prefix included, or an image's
pixels; a value is the raw vector in full size, so that any `dimensions` and `normalized` are served from it.
`VectorStore` keeps them, in memory or in a file that outlives the process.
"""

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np

from proxy import metrics
from proxy.models.vector_store import VectorStore
from proxy.scheduling.entries import Outcome
from proxy.types import Ids, Matrix, Vector

log = logging.getLogger(__name__)

NOTHING: Matrix = np.empty((0, 0), dtype=np.float32)
READ_TIMEOUT_S = 2.0  # for a disk that hangs: computing is quicker
MAX_UNWRITTEN_BYTES = 64 * 2**20  # waiting to be written; with a disk slower than the engine some are not kept


def key_of(space: str, ids: Ids) -> bytes:
    """The SHA-256 of the vector space and the ids."""
    return hashlib.sha256(space.encode() + b"\0" + np.asarray(ids, dtype="<i4").tobytes()).digest()


def key_of_image(space: str, digest: bytes) -> bytes:
    """The SHA-256 of the images' vector space and the digest of an image's pixels."""
    return hashlib.sha256(space.encode() + b"\0image\0" + digest).digest()


@asynccontextmanager
async def open_cache(size_bytes: int, path: Path | None, dimensions: int) -> AsyncIterator["Cache | None"]:
    """The cache that the configuration asks for; None without bytes, or while the disk is full or the file locked.

    Raises BadSettings for a path where no file can be.
    """
    if not size_bytes:
        yield None
        return
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, "cache")
    try:
        try:
            store = await loop.run_in_executor(thread, VectorStore, path, size_bytes, dimensions)
        except sqlite3.Error as error:
            log.warning("cache_file = %s: %s: served without a cache", path, error)
            yield None
            return
        try:
            yield Cache(store, thread, dimensions)
        finally:
            await loop.run_in_executor(thread, store.close)  # behind all writes
    finally:
        thread.shutdown(wait=False)


class Cache:
    """The store, used in its own thread. One that fails or hangs never costs a request its answer."""

    def __init__(self, store: VectorStore, thread: ThreadPoolExecutor, dimensions: int) -> None:
        self.dimensions = dimensions
        self._store = store
        self._thread = thread
        self._unwritten = 0

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, Vector]:
        """The vectors that are there: float32, of full size. The thread finishes even if the caller is cancelled."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._store.get, keys)
        except TimeoutError:
            return {}

    def keep(self, used: Collection[bytes], fresh: Mapping[bytes, Vector]) -> None:
        """Store the fresh ones, and which were used, in the background: no answer waits for it."""
        size = sum(vector.nbytes for vector in fresh.values())
        if self._unwritten + size > MAX_UNWRITTEN_BYTES or not (used or fresh):
            return
        self._unwritten += size
        work = partial(self._store.keep, used, fresh)
        asyncio.get_running_loop().run_in_executor(self._thread, work).add_done_callback(lambda _: self._written(size))

    def _written(self, size: int) -> None:
        self._unwritten -= size


async def cached(
    cache: Cache,
    keys: Sequence[bytes],
    compute: Callable[[Sequence[int]], Awaitable[Outcome]],
    still_there: Callable[[], bool],
) -> Outcome:
    """The vectors of inputs with these keys; `compute` gets the indices of those that the cache does not have.

    The computed vectors are kept if `still_there` says that the same verified backend computed them all.
    """
    known = await cache.get(keys)
    missing = [index for index, key in enumerate(keys) if key not in known]
    metrics.CACHED.labels("hit").inc(len(keys) - len(missing))
    metrics.CACHED.labels("miss").inc(len(missing))
    found = await compute(missing) if missing else Outcome(NOTHING, {})
    failed = {missing[row]: error for row, error in found.failed.items()}
    fresh = {missing[row]: vector for row, vector in enumerate(found.rows) if missing[row] not in failed}
    cache.keep(known.keys(), {keys[index]: row for index, row in fresh.items()} if still_there() else {})
    rows = np.zeros((len(keys), cache.dimensions), dtype=np.float32)
    for index, key in enumerate(keys):
        if index not in failed:
            rows[index] = fresh[index] if index in fresh else known[key]
    return Outcome(rows, failed)
