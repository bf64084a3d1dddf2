"""One served model: a backend with its queue, tokenizer and cache, open to requests while the backend is verified."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial

from proxy import metrics
from proxy.contract.admin import BackendLoad, State
from proxy.contract.family import Family
from proxy.errors import BackendError, BackendLoading
from proxy.faults import invalid
from proxy.llama.client import LlamaClient
from proxy.llama.media import ImagePrompt
from proxy.llama.token_client import TokenClient, states_of
from proxy.models.admission import Admission, estimate
from proxy.models.cache import Cache, cached, key_of, key_of_image
from proxy.models.provenance import UNKNOWN
from proxy.models.readiness import Readiness, WaitLimits
from proxy.models.recovery import RecoveryLoop
from proxy.models.verification import NoTokenizer, VerifiedBackend
from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.dispatcher import Dispatcher, SharedSlot
from proxy.scheduling.entries import ANYBODY, Caller, Outcome
from proxy.tokens.gguf_tokenizer import Tokenizer
from proxy.tokens.special import SpecialTokens
from proxy.types import Ids, Matrix, Picture, Provenance


class ServedModel:
    """Requests enter by `admitted`, inside which they use `tokenize`, and then `embed`; `serve` runs the backend.

    Requests are rejected at once until the first verification succeeds: the backend is up, its tokens are ours, its
    vectors have the right size. If it fails later, requests wait for `recovery_s` before they are rejected. While it is
    paused, and for at most `start_s` after that, each waits for `start_s` until it opens.
    """

    def __init__(
        self,
        backend: LlamaClient,
        family: Family,
        limits: WaitLimits,
        slot: SharedSlot | None = None,
        cache: Cache | None = None,
    ) -> None:
        settings, self.rules = backend.settings, family.weights
        queue = BatchQueue(slots=settings.slots, batch_tokens=settings.batch_tokens, max_tokens=limits.tokens)
        slot = slot or SharedSlot()
        dimensions = None if isinstance(backend, TokenClient) else family.dimensions
        self.backend = backend
        self.dispatcher = Dispatcher(backend, queue, slot, dimensions=dimensions, batch_timeout_s=limits.batch_s)
        self._cache = cache
        self._admission = Admission(self.dispatcher)
        state = State.PAUSED if settings.on_demand else State.DOWN
        reason = BackendLoading(f"backend {backend.name} is not up yet", retry_after_s=2)
        self._readiness = Readiness(state, reason, limits, lambda: self._admission.waiting_tokens)
        self._recovery = RecoveryLoop(backend, family, self._readiness, self.dispatcher)
        metrics.QUEUE_TEXTS.labels(backend.name).set_function(lambda: queue.texts)
        metrics.QUEUE_TOKENS.labels(backend.name).set_function(lambda: self._admission.waiting_tokens)
        metrics.QUEUE_LIMIT.labels(backend.name).set(limits.tokens)
        metrics.BACKEND_UP.labels(backend.name).set_function(lambda: self._readiness.serves)

    @property
    def provenance(self) -> Provenance:
        """What makes its vectors; unknown before the first verification."""
        verified, pooling = self._recovery.verified, self.rules.pooling
        if verified:
            return verified.provenance
        return Provenance(digest=UNKNOWN, quantization=UNKNOWN, engine=UNKNOWN, pooling=pooling, space=UNKNOWN)

    @property
    def longest_token(self) -> int | None:
        """The most bytes that one token stands for; None if there is no bound, or none that we know."""
        verified = self._recovery.verified
        return verified.tokenizer.longest if verified and isinstance(verified.tokenizer, Tokenizer) else None

    @property
    def special_tokens(self) -> SpecialTokens:
        """What the model has around every text. Raises BackendUnavailable before any verification."""
        return self._verified().special

    @asynccontextmanager
    async def admitted(self, tokens: int, images: int = 0) -> AsyncIterator[None]:
        """Let a request of about so many tokens, and images, in when the model is open.

        The block ends when its texts are in the queue; `expecting` counts the images that are not yet.

        Raises Overloaded before any work if too much waits already, and BackendUnavailable if the model does not open.
        """
        with self._admission.admitted(tokens, images):
            if self._readiness.state is not State.READY:
                await self._readiness.until_open()
            yield

    def expecting(self, images: int) -> AbstractContextManager[Callable[[], None]]:
        """See `Admission.expecting`."""
        return self._admission.expecting(images)

    async def tokenize(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text exactly as the model gets them. Raises BackendUnavailable before any verification."""
        ids = await self._verified().tokenize(texts)
        self._admission.counted(estimate(texts), sum(map(len, ids)))
        return ids

    def own_tokenizer(self, field: str, needs: str) -> Tokenizer:
        """The model's tokenizer. Raises Invalid for that field if there is none; its message begins with `needs`."""
        tokenizer = self._verified().tokenizer
        if isinstance(tokenizer, NoTokenizer):
            raise invalid(field, f"{needs} the proxy's own tokenizer: {tokenizer.reason}", kind="unsupported")
        return tokenizer

    async def rounding_error(self, caller: Caller) -> float:
        """How far this engine's means are from exact ones, relative; see `RoundingCheck`."""
        embed = partial(self.embed, caller=replace(caller, first=True, partial=False), exclusive=True)
        return await self._verified().rounding.error(self.backend.name, self.backend.settings.batch_tokens, embed)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids of the model's own vocabulary. Raises KeyError with the first id that it does not have."""
        tokenizer = self.own_tokenizer("input", "is token ids, which need")
        if not 0 <= min(ids) <= max(ids) < tokenizer.size:
            raise KeyError(next(token for token in ids if not 0 <= token < tokenizer.size))
        return tokenizer.decode(ids)

    async def embed(self, inputs: Sequence[Ids], caller: Caller = ANYBODY, *, exclusive: bool = False) -> Outcome:
        """The raw vectors of token-id inputs, from the cache or the engine; see Dispatcher.embed."""

        async def compute(missing: Sequence[int]) -> Outcome:
            left = inputs if len(missing) == len(inputs) else [inputs[index] for index in missing]
            return await self.dispatcher.embed(left, caller, exclusive=exclusive)

        space = UNKNOWN if exclusive else self.provenance.space
        return await self._cached(lambda: [key_of(space, ids) for ids in inputs], len(inputs), space, compute)

    @property
    def takes_images(self) -> bool:
        return self.backend.settings.images is not None

    async def embed_picture(self, picture: Picture, caller: Caller = ANYBODY) -> Matrix:
        """The raw vector of an image, the mean over its own tokens, (1, n_embd). Raises as `embed`."""

        async def compute(_: Sequence[int]) -> Outcome:
            prompt = self.image_prompt
            image = prompt.around(picture)
            (mean,) = await self.dispatcher.embed_image(image.json, image.tokens, caller)
            return Outcome(prompt.vector(mean, image.tokens)[None], {})

        space = self.provenance.image_space or UNKNOWN
        outcome = await self._cached(lambda: [key_of_image(space, picture.digest)], 1, space, compute)
        return outcome.rows

    async def picture_states(self, picture: Picture, caller: Caller) -> Matrix:
        """As `token_states`, of all tokens of an image's whole prompt."""
        async with self.admitted(0, images=1):
            image = self.image_prompt.whole(picture)
        with self._admission.active():
            rows = await self.dispatcher.embed_image(image.json, image.tokens, caller)
        return states_of(rows, image.tokens, self.backend.name)

    @property
    def image_prompt(self) -> ImagePrompt:
        """The prompt of its images. Raises BackendError if it takes none, or before any verification."""
        if (prompt := self._verified().images) is None:
            raise BackendError(f"backend {self.backend.name} takes no images")
        return prompt

    async def token_states(self, ids: Ids, caller: Caller) -> Matrix:
        """The state of each token of a text, (tokens, n_embd), from a backend with `--pooling none`.

        Waits for one that starts on demand. Raises what `embed` raises, and BackendError for anything but states.
        """
        async with self.admitted(len(ids)):
            pass  # the text has its ids already: there is nothing to do before it is queued
        rows = (await self.embed([ids], replace(caller, partial=False))).rows
        return states_of(rows, len(ids), self.backend.name)

    async def check(self) -> None:
        """Return if it would serve a request now. Raises BackendError with the reason if not."""
        if self._readiness.state is not State.READY:
            raise self._readiness.refusal()
        await self.backend.check()

    async def why_not_ready(self) -> str | None:
        """Why a request would not be served now; None if it would be, or would wait for a start."""
        if self._readiness.shown is State.PAUSED:
            return None
        try:
            await self.check()
        except BackendError as error:
            return error.message
        return None

    def report(self) -> BackendLoad:
        """Its state and load now."""
        ready = self._readiness.state is State.READY
        return BackendLoad(
            state=self._readiness.shown,
            reason="" if ready else self._readiness.reason.message,
            waiting_texts=self.dispatcher.queue.texts,
            waiting_tokens=self._admission.waiting_tokens,
            in_flight_texts=self.dispatcher.in_flight,
            tokens_per_s=self.dispatcher.throughput.tokens_per_s,
            tokens_total=self.dispatcher.throughput.total,
            requests_total=self._admission.requests,
            idle_s=self._admission.idle_s,
        )

    async def serve(self) -> None:
        """Verify the backend and serve its queue, for as long as the task runs."""
        await self._recovery.run()

    async def pause(self, progress: str = "") -> None:
        """Send no more batches; returns when none is in flight. Requests that time out learn the `progress`."""
        self._readiness.progress = progress
        await self._recovery.pause()

    def resume(self) -> None:
        """Verify the backend again, and continue; if that takes longer than `start_s`, it is down."""
        self._recovery.resume()

    def drain(self) -> None:
        """Fail all waiting requests and reject new ones; the batch in flight completes."""
        self._readiness.stop()
        self.dispatcher.close(self._readiness.refusal)

    async def _cached(
        self,
        keys: Callable[[], Sequence[bytes]],
        count: int,
        space: str,
        compute: Callable[[Sequence[int]], Awaitable[Outcome]],
    ) -> Outcome:
        """The outcome of `compute`, from the cache as far as it has it."""
        verified = self._recovery.verified
        with self._admission.active():
            if self._cache is None or space == UNKNOWN:
                return await compute(range(count))
            return await cached(self._cache, keys(), compute, lambda: self._recovery.verified is verified)

    def _verified(self) -> VerifiedBackend:
        if self._recovery.verified is None:
            raise self._readiness.refusal()
        return self._recovery.verified
