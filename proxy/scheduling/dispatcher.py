"""The line of one backend at work: one call in flight, the next one ready when it returns."""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field

import numpy as np
import orjson

from proxy import metrics
from proxy.errors import BackendError, BackendLost, BackendUnavailable, Overloaded, PoisonedInput, ProxyError
from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.entries import ANYBODY, Caller, Outcome, QueuedRequest, QueuedText, TokenizedText
from proxy.scheduling.quarantine import Suspects
from proxy.scheduling.results import BatchResult, Embedder, ResultHandler
from proxy.scheduling.throughput import Returns, Throughput
from proxy.types import Ids

RECENT_S = 10.0  # how long after an interactive request calls with bulk are still kept small
# llama.cpp's kernels round otherwise in a batch of fewer (measured on a CPU): a shorter text that goes alone is filled.
MIN_EXCLUSIVE_TOKENS = 64
KNOWN = b"[64]"  # a token that every vocabulary has: a text that ends no engine
LARGE_TOKENS = 50_000  # tokens from which writing the ids is worth a thread: about 2 ms of the loop


@dataclass(slots=True)
class SharedSlot:
    """Who may call now, and when somebody interactive was here last. Backends that share cores share one."""

    gate: AbstractAsyncContextManager[object, bool | None] = field(default_factory=nullcontext)
    interactive_seen_at: float = -math.inf


