"""A dispatcher in front of a scripted backend."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import orjson

from proxy.errors import BackendError, BackendLost
from proxy.scheduling import dispatcher as dispatcher_module
from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.dispatcher import Dispatcher, SharedSlot
from proxy.scheduling.entries import ANYBODY, Caller
from proxy.types import Ids, Matrix

SLOTS, BATCH = 4, 100
KNOWN = orjson.loads(dispatcher_module.KNOWN)[0]  # what is sent before a text that may be poison


class Engine:
    """A scripted backend: the vector of [a, b, …] is [a, count]; the guilty text fails, or is NaN, `times` times.

    It is killed during the batches that `kills` numbers, whatever is in them.
    """

    name = "scripted"

    def __init__(self, *, guilty: int = -1, error: BackendError | None = None, times: int = 1000) -> None:
        self.calls: list[list[int]] = []
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.kills = set[int]()
        self.counted: int | None = None  # how many tokens it says that an answer is for
        self._guilty, self._error, self._times = guilty, error, times

    async def send(self, texts: Sequence[bytes], *, once: bool = False) -> bytes:  # noqa: ARG002 # nothing is stale
        inputs = [orjson.loads(text) for text in texts]
        self.calls.append([ids[0] for ids in inputs])
        self.log.append(f"send {len(self.calls)}")
        await self.gate.wait()
        if len(self.calls) in self.kills:
            raise BackendLost("killed from outside")
        rows = [[float(ids[0]), len(ids)] for ids in inputs]
        if self._times and any(ids[0] == self._guilty for ids in inputs):
            self._times -= 1
            if self._error:
                raise self._error
            rows = [[np.nan if row[0] == self._guilty else row[0], row[1]] for row in rows]
        return np.array(rows, dtype=np.float32).tobytes()

    def read(self, answer: bytes, count: int) -> Matrix:
        self.log.append("read")
        return np.frombuffer(answer, dtype=np.float32).reshape(count, -1)

    def tokens_in(self, answer: bytes) -> int | None:  # noqa: ARG002 # it is told what to say
        return self.counted


@asynccontextmanager
async def serving(
    engine: Engine, *, max_tokens: int = 10**6, dimensions: int = 2, faults: list[BackendError | None] | None = None
) -> AsyncIterator[Dispatcher]:
    """A dispatcher that serves while the block lasts; after each fault it continues, as a model does."""
    queue = BatchQueue(slots=SLOTS, batch_tokens=BATCH, max_tokens=max_tokens)
    dispatcher = Dispatcher(engine, queue, SharedSlot(), dimensions=dimensions, batch_timeout_s=0.1)
    dispatcher.suspects.quiet_s = 0.02

    async def serve() -> None:
        while True:
            fault = await dispatcher.serve()
            if faults is not None:
                faults.append(fault)

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(serve())
        yield dispatcher
        working.cancel()


async def firsts(dispatcher: Dispatcher, *inputs: Ids, caller: Caller = ANYBODY) -> list[float]:
    """The first component of each vector."""
    return [float(row[0]) for row in (await dispatcher.embed(inputs, caller)).rows]


async def called(engine: Engine, times: int = 1) -> None:
    async with asyncio.timeout(5):
        while len(engine.calls) < times:
            await asyncio.sleep(0)
