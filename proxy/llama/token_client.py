"""The client of a llama-server with `--pooling none`, which gives the state of every token."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import simdjson

from proxy.errors import BackendError
from proxy.llama.client import LlamaClient
from proxy.types import Ids, Matrix

PIECE_BYTES = 2**20  # parsed at a time, about 10 ms with the GIL held


@dataclass(frozen=True, slots=True)
class TokenClient(LlamaClient):
    """One text in each batch; its vector is its token states in order, not normalised: tokens * n_embd.

    llama-server writes them only as JSON, 40 KB and 1.1 ms a token; here they never become Python floats.
    """

    async def embed(self, inputs: Sequence[Ids]) -> Matrix:
        """The mean over each input's tokens, (n, n_embd). Raises BackendError."""
        rows = []
        for ids in inputs:
            packed = await self.send([orjson.dumps(ids, option=orjson.OPT_SERIALIZE_NUMPY)])
            rows.append(states_of(self.read(packed, 1), len(ids), self.name).mean(axis=0, dtype=np.float64))
        return np.array(rows, dtype=np.float32)

    async def send(self, texts: Sequence[bytes], *, once: bool = False) -> bytes:
        """The states of the one text's tokens as float32. Raises BackendLost, BackendError."""
        post = self._post_once if once else self._post
        async with self.lock:
            answer = await post("/embeddings", b'{"input":[%b],"embd_normalize":-1}' % b",".join(texts))
        try:
            return await asyncio.to_thread(_packed, answer)
        except (TypeError, ValueError) as error:
            raise BackendError(f"backend {self.name} answered something that is not token states: {error!r}") from error

    def read(self, answer: bytes, count: int) -> Matrix:
        """The result of `send` as one row for each of `count` texts: (1, tokens * n_embd)."""
        return np.frombuffer(answer, dtype="<f4").reshape(count, -1)

    def tokens_in(self, answer: bytes) -> None:
        """It does not say: `states_of` checks that there is a state for each."""


def states_of(rows: Matrix, tokens: int, backend: str) -> Matrix:
    """A text's row as one state for each of its tokens, (tokens, n_embd). Raises BackendError if it does not fit."""
    if rows.size % tokens:
        raise BackendError(f"backend {backend} gave no state for each token: start it with --pooling none")
    return rows.reshape(tokens, -1)


def _packed(answer: bytes) -> bytes:
    parser = simdjson.Parser()
    pieces = (np.frombuffer(parser.parse(piece).as_buffer(of_type="d")) for piece in _pieces(answer))  # type: ignore[union-attr] # an array
    return b"".join(piece.astype("<f4").tobytes() for piece in pieces)


def _pieces(answer: bytes) -> Iterator[bytes]:
    """The rows in `[{"index":0,"embedding":[[…],[…]]}]`, some at a time, as JSON. Raises ValueError."""
    start, end = answer.index(b"[[") + 1, answer.rindex(b"]]") + 1
    while start < end:
        stop = answer.index(b"]", min(start + PIECE_BYTES, end - 1)) + 1
        yield b"[%b]" % answer[start:stop]
        start = stop + 1  # behind the comma
