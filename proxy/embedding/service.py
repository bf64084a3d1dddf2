"""The whole use case: a request of any dialect in, the model's vectors out."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from proxy.contract.admin import State
from proxy.contract.family import VectorRules
from proxy.embedding import chunk_means, late_chunking
from proxy.embedding.inputs.embedder import InputEmbedder
from proxy.embedding.inputs.images import with_pages
from proxy.embedding.inputs.requests import images_in, servable
from proxy.embedding.late_chunking import Chunks
from proxy.embedding.multivector import MultiVectors, TokenEmbedder
from proxy.embedding.preparation import PreparationRules, prepare_texts
from proxy.embedding.tasks import Route, TaskTable
from proxy.embedding.token_states import ModelStates
from proxy.errors import DeadlineExceeded
from proxy.images.loading import ImageLoader
from proxy.models.admission import estimate
from proxy.models.served_model import ServedModel
from proxy.scheduling.entries import Caller
from proxy.telemetry.timing import Timing
from proxy.tokens.foreign_ids import Decode
from proxy.types import (
    EmbedRequest,
    EmbedResult,
    Matrix,
    Provenance,
    ReadyReport,
    Served,
    ServedLimits,
    ServiceLoad,
)

LAYER_NORM_EPSILON = 1e-5  # torch's
MANY_FLOATS = 2**18  # of vectors from which a thread is worth it: about 2 ms


@dataclass(frozen=True, slots=True)
class EmbedService:
    """`decode` reads token ids in a request; None: the model's own tokenizer does.

    `states` gives the states of a model's tokens, by its name, where a second backend computes them.
    """

    tasks: TaskTable
    models: Mapping[str, ServedModel]
    limits: ServedLimits
    multivectors: MultiVectors
    images: ImageLoader
    decode: Decode | None = None
    states: Mapping[str, ModelStates] = field(default_factory=dict)
    notice: str = ""

    @property
    def all_models(self) -> dict[str, ServedModel]:
        """All models, by the names of their backends."""
        by_token = (states.by_token for states in self.states.values())
        return {model.backend.name: model for model in (*self.models.values(), *by_token)}

    @property
    def multivector_served(self) -> bool:
        return self.multivectors.served

    @property
    def images_served(self) -> bool:
        """Whether some task takes images."""
        return any(model.takes_images for model in self.models.values())

    def provenance(self, backend: str) -> Provenance:
        """What makes the vectors of that backend; unknown before its first start."""
        return self.models[backend].provenance

    def is_loaded(self, backend: str) -> bool:
        return self.models[backend].report().state is State.READY

    def load(self) -> ServiceLoad:
        """What waits in the queues of all backends, and the speed of the fastest."""
        reports = [model.report() for model in self.models.values()]
        speeds = [model.dispatcher.throughput.drained_per_s for model in self.models.values()]
        return ServiceLoad(
            queue_tokens=sum(report.waiting_tokens for report in reports), tokens_per_s=max(speeds, default=0.0)
        )

    async def readiness(self) -> ReadyReport:
        """Ready if every backend can serve a request now."""
        served = self.all_models
        reasons = await asyncio.gather(*(model.why_not_ready() for model in served.values()))
        backends = {name: reason or "ready" for name, reason in zip(served, reasons, strict=True)}
        return ReadyReport(ready=not any(reasons), backends=backends)

    def drain(self) -> None:
        """Fail all waiting requests and reject new ones; the batches in flight complete."""
        for model in self.all_models.values():
            model.drain()

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """The vector of every input for the request's task, in order: sliced, then normalised.

        Raises a ProxyError: ModelNotFound, Invalid, InputTooLong before anything is computed; Overloaded and
        DeadlineExceeded; PoisonedInput; BackendError or a subclass where the model cannot answer. For a partial request
        the errors of single inputs are in the result's `failed`, unless every input failed.
        """
        self.limits.check(request)
        row = self.tasks.route(request.model, request.task, request.role, default=request.default_task)
        route = replace(row, prefix=row.prefix_with(request.instruction))
        model = self.models[route.backend]
        token_embedder = self.multivectors.of(route.backend) if request.multivector else None
        timing = Timing()
        async with self._deadline(request) as deadline:
            caller = Caller(
                client=request.client, deadline=deadline, partial=request.partial, timing=timing, bulk=request.bulk
            )
            served = await self._served(request, route, token_embedder, caller)
        dimensions = (
            token_embedder.projection.dimensions if token_embedder else request.dimensions or self.limits.dimensions
        )
        return EmbedResult(
            model=self.tasks.model,
            task=route.task,
            prefix=route.prefix if request.instruction is None else row.prefix,
            provenance=_made_by(model.provenance, token_embedder, images=served.image_tokens is not None),
            vectors=await _finished(served.rows, dimensions, model.rules, normalized=request.normalized),
            tokens=served.tokens,
            failed=served.failed,
            lengths=served.lengths,
            image_tokens=served.image_tokens,
            images=served.images,
            timing=timing,
        )

    async def count_tokens(self, request: EmbedRequest) -> int:
        """The tokens of all inputs, prefixes included; nothing is computed. Raises as `embed`."""
        self.limits.check(request)
        row = self.tasks.route(request.model, request.task, request.role, default=request.default_task)
        route = replace(row, prefix=row.prefix_with(request.instruction))
        async with (
            self._deadline(request),
            with_pages(self._servable(request, route, None), self.images) as counted,
        ):
            return await self._embedder(route).count(counted)

    @asynccontextmanager
    async def _deadline(self, request: EmbedRequest) -> AsyncIterator[float]:
        """When the block must be done, in the loop's time. Raises DeadlineExceeded if it is not."""
        seconds = min(self.limits.seconds, request.timeout_s or math.inf)
        try:
            async with asyncio.timeout(seconds) as clock:
                yield clock.when() or math.inf
        except TimeoutError as error:
            raise DeadlineExceeded(f"not done within {seconds:g} s", retry_after_s=5) from error

    async def _served(
        self, request: EmbedRequest, route: Route, token_embedder: TokenEmbedder | None, caller: Caller
    ) -> Served:
        request = self._servable(request, route, token_embedder)
        if request.late:
            return await self._embed_document(request, route, caller)
        async with with_pages(request, self.images) as paged:
            if token_embedder:
                return await self._embedder(route).token_vectors(paged, token_embedder, caller)
            return await self._embedder(route).vectors(paged, caller)

    def _servable(self, request: EmbedRequest, route: Route, token_embedder: TokenEmbedder | None) -> EmbedRequest:
        """The request, with its images refused where none can be served. Raises Invalid unless it is partial."""
        if not images_in(request):
            return request
        request = servable(request, self.models[route.backend], token_embedder)
        self.limits.check(request)
        return request

    def _embedder(self, route: Route) -> InputEmbedder:
        return InputEmbedder(self.models[route.backend], route.prefix, self._rules, self.images)

    async def _embed_document(self, request: EmbedRequest, route: Route, caller: Caller) -> Served:
        """One vector for each input, as the chunks of one document."""
        model, states = self.models[route.backend], self.states.get(route.backend)
        late_chunking.check_possible(model.rules, has_states=states is not None)
        tokens = estimate(request.inputs)
        async with model.admitted(tokens if states else chunk_means.cost(tokens, len(request.inputs))):
            prepared = await prepare_texts(request, model, self._rules)
            chunks = Chunks(
                prefix=route.prefix,
                texts=[prepared.texts.get(index, "") for index in range(len(request.inputs))],
                form=self.tasks.unicode_normalization,
            )
            document = await late_chunking.tokenize(chunks, model, self.limits.input_tokens, truncate=request.truncate)
        document = replace(document, failed={**document.failed, **prepared.failed})
        return await late_chunking.embed_chunks(document, model, states, caller)

    @property
    def _rules(self) -> PreparationRules:
        return PreparationRules(
            limit=self.limits.input_tokens, form=self.tasks.unicode_normalization, decode=self.decode
        )


