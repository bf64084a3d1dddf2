"""A llama-server with `--pooling none` beside a model's own: the state of each token, read as the answer arrives.

Its answer has 40 KB of JSON for each token of 2048 numbers, a third of a GB for 8192 tokens, and no other form. Read
row by row it takes the memory of the matrix and little more, and keeps the loop for some milliseconds at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import numpy as np
import orjson

from proxy.backend import Backend, connect
from proxy.config import BackendSettings, TokenBackendSettings
from proxy.embedding import Ids, Matrix, Vector
from proxy.errors import BackendError, BadVector
from proxy.work import Outcome

ROW_MOST = 4 * 2**20  # bytes; longer than any token's state
SAME_COSINE = 0.999  # of one model's vectors by two processes, as a mean by them and by us; other models are below

Pooled = Callable[[Sequence[Ids]], Awaitable[Outcome]]


class Rows:
    """The innermost arrays of `[{"index":0,"embedding":[[…],[…]]}]`, fed in pieces cut anywhere."""

    def __init__(self) -> None:
        self.vectors: list[Vector] = []
        self._rest = b""
        self._inside = self._ended = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes; null is NaN. Raises ValueError for what is not such an answer."""
        if self._ended:
            return
        self._rest += piece
        if not self._inside:
            start = self._rest.find(b"[[")
            self._inside, self._rest = start >= 0, self._rest[max(start, 0) :].replace(b"[[", b"[", 1)
        if self._inside:
            *rows, self._rest = self._rest.split(b"]")
            for row in rows:
                self._read(row)
        if len(self._rest) > ROW_MOST:
            raise ValueError(f"{self._rest[:80]!r}")

    def _read(self, row: bytes) -> None:
        _, bracket, numbers = row.partition(b"[")
        self._ended = self._ended or not bracket
        if not self._ended:
            self.vectors.append(np.array(orjson.loads(b"[%b]" % numbers), dtype=np.float32))


class TokenBackend:
    """The states of one model's tokens; a `TokenStates`. One text at a time: each fills the engine's batch by itself.

    Before its first answer is used, the mean of a text's states is compared with the model's own vector of that text.
    """

    def __init__(self, backend: Backend, pooled: Pooled) -> None:
        self._backend = backend
        self._pooled = pooled
        self._turn = asyncio.Lock()
        self._proven = False

    async def states(self, ids: Ids) -> Matrix:
        """One row per token, float32, (n, width), not normalised. Raises BackendError or a subclass."""
        async with self._turn:
            try:
                states = await self._ask(ids)
                if not self._proven:
                    await self._prove(ids, states)
                    self._proven = True
            except BackendError:
                self._proven = False  # whoever comes back there may be another
                raise
            return states

    async def _ask(self, ids: Ids) -> Matrix:
        body = orjson.dumps({"content": ids, "embd_normalize": -1}, option=orjson.OPT_SERIALIZE_NUMPY)
        rows, name = Rows(), self._backend.name
        try:
            async with aclosing(self._backend.stream("/embedding", body)) as pieces:
                async for piece in pieces:
                    rows.feed(piece)
            found = np.array(rows.vectors, dtype=np.float32)
        except ValueError as error:
            raise BackendError(f"{name} answered something that is not tokens' states: {error}") from error
        if len(found) != len(ids):
            raise BackendError(
                f"{name} gave {len(found)} states for {len(ids)} tokens: start that llama-server with --pooling none"
            )
        if not np.isfinite(found).all():
            raise BadVector(f"{name} gave a state that is not finite")
        return found

    async def _prove(self, ids: Ids, states: Matrix) -> None:
        (own,) = (await self._pooled([ids])).rows.astype(np.float64)
        mean = states.mean(axis=0, dtype=np.float64)
        if own.shape != mean.shape or not own @ mean >= SAME_COSINE * np.linalg.norm(own) * np.linalg.norm(mean):
            raise BackendError(f"{self._backend.name} has another model than its own backend: give both the same file")


@asynccontextmanager
async def token_backend(name: str, settings: TokenBackendSettings, pooled: Pooled) -> AsyncIterator[TokenBackend]:
    """The one of that backend for as long as the block lasts; it need not be up yet. `pooled` gives the model's own."""
    where = BackendSettings(url=settings.url, api_key=settings.api_key)
    async with connect(f"{name} (token-level)", where) as backend:
        yield TokenBackend(backend, pooled)