class Dispatcher:
    """The line of one backend, and the one call that is in flight there."""

    def __init__(
        self, backend: Embedder, line: BatchQueue, slot: SharedSlot, *, dimensions: int | None, call_timeout_s: float
    ) -> None:
        self._backend = backend
        self._slot = slot
        self._call_timeout_s = call_timeout_s
        self._arrived = asyncio.Event()
        self._paused = False
        self._meters = metrics.LaneMeters(backend.name)
        self.suspects = Suspects()
        self._delivery = ResultHandler(backend, line, self.suspects, dimensions)
        self._opened = -math.inf
        self._closed: Callable[[], ProxyError] | None = None
        self.line = line
        self.throughput = Throughput()
        self._returns = Returns()
        self.in_flight = 0

    async def embed(self, inputs: Sequence[Ids], caller: Caller = ANYBODY, *, alone: bool = False) -> Outcome:
        """The raw vectors of token-id inputs; see Outcome. No input may be longer than the physical batch.

        `alone`: each has a call to itself, and so the same digits whatever else is computed. A caller that is cancelled
        leaves the line. Raises Overloaded if the line is full, PoisonedInput naming the index, DeadlineExceeded, or the
        backend's own error; for a partial caller those of an input are in `failed`.
        """
        if sum(map(len, inputs)) < LARGE_TOKENS:
            asked = _written(inputs, alone)
        else:
            asked = await asyncio.to_thread(_written, inputs, alone)
        if self._closed:
            raise self._closed()
        loop = asyncio.get_running_loop()
        now = loop.time()
        job = QueuedRequest(len(inputs), loop.create_future(), caller, now)
        self._admit(job, asked, now)
        try:
            await job.done
        finally:
            self.line.drop(job)
        return Outcome(job.rows, job.failed)

    def close(self, reason: Callable[[], ProxyError]) -> None:
        """Send home who waits, and from now on who comes; the call in flight is finished."""
        self._closed = reason
        self.fail_waiting(reason)

    def open(self) -> None:
        self._closed = None

    def fail_waiting(self, reason: Callable[[], ProxyError]) -> None:
        """Send home who waits."""
        for job in self.line.waiting():
            job.fail(reason())
            self.line.drop(job)

    def pause(self) -> None:
        """Let `serve` return when the call in flight is done."""
        self._paused = True
        self._arrived.set()

    def overloaded(self, tokens: int, more: int = 0) -> Overloaded:
        """The refusal of a request of so many while the line is full, and `more` tokens are on their way to it."""
        queued, now = self.line.tokens + more, asyncio.get_running_loop().time()
        retry_after_s = self._returns.told(
            now, tokens, queued=queued, room=self.line.max_tokens, per_s=self.throughput.drained_per_s
        )
        error = Overloaded(f"{queued} tokens are waiting already: come back later", retry_after_s=retry_after_s)
        error.queue_tokens = queued
        return error

    def _admit(self, job: QueuedRequest, asked: Sequence[TokenizedText], now: float) -> None:
        if self.suspects:
            asked = self._examined(job, asked, now)
        if job.done.done():
            return
        if self.line.is_interactive(asked):
            self._slot.interactive_seen_at = now
        shared = self.line.admit(job, asked)
        if shared is None:
            raise self.overloaded(sum(one.tokens for one in asked))
        self._meters.deduplicated.inc(shared)
        self._arrived.set()

    def _examined(self, job: QueuedRequest, asked: Sequence[TokenizedText], now: float) -> list[TokenizedText]:
        """The inputs with what is held against them; poison fails."""
        examined = [one._replace(quiet_s=self.suspects.quiet_before(one.ids, now)) for one in asked]
        for index, one in enumerate(examined):
            if one.quiet_s == math.inf:
                job.fail_input(index, PoisonedInput(index))
        return examined

    async def serve(self) -> BackendError | None:
        """Send one call after another to a backend that was just verified.

        Returns what makes it doubtful: gone, hung or wrong; None: paused. Nothing that waited is lost by then: what was
        in flight is in line again.
        """
        self._paused = False
        self._opened = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            while not self._paused:
                self._arrived.clear()
                answer = await self._call() if self.line else BatchResult()
                if not answer.texts and not self._paused:
                    await self._until_needed()
                while answer.texts:
                    following = None
                    if self.line and answer.error is None and not self._paused:
                        following = tasks.create_task(self._call())
                        await asyncio.sleep(0)  # the next call is on its way before this answer is read
                    doubt = self._settle(answer)
                    answer = await following if following else BatchResult()
                    if doubt:
                        self._settle(answer)
                        return doubt
        return None

    async def _until_needed(self) -> None:
        """Wait until there is something new to do, or a suspect may be tried."""
        lived_s = asyncio.get_running_loop().time() - self._opened
        with suppress(TimeoutError):
            async with asyncio.timeout(self.line.suspect_in_s(lived_s)):
                await self._arrived.wait()

    async def _call(self) -> BatchResult:
        """The next call, decided at the last moment. A backend that never answers does not hold up the line."""
        loop = asyncio.get_running_loop()
        turn = loop.time()
        async with self._slot.gate:
            started = loop.time()
            if not (texts := [] if self._paused else self._take(started)):
                return BatchResult()
            self.in_flight = len(texts)
            loop.call_soon(self._begin, texts, started)  # when the call is on its way: it does not wait for our books
            fillers, tokens = _fillers(texts), sum(text.tokens for text in texts)
            try:
                if texts[0].quiet_s:
                    await self._check()
                content = await self._sent([*(text.ids for text in texts), *fillers], once=texts[0].quiet_s is not None)
            except BackendError as error:
                speed = self.throughput.tokens_per_s
                seconds = max(loop.time() - started, tokens / speed if speed else 0.0)
                return BatchResult(texts, error=error, seconds=seconds)
            finally:
                self.in_flight = 0
            seconds = loop.time() - started
            self.throughput.saw(tokens, seconds, loop.time() - turn)
            return BatchResult(texts, content, len(fillers), seconds)

    async def _sent(self, texts: Sequence[bytes], *, once: bool = False) -> bytes:
        try:
            async with asyncio.timeout(self._call_timeout_s):
                return await self._backend.send(texts, once=once)
        except TimeoutError as error:
            message = f"the backend did not answer within {self._call_timeout_s:g} s"
            raise BackendLost(message, retry_after_s=5) from error

    async def _check(self) -> None:
        """Directly before a text that may be poison: the backend is right without it. Raises BackendUnavailable."""
        try:
            vectors = self._backend.read(await self._sent([KNOWN]), 1)
        except BackendError as error:
            raise BackendUnavailable(error.message, retry_after_s=error.retry_after_s) from error
        if not np.isfinite(vectors).all():
            raise BackendUnavailable(f"backend {self._backend.name} gives no finite vector for any text")

    def _take(self, now: float) -> list[QueuedText]:
        interactive_lately = now - self._slot.interactive_seen_at < RECENT_S
        speed, lived_s = self.throughput.tokens_per_s, now - self._opened
        return self.line.take(
            now, interactive_lately=interactive_lately, speed=speed, fastest=self.throughput.fastest, lived_s=lived_s
        )

    def _settle(self, answer: BatchResult) -> BackendError | None:
        doubt = self._delivery.settle(answer)
        if answer.texts and answer.error is None:
            asyncio.get_running_loop().call_soon(self._end, answer)  # when those who got their vectors had their turn
        return doubt

    def _begin(self, texts: Sequence[QueuedText], now: float) -> None:
        for text in texts:
            for job, _ in text.waiters:
                if not job.started:
                    job.started = True
                    # Who came after the call was chosen, for a text that is in it, has not waited.
                    self._meters.waited(max(0.0, now - job.arrived), interactive=job.interactive)

    def _end(self, answer: BatchResult) -> None:
        self._meters.called(len(answer.texts), sum(text.tokens for text in answer.texts), answer.seconds)


def _written(inputs: Sequence[Ids], alone: bool) -> list[TokenizedText]:
    # The space makes it another text: one that goes alone is never answered from a shared call.
    end = b" " if alone else b""
    # Copied, as what orjson gives holds 4 KiB however short it is (measured), and a line holds thousands of these.
    ids_of = (b"".join((orjson.dumps(ids, option=orjson.OPT_SERIALIZE_NUMPY), end)) for ids in inputs)
    return [TokenizedText(written, len(ids), alone) for written, ids in zip(ids_of, inputs, strict=True)]


def _fillers(texts: Sequence[QueuedText]) -> list[bytes]:
    """What is sent behind a short text that goes alone, so that the batch is computed as any other."""
    if texts[0].alone and texts[0].tokens < MIN_EXCLUSIVE_TOKENS:
        return [b"[" + b",".join([texts[0].ids.strip(b"[] ").split(b",")[0]] * MIN_EXCLUSIVE_TOKENS) + b"]"]
    return []
