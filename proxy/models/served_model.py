"""One served model: a backend, its line, and its tokenizer; opens when the backend is up and proves to be right."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from proxy import metrics
from proxy.contract.admin import BackendLoad, State
from proxy.contract.settings import Family
from proxy.errors import BackendError, BackendLoading, BackendLost, invalid
from proxy.llama.client import LlamaClient
from proxy.llama.token_client import TokenClient
from proxy.models.cache import Cache, cached
from proxy.models.provenance import UNKNOWN
from proxy.models.readiness import Readiness, WaitLimits
from proxy.models.verification import VerifiedBackend, verify
from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.dispatcher import Dispatcher, SharedSlot
from proxy.scheduling.entries import ANYBODY, Caller, Outcome
from proxy.tokens.bpe import Tokenizer
from proxy.types import Ids, Provenance

POLL_S = 0.2
LONGEST_TOKEN = 1024  # bytes; longer than any in a vocabulary that we have seen


class ServedModel:
    """Requests go in by `admitted`, and there by `tokenize` and `embed`; `serve` opens, works and recovers it.

    A model refuses at once until it has proved to be right for the first time: the backend up, its tokens ours, its
    vectors of the right size. If it fails later, requests wait for `recovery_s` before they are refused. While it is
    held, and for `start_s` after that at most, each waits for `start_s` until it opens.
    """

    def __init__(
        self,
        backend: LlamaClient,
        family: Family,
        waiting: WaitLimits,
        slot: SharedSlot | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.backend = backend
        self.provenance = Provenance(digest=UNKNOWN, quantization=UNKNOWN, engine=UNKNOWN, space=UNKNOWN)
        self.wanted = asyncio.Event()  # set while anybody waits at a held model
        settings = backend.settings
        queue = BatchQueue(slots=settings.slots, batch_tokens=settings.batch_tokens, max_tokens=waiting.tokens)
        slot = slot or SharedSlot()
        dimensions = None if isinstance(backend, TokenClient) else family.dimensions
        self.dispatcher = Dispatcher(backend, queue, slot, dimensions=dimensions, batch_timeout_s=waiting.batch_s)
        self._family = family
        self._cache = cache
        self._waiting = waiting
        self._proof: VerifiedBackend | None = None
        self._verifying: asyncio.Timeout | None = None
        reason = BackendLoading(f"backend {backend.name} is not up yet", retry_after_s=2)
        self._opening = Readiness(
            State.PAUSED if settings.on_demand else State.DOWN, reason, waiting, lambda: self.waiting_tokens
        )
        self._released, self._resting = asyncio.Event(), asyncio.Event()
        self._coming = 0  # tokens, estimated, of requests that are not in line yet
        self._inside = 0
        self._requests = 0
        self._used = time.monotonic()
        if not settings.on_demand:
            self._released.set()
        metrics.QUEUE_TEXTS.labels(backend.name).set_function(lambda: queue.texts)
        metrics.QUEUE_TOKENS.labels(backend.name).set_function(lambda: self.waiting_tokens)

    @property
    def progress(self) -> str:
        """How far whoever loads it has come, for those who do not get in."""
        return self._opening.progress

    @progress.setter
    def progress(self, said: str) -> None:
        self._opening.progress = said

    @property
    def waiting_tokens(self) -> int:
        """Tokens in line, and an estimate of those on their way to it."""
        return self.dispatcher.queue.tokens + self._coming

    @property
    def longest_token(self) -> int:
        """The most bytes that one token stands for."""
        return self._proof.tokenizer.longest if self._proof and self._proof.tokenizer else LONGEST_TOKEN

    @asynccontextmanager
    async def admitted(self, tokens: int) -> AsyncIterator[None]:
        """A request of about so many tokens, until it is in line: it is let in when the model is open.

        Raises Overloaded before any work if too much waits already, and BackendUnavailable if the model does not open.
        """
        queued = self.waiting_tokens
        if queued and queued + tokens > self._waiting.tokens:
            raise self.dispatcher.overloaded(self._coming)
        self._requests += 1
        self._coming += tokens
        self._come(+1)
        try:
            if self._opening.state is not State.READY:
                await self._opening.until_open()
            yield
        finally:
            self._coming -= tokens
            self._come(-1)

    async def tokenize(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text exactly as the model gets them. Raises BackendUnavailable if it was never open."""
        if self._proof is None:
            raise self._opening.refusal()
        return await self._proof.tokenize(texts)

    def own_tokenizer(self, field: str, lacking: str) -> Tokenizer:
        """The model's tokenizer. Raises Invalid with what that field lacks, if the engine is asked instead."""
        if self._proof is None or self._proof.tokenizer is None:
            raise invalid(field, lacking, kind="unsupported")
        return self._proof.tokenizer

    async def noise(self, caller: Caller) -> float:
        """How far this engine's means are from exact ones, relative; see `RoundingCheck`."""
        if self._proof is None:
            raise self._opening.refusal()
        embed = partial(self.embed, caller=replace(caller, first=True, partial=False), exclusive=True)
        return await self._proof.rounding.error(self.backend.name, self.backend.settings.batch_tokens, embed)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids of the model's own vocabulary. Raises KeyError with the first id that it does not have."""
        tokenizer = self.own_tokenizer("input", "is token ids, which need the proxy's own tokenizer: set model_file")
        if not 0 <= min(ids) <= max(ids) < tokenizer.size:
            raise KeyError(next(token for token in ids if not 0 <= token < tokenizer.size))
        return tokenizer.decode(ids)

    async def embed(self, inputs: Sequence[Ids], caller: Caller = ANYBODY, *, exclusive: bool = False) -> Outcome:
        """The raw vectors of token-id inputs, from the cache or the line; see Lane.embed."""
        compute, proof, space = (
            partial(self.dispatcher.embed, caller=caller, exclusive=exclusive),
            self._proof,
            self.provenance.space,
        )
        self._come(+1)
        try:
            if self._cache is None or space == UNKNOWN or exclusive:
                return await compute(inputs)
            return await cached(self._cache, space, inputs, compute, lambda: self._proof is proof)
        finally:
            self._come(-1)

    async def check(self) -> None:
        """Return if it would serve a request now; raise BackendError with the reason if not."""
        if self._opening.state is not State.READY:
            raise self._opening.refusal()
        await self.backend.check()

    def report(self) -> BackendLoad:
        """How it stands now."""
        return BackendLoad(
            state=self._opening.shown,
            reason="" if self._opening.state is State.READY else self._opening.reason.message,
            waiting_texts=self.dispatcher.queue.texts,
            waiting_tokens=self.waiting_tokens,
            in_flight_texts=self.dispatcher.in_flight,
            tokens_per_s=self.dispatcher.throughput.tokens_per_s,
            tokens_total=self.dispatcher.throughput.total,
            requests_total=self._requests,
            idle_s=0.0 if self._inside else time.monotonic() - self._used,
        )

    async def hold(self) -> None:
        """Send no more calls; returns when none is in flight. Who waits or comes waits for `start_s` at most."""
        if self._released.is_set():
            self._released.clear()
            reason = BackendLoading(f"backend {self.backend.name} is not loaded", retry_after_s=5)
            self._opening.enter(State.PAUSED, reason)
            self._opening.unless_open_in(
                self._waiting.start_s, lambda: self.dispatcher.fail_waiting(self._opening.refusal)
            )
            self._show_wanted()
            self.dispatcher.pause()
            if self._verifying:
                self._verifying.reschedule(0)  # one that hangs would take minutes
        await self._resting.wait()

    def release(self) -> None:
        """Let it prove itself again, and go on; one that has not within `start_s` is down."""
        if not self._released.is_set():
            self._released.set()
            reason = BackendLoading(f"backend {self.backend.name} is loading", retry_after_s=2)
            self._opening.enter(State.LOADING, reason)
            self._opening.unless_open_in(self._waiting.start_s, self._give_up)
            self._show_wanted()

    def drain(self) -> None:
        """Admit nobody any more and send home who waits; the call in flight is finished."""
        self._opening.stop()
        self.dispatcher.close(self._opening.refusal)

    async def serve(self) -> None:
        """Open when the backend proves to be right, work the line until it is doubtful, prove again, and so on."""
        while True:
            if not self._released.is_set():
                self._resting.set()
                await self._released.wait()
                self._resting.clear()
            elif proof := await self._proven():
                self._open(proof)
                doubt = await self.dispatcher.serve()
                if doubt and self._released.is_set():
                    self._recover(doubt)

    async def _proven(self) -> VerifiedBackend | None:
        """Ask until it is right; None if it is held meanwhile."""
        while self._released.is_set():
            try:
                async with asyncio.timeout(None) as self._verifying:
                    proof = await verify(self.backend, self._family)
            except TimeoutError:
                return None  # it is held meanwhile
            except BackendError as error:
                if isinstance(error, BackendLost):  # it ends by itself
                    self.dispatcher.suspects.ended_without()
                if self._released.is_set():
                    self._opening.enter(self._opening.state, error)
                await asyncio.sleep(POLL_S)
            else:
                return proof if self._released.is_set() else None
            finally:
                self._verifying = None
        return None

    def _open(self, proof: VerifiedBackend) -> None:
        if proof.provenance != self.provenance:
            self.dispatcher.suspects.clear()
        self._proof, self.provenance = proof, proof.provenance
        if self._opening.open():
            self.dispatcher.open()

    def _recover(self, doubt: BackendError) -> None:
        """Let everybody wait while it proves itself again, but not for ever."""
        metrics.RECOVERIES.labels(self.backend.name).inc()
        self._opening.enter(State.RECOVERING, doubt)
        self._opening.unless_open_in(self._waiting.recovery_s, self._give_up)

    def _give_up(self) -> None:
        self._opening.enter(State.DOWN, self._opening.reason)
        self.dispatcher.close(self._opening.refusal)

    def _come(self, change: int) -> None:
        self._inside += change
        self._used = time.monotonic()
        self._show_wanted()

    def _show_wanted(self) -> None:
        if self._inside and not self._released.is_set():
            self.wanted.set()
        else:
            self.wanted.clear()
