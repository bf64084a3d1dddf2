"""The dispatcher of one backend: one batch in flight, and the next one ready when it returns."""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace

import numpy as np

from proxy import metrics
from proxy.errors import BackendError, BackendLost, BackendUnavailable, Overloaded, ProxyError
from proxy.faults import PoisonedInput
from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.entries import ANYBODY, Caller, Outcome, QueuedRequest, QueuedText, TokenizedText
from proxy.scheduling.quarantine import Suspects
from proxy.scheduling.results import BatchResult, Embedder, ResultHandler
from proxy.scheduling.throughput import ImageCost, RetrySchedule, Throughput
from proxy.scheduling.written import fillers_of, tokenized
from proxy.types import Ids, Matrix

RECENT_S = 10.0  # how long after an interactive request batches with bulk are still kept small
KNOWN = b"[64]"  # a token that every vocabulary has: a text that ends no engine


@dataclass(slots=True)
class SharedSlot:
    """Who may send a batch now, and when an interactive request was last seen. Backends that share cores share one."""

    gate: AbstractAsyncContextManager[object, bool | None] = field(default_factory=nullcontext)
    interactive_seen_at: float = -math.inf


class Dispatcher:
    """Sends the batches of one queue to its backend, one at a time."""

    def __init__(
        self, backend: Embedder, queue: BatchQueue, slot: SharedSlot, *, dimensions: int | None, batch_timeout_s: float
    ) -> None:
        self._backend = backend
        self._slot = slot
        self._batch_timeout_s = batch_timeout_s
        self._arrived = asyncio.Event()
        self._paused = False
        self._meters = metrics.QueueMeters(backend.name)
        self.suspects = Suspects()
        self._results = ResultHandler(backend, queue, self.suspects, dimensions)
        self._opened = -math.inf
        self._closed: Callable[[], ProxyError] | None = None
        self.queue = queue
        self.throughput = Throughput()
        self._image_cost = ImageCost()
        self._retry_schedule = RetrySchedule()
        self.in_flight = 0

    async def embed(self, inputs: Sequence[Ids], caller: Caller = ANYBODY, *, exclusive: bool = False) -> Outcome:
        """Compute the raw vectors of token-id inputs; see Outcome. No input may be longer than the physical batch.

        `exclusive`: each has a batch to itself, and so the same digits whatever else is computed. A cancelled caller's
        texts leave the queue. Raises Overloaded if the queue is full, PoisonedInput naming the index, DeadlineExceeded,
        or the backend's own error; for a partial caller the errors of single inputs are in `failed`.
        """
        return await self._computed(await tokenized(inputs, exclusive=exclusive), caller)

    async def embed_image(self, written: bytes, tokens: int, caller: Caller = ANYBODY) -> Matrix:
        """The row of one image in its prompt, as it is sent, (1, n_embd); the engine must count that many tokens in it.

        Raises what `embed` raises; also for a partial caller, as there are no others.
        """
        image = TokenizedText(written, self.cost_of_image(tokens), exclusive=True, image_tokens=tokens)
        return (await self._computed([image], replace(caller, partial=False))).rows

    def cost_of_image(self, tokens: int) -> int:
        """How many tokens of text take as long as an image of so many, by what this backend has computed."""
        return self._image_cost.of(tokens, self.throughput.tokens_per_s or self.throughput.guess)

    async def _computed(self, texts: Sequence[TokenizedText], caller: Caller) -> Outcome:
        if self._closed:
            raise self._closed()
        loop = asyncio.get_running_loop()
        now = loop.time()
        request = QueuedRequest(len(texts), loop.create_future(), caller, now)
        self._enqueue(request, texts, now)
        try:
            await request.done
        finally:
            self.queue.cancel(request)
        if request.repeated:
            await asyncio.to_thread(request.put_repeated)
        if caller.timing:
            caller.timing.note(request.arrived, request.sent_at, loop.time())
            caller.timing.backend, caller.timing.interactive = self._backend.name, request.interactive
        return Outcome(request.rows, request.failed)

    def close(self, reason: Callable[[], ProxyError]) -> None:
        """Fail all waiting requests and reject new ones; the batch in flight completes."""
        self._closed = reason
        self.fail_waiting(reason)

    def open(self) -> None:
        self._closed = None

    def fail_waiting(self, reason: Callable[[], ProxyError]) -> None:
        """Fail all waiting requests, each with an error of its own."""
        for request in self.queue.waiting():
            request.fail(reason())
            self.queue.cancel(request)

    def pause(self) -> None:
        """Let `serve` return when the batch in flight is done."""
        self._paused = True
        self._arrived.set()

    def overloaded(self, tokens: int, more: int = 0) -> Overloaded:
        """The error of a request of that many tokens, as the queue is full; `more` tokens will be added to it."""
        queued, now = self.queue.tokens + more, asyncio.get_running_loop().time()
        retry_after_s = self._retry_schedule.book(
            now, tokens, queued=queued, room=self.queue.max_tokens, per_s=self.throughput.drained_per_s
        )
        error = Overloaded(f"{queued} tokens are waiting already: come back later", retry_after_s=retry_after_s)
        error.queue_tokens = queued
        return error

    def _enqueue(self, request: QueuedRequest, texts: Sequence[TokenizedText], now: float) -> None:
        if self.suspects:
            texts = self._examined(request, texts, now)
        if request.done.done():
            return
        if self.queue.is_interactive(request.caller, texts):
            self._slot.interactive_seen_at = now
        shared = self.queue.enqueue(request, texts)
        if shared is None:
            raise self.overloaded(sum(one.tokens for one in texts))
        self._meters.deduplicated.inc(shared)
        self._arrived.set()

    def _examined(self, request: QueuedRequest, texts: Sequence[TokenizedText], now: float) -> list[TokenizedText]:
        """The inputs, suspects marked as such; quarantined ones fail."""
        examined = [one._replace(quiet_s=self.suspects.quiet_before(one.ids, now)) for one in texts]
        for index, one in enumerate(examined):
            if one.quiet_s == math.inf:
                request.fail_input(index, PoisonedInput(index))
        return examined

    async def serve(self) -> BackendError | None:
        """Send one batch after another to a backend that was just verified.

        Returns the backend's fault: gone, hung or wrong; None: paused. No waiting text is lost by then: those that were
        in flight are in the queue again.
        """
        self._paused = False
        self._opened = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            while not self._paused:
                self._arrived.clear()
                result = await self._run_batch() if self.queue else BatchResult()
                if not result.texts and not self._paused:
                    await self._until_needed()
                while result.texts:
                    following = None
                    if self.queue and result.error is None and not self._paused:
                        following = tasks.create_task(self._run_batch())
                        await asyncio.sleep(0)  # the next batch is sent before this result is read
                    fault = self._settle(result)
                    result = await following if following else BatchResult()
                    if fault:
                        self._settle(result)
                        return fault
        return None

    async def _until_needed(self) -> None:
        """Wait until there is something new to do, or a suspect may be retried."""
        lived_s = asyncio.get_running_loop().time() - self._opened
        with suppress(TimeoutError):
            async with asyncio.timeout(self.queue.next_suspect_in_s(lived_s)):
                await self._arrived.wait()

    async def _run_batch(self) -> BatchResult:
        """Send the next batch, composed at the last moment. A backend that never answers times out."""
        loop = asyncio.get_running_loop()
        turn = loop.time()
        async with self._slot.gate:
            started = loop.time()
            if not (texts := [] if self._paused else self._next_batch(started)):
                return BatchResult()
            self.in_flight = len(texts)
            loop.call_soon(self._count_waited, texts, started)  # once the batch is sent: metrics must not delay it
            fillers, tokens = fillers_of(texts), sum(text.tokens for text in texts)
            try:
                if texts[0].quiet_s:
                    await self._check()
                content = await self._send([*(text.ids for text in texts), *fillers], once=texts[0].quiet_s is not None)
            except BackendError as error:
                speed = self.throughput.tokens_per_s or self.throughput.guess
                return BatchResult(texts, error=error, seconds=tokens / speed)  # not how long a hang took
            finally:
                self.in_flight = 0
            seconds = loop.time() - started
            if image_tokens := texts[0].image_tokens:
                self._image_cost.record(image_tokens, seconds)
                self.throughput.total += image_tokens
            else:
                self.throughput.record(tokens, seconds, loop.time() - turn)
            return BatchResult(texts, content, len(fillers), seconds)

    async def _send(self, texts: Sequence[bytes], *, once: bool = False) -> bytes:
        try:
            async with asyncio.timeout(self._batch_timeout_s):
                return await self._backend.send(texts, once=once)
        except TimeoutError as error:
            message = f"the backend did not answer within {self._batch_timeout_s:g} s"
            raise BackendLost(message, retry_after_s=5) from error

    async def _check(self) -> None:
        """Directly before a suspect: check that the backend is right without it. Raises BackendUnavailable."""
        try:
            vectors = self._backend.read(await self._send([KNOWN]), 1)
        except BackendError as error:
            raise BackendUnavailable(error.message, retry_after_s=error.retry_after_s) from error
        if not np.isfinite(vectors).all():
            raise BackendUnavailable(f"backend {self._backend.name} gives no finite vector for any text")

    def _next_batch(self, now: float) -> list[QueuedText]:
        interactive_lately = now - self._slot.interactive_seen_at < RECENT_S
        speed, lived_s = self.throughput.tokens_per_s, now - self._opened
        return self.queue.next_batch(
            now, interactive_lately=interactive_lately, speed=speed, fastest=self.throughput.fastest, lived_s=lived_s
        )

    def _settle(self, result: BatchResult) -> BackendError | None:
        fault = self._results.settle(result)
        if result.texts and result.error is None:
            asyncio.get_running_loop().call_soon(self._count_done, result)  # after the requests that got their vectors
        return fault

    def _count_waited(self, texts: Sequence[QueuedText], now: float) -> None:
        for text in texts:
            for request, _ in text.waiters:
                if request.sent_at is None:
                    # A request that joined a text after the batch was composed has not waited.
                    request.sent_at = max(now, request.arrived)
                    self._meters.waited(request.sent_at - request.arrived, interactive=request.interactive)

    def _count_done(self, result: BatchResult) -> None:
        self._meters.batch_done(len(result.texts), sum(text.engine_tokens for text in result.texts), result.seconds)