async def _finished(rows: Matrix, dimensions: int, rules: VectorRules, *, normalized: bool) -> Matrix:
    """In a thread if there are many: requests for the same texts are all done at once."""
    work = partial(_as_asked, rows, dimensions, rules, normalized=normalized)
    return work() if rows.size < MANY_FLOATS else await asyncio.to_thread(work)


def _as_asked(rows: Matrix, dimensions: int, rules: VectorRules, *, normalized: bool) -> Matrix:
    if rules.sliced_after == "layer_norm" and dimensions < rows.shape[1]:
        rows = _layer_normalized(rows)
    return finish(rows, dimensions=dimensions, normalized=normalized)


def finish(raw: Matrix, *, dimensions: int, normalized: bool) -> Matrix:
    """The first `dimensions` of each row, shape (n, dimensions), L2-normalised again if `normalized`.

    A vector of zeros has no direction and stays as it is.
    """
    sliced = np.ascontiguousarray(raw[:, :dimensions])
    if not normalized:
        return sliced
    norms = np.sqrt(np.einsum("ij,ij->i", sliced, sliced, dtype=np.float64))
    norms[norms == 0] = 1
    # In float64, rounded as it is written: no second matrix of twice the size.
    np.divide(sliced, norms[:, None], out=(unit := np.empty_like(sliced)), casting="same_kind")
    return unit


def _layer_normalized(rows: Matrix) -> Matrix:
    """Each row with mean 0 and variance 1, as torch's `layer_norm`."""
    exact = rows.astype(np.float64)
    spread = np.sqrt(exact.var(axis=1, keepdims=True) + LAYER_NORM_EPSILON)
    return np.asarray((exact - exact.mean(axis=1, keepdims=True)) / spread, dtype=np.float32)


def _made_by(provenance: Provenance, token_embedder: TokenEmbedder | None, *, images: bool) -> Provenance:
    """The provenance of the result: a projection makes other vector spaces. Only images have that of images."""
    space_of = token_embedder.projection.space_of if token_embedder else str
    image_space = provenance.image_space if images else None
    return replace(provenance, space=space_of(provenance.space), image_space=image_space and space_of(image_space))
