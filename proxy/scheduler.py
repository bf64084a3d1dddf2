"""One line per backend: who is admitted, and what goes into the next call.

llama-server must never hold more than one batch that fits its slots and its physical batch: more gives wrong vectors,
500s and starvation (traps T2, T4, T9). So the waiting is done here. `Line` decides, in plain code; `Lane` acts.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from proxy.embedding import Ids, Matrix
from proxy.errors import BackendError, BackendUnavailable, BadVector, Draining, Overloaded, ProxyError


class Embedder(Protocol):
    """What a lane asks of its backend: raw vectors of token-id inputs, in their order."""

    async def embed(self, inputs: Sequence[Ids]) -> Matrix: ...


@dataclass(slots=True, eq=False)
class Job:
    """One request's texts in a line. `done` gets the whole matrix, or the first error."""

    inputs: Sequence[Ids]
    done: asyncio.Future[Matrix]
    next: int = 0
    rows: dict[int, Matrix] = field(default_factory=dict)

    def deliver(self, index: int, row: Matrix) -> None:
        self.rows[index] = row
        if len(self.rows) == len(self.inputs) and not self.done.done():
            self.done.set_result(np.stack([self.rows[i] for i in range(len(self.inputs))]))

    def fail(self, error: ProxyError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


Piece = tuple[Job, int]  # one text of a job, by its index


class Line:
    """Jobs in turn: each call takes from every job as much as fits, oldest first, and a job that got some goes last.

    A text that finds no room keeps its job's place, and the first in line always fits, so nothing starves.
    """

    def __init__(self, *, slots: int, batch_tokens: int, max_items: int) -> None:
        self._slots = slots
        self._batch_tokens = batch_tokens
        self._max_items = max_items
        self._jobs: deque[Job] = deque()
        self.items = 0
        self.tokens = 0

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def admit(self, job: Job) -> bool:
        """Put the job in line, or say no: the line is full. An empty line takes any one job."""
        if self.items and self.items + len(job.inputs) > self._max_items:
            return False
        self._jobs.append(job)
        self._count(job, +1)
        return True

    def drop(self, job: Job) -> None:
        """Take out what of the job is still waiting; nothing happens if that is nothing."""
        if job in self._jobs:
            self._jobs.remove(job)
            self._count(job, -1)

    def take(self) -> list[Piece]:
        """The next call: at most `slots` texts and `batch_tokens` tokens, and never empty while anybody waits."""
        pieces: list[Piece] = []
        room = self._batch_tokens
        kept: list[Job] = []
        served: list[Job] = []
        while self._jobs and len(pieces) < self._slots:
            job = self._jobs.popleft()
            taken = self._fitting(job, self._slots - len(pieces), room)
            room -= sum(len(job.inputs[index]) for index in taken)
            pieces += [(job, index) for index in taken]
            if job.next < len(job.inputs):
                (served if taken else kept).append(job)
        self._jobs.extendleft(reversed(kept))
        self._jobs.extend(served)
        self.items -= len(pieces)
        self.tokens -= self._batch_tokens - room
        return pieces

    def _fitting(self, job: Job, slots: int, room: int) -> range:
        first = job.next
        while job.next < len(job.inputs) and job.next - first < slots and len(job.inputs[job.next]) <= room:
            room -= len(job.inputs[job.next])
            job.next += 1
        return range(first, job.next)

    def _count(self, job: Job, sign: int) -> None:
        self.items += sign * (len(job.inputs) - job.next)
        self.tokens += sign * sum(len(ids) for ids in job.inputs[job.next :])


class Lane:
    """The line of one backend and the one call that is in flight there."""

    def __init__(self, backend: Embedder, line: Line, *, dimensions: int, call_timeout_s: float) -> None:
        self._backend = backend
        self._line = line
        self._dimensions = dimensions
        self._call_timeout_s = call_timeout_s
        self._arrived = asyncio.Event()
        self._tokens_per_s = 0.0
        self._draining = False

    @property
    def waiting(self) -> int:
        """Texts in line, not counting those in flight."""
        return self._line.items

    async def embed(self, inputs: Sequence[Ids]) -> Matrix:
        """The raw vectors of token-id inputs, float32, shape (n, n_embd), every value finite.

        No input may be longer than the backend's physical batch. A caller that is cancelled leaves the line.
        Raises Overloaded if the line is full, BadVector naming the index, or the backend's own error.
        """
        if self._draining:
            raise _draining()
        job = Job(inputs, asyncio.get_running_loop().create_future())
        if not self._line.admit(job):
            raise Overloaded(f"{self.waiting} texts are waiting already", retry_after_s=self._drain_s())
        self._arrived.set()
        try:
            return await job.done
        finally:
            self._line.drop(job)

    def drain(self) -> None:
        """Admit nobody any more and send home who still waits; the call in flight is finished."""
        self._draining = True
        self.dismiss(_draining())

    def dismiss(self, error: ProxyError) -> None:
        """Send home who waits, with that error."""
        for job in self._line:
            job.fail(error)

    async def serve(self) -> BackendError:
        """Send one call after another; returns the error that makes the backend doubtful: gone, hung or wrong."""
        while True:
            pieces = self._line.take()
            if not pieces:
                self._arrived.clear()
                await self._arrived.wait()
            elif doubt := await self._send(pieces):
                return doubt

    async def _send(self, pieces: list[Piece]) -> BackendError | None:
        """Deliver each piece's vector or error. A shared call that fails is taken apart, so only the guilty fail."""
        try:
            vectors = await self._call([job.inputs[index] for job, index in pieces])
        except BackendError as error:
            if len(pieces) == 1 or isinstance(error, BackendUnavailable | BadVector):
                for job, _ in pieces:
                    job.fail(error)
                return error if isinstance(error, BackendUnavailable | BadVector) else None
            middle = len(pieces) // 2
            first, second = await self._send(pieces[:middle]), await self._send(pieces[middle:])
            return first or second
        doubt = None
        for (job, index), vector in zip(pieces, vectors, strict=True):
            if np.isfinite(vector).all():
                job.deliver(index, vector)
            else:
                doubt = BadVector(f"the model gave a vector that is not finite for input {index}", param="input")
                job.fail(doubt)
        return doubt

    async def _call(self, inputs: list[Ids]) -> Matrix:
        """One call; a backend that never answers must not hold the line for ever."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._call_timeout_s):
                vectors = await self._backend.embed(inputs)
        except TimeoutError as error:
            message = f"the backend did not answer within {self._call_timeout_s:g} s"
            raise BackendUnavailable(message, retry_after_s=5) from error
        if vectors.shape != (len(inputs), self._dimensions):
            raise BadVector(f"the backend gave {vectors.shape[1]} dimensions, the family has {self._dimensions}")
        self._measure(sum(map(len, inputs)), time.perf_counter() - started)
        return vectors

    def _measure(self, tokens: int, seconds: float) -> None:
        speed = tokens / seconds
        self._tokens_per_s = 0.8 * self._tokens_per_s + 0.2 * speed if self._tokens_per_s else speed

    def _drain_s(self) -> int:
        """Whole seconds until the line should be empty at the speed last seen."""
        return min(600, 1 + int(self._line.tokens / self._tokens_per_s)) if self._tokens_per_s else 5


def _draining() -> Draining:
    return Draining("the server is stopping", retry_after_s=5)
