"""Vectors that were computed before, by exactly what they depend on. Off unless the configuration gives it bytes.

A key is the vector space (file, pooling, Unicode form, prefixes) and a text's token ids, prefix included; a value is
the raw vector in full size, so that any `dimensions` and `normalized` are served from it. SQLite keeps them, in memory
or in a file that outlives us; what was used least recently makes room.
"""

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from proxy import metrics
from proxy.embedding import Ids, Matrix, Vector
from proxy.settings_file import ConfigError
from proxy.work import Outcome

log = logging.getLogger(__name__)

T = TypeVar("T")
NOTHING: Matrix = np.empty((0, 0), dtype=np.float32)
OVERHEAD_BYTES = 150  # of an entry beside its vector: its key and what SQLite adds (measured: 8332 for 8192)


def key_of(space: str, ids: Ids) -> bytes:
    """32 bytes that no other text, and none in another vector space, has (SHA-256)."""
    return hashlib.sha256(space.encode() + b"\0" + np.asarray(ids, dtype="<i4").tobytes()).digest()


@asynccontextmanager
async def opened(size_bytes: int, path: Path | None, dimensions: int) -> AsyncIterator["Cache | None"]:
    """The cache that the configuration asks for; None without bytes. Raises ConfigError for a file that is none."""
    if not size_bytes:
        yield None
        return
    try:
        connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        cache = Cache(connection, size_bytes, dimensions)
    except sqlite3.Error as error:
        raise ConfigError(f"cache_file = {path}: {error}; name another file, or delete it") from error
    with closing(connection):
        yield cache


class Cache:
    """At most `size_bytes` of vectors. A database that fails (a full disk) finds nothing and keeps nothing."""

    def __init__(self, connection: sqlite3.Connection, size_bytes: int, dimensions: int) -> None:
        self.dimensions = dimensions
        self._connection = connection
        self._size_bytes = size_bytes
        self._turn = asyncio.Lock()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # what a crash loses is computed again
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS vector (key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL)"
        )
        connection.execute("CREATE INDEX IF NOT EXISTS by_use ON vector (used)")
        (self._clock, self._bytes) = connection.execute(
            "SELECT coalesce(max(used), 0), coalesce(sum(length(value) + ?), 0) FROM vector", (OVERHEAD_BYTES,)
        ).fetchone()

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, Vector]:
        """Those that are there: float32, of full size."""
        return await self._in_turn(partial(self._get, keys), {})

    async def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """Keep these, and drop what was used least recently."""
        await self._in_turn(partial(self._put, vectors), None)

    async def _in_turn(self, work: Callable[[], T], otherwise: T) -> T:
        async with self._turn:
            try:
                return await asyncio.to_thread(work)
            except sqlite3.Error as error:
                log.warning("the cache fails: %s", error)
                return otherwise

    def _get(self, keys: Sequence[bytes]) -> Mapping[bytes, Vector]:
        self._clock += 1
        query = f"SELECT key, value FROM vector WHERE key IN ({','.join('?' * len(keys))})"  # noqa: S608 # only marks
        rows = self._connection.execute(query, keys).fetchall()
        used = [(self._clock, key) for key, _ in rows]
        self._connection.executemany("UPDATE vector SET used = ? WHERE key = ?", used)
        whole = 4 * self.dimensions
        return {key: np.frombuffer(value, dtype="<f4") for key, value in rows if len(value) == whole}

    def _put(self, vectors: Mapping[bytes, Vector]) -> None:
        self._clock += 1
        for key, vector in vectors.items():
            row = (key, vector.astype("<f4", copy=False).tobytes(), self._clock)
            added = self._connection.execute("INSERT OR IGNORE INTO vector VALUES (?, ?, ?)", row).rowcount
            self._bytes += added * (vector.nbytes + OVERHEAD_BYTES)
        while self._bytes > self._size_bytes:
            self._drop()
        self._connection.execute("PRAGMA incremental_vacuum")

    def _drop(self) -> None:
        dropped = self._connection.execute(
            "DELETE FROM vector WHERE key IN (SELECT key FROM vector ORDER BY used LIMIT 64) RETURNING length(value)"
        ).fetchall()
        self._bytes -= sum(length + OVERHEAD_BYTES for (length,) in dropped)


async def through(
    cache: Cache,
    space: str,
    inputs: Sequence[Ids],
    compute: Callable[[Sequence[Ids]], Awaitable[Outcome]],
    still_there: Callable[[], bool],
) -> Outcome:
    """What `compute` gives for the inputs, of which only those are computed that the cache does not have.

    What is computed is kept, if `still_there` says that the same model was there all the time.
    """
    keys = [key_of(space, ids) for ids in inputs]
    known = await cache.get(keys)
    missing = [index for index, key in enumerate(keys) if key not in known]
    metrics.CACHED.labels("hit").inc(len(keys) - len(missing))
    metrics.CACHED.labels("miss").inc(len(missing))
    found = await compute([inputs[index] for index in missing]) if missing else Outcome(NOTHING, {})
    failed = {missing[row]: error for row, error in found.failed.items()}
    fresh = {missing[row]: vector for row, vector in enumerate(found.rows) if missing[row] not in failed}
    if still_there():
        await cache.put({keys[index]: vector for index, vector in fresh.items()})
    rows = np.zeros((len(keys), cache.dimensions), dtype=np.float32)
    for index, key in enumerate(keys):
        if index not in failed:
            rows[index] = fresh[index] if index in fresh else known[key]
    return Outcome(rows, failed)
