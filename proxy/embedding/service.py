"""The whole use case: a request of any dialect in, the model's vectors out."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from proxy.contract.admin import State
from proxy.contract.family import VectorRules
from proxy.embedding import chunk_means, late_chunking
from proxy.embedding.late_chunking import Chunks
from proxy.embedding.multivector import MultiVectors, TokenEmbedder
from proxy.embedding.preparation import PreparationRules, prepare_inputs, prepare_texts
from proxy.embedding.tasks import Route, TaskTable
from proxy.embedding.token_states import ModelStates
from proxy.errors import DeadlineExceeded, ProxyError
from proxy.faults import PoisonedInput
from proxy.models.admission import estimate
from proxy.models.served_model import ServedModel
from proxy.scheduling.entries import Caller
from proxy.telemetry.timing import Timing
from proxy.tokens.foreign_ids import Decode
from proxy.types import (
    EmbedRequest,
    EmbedResult,
    Ids,
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
        seconds, timing = min(self.limits.seconds, request.timeout_s or math.inf), Timing()
        try:
            async with asyncio.timeout(seconds) as clock:
                caller = Caller(
                    client=request.client,
                    deadline=clock.when() or math.inf,
                    partial=request.partial,
                    timing=timing,
                    bulk=request.bulk,
                )
                served = await self._served(request, route, token_embedder, caller)
        except TimeoutError as error:
            raise DeadlineExceeded(f"not done within {seconds:g} s", retry_after_s=5) from error
        dimensions = (
            token_embedder.projection.dimensions if token_embedder else request.dimensions or self.limits.dimensions
        )
        return EmbedResult(
            model=self.tasks.model,
            task=route.task,
            prefix=route.prefix if request.instruction is None else row.prefix,
            provenance=_made_by(model.provenance, token_embedder),
            vectors=await _finished(served.rows, dimensions, model.rules, normalized=request.normalized),
            tokens=served.tokens,
            failed=served.failed,
            lengths=served.lengths,
            timing=timing,
        )

    async def _served(
        self, request: EmbedRequest, route: Route, token_embedder: TokenEmbedder | None, caller: Caller
    ) -> Served:
        if token_embedder:
            return await self._embed_tokens(request, route, token_embedder, caller)
        return await (self._embed_document if request.late else self._embed_texts)(request, route, caller)

    async def count_tokens(self, request: EmbedRequest) -> int:
        """The tokens of all inputs, prefixes included; nothing is computed. Raises as `embed`."""
        self.limits.check(request)
        row = self.tasks.route(request.model, request.task, request.role, default=request.default_task)
        route = replace(row, prefix=row.prefix_with(request.instruction))
        inputs, _ = await self._prepare(request, route, self.models[route.backend])
        return sum(map(len, inputs.values()))

    async def _embed_texts(self, request: EmbedRequest, route: Route, caller: Caller) -> Served:
        """One vector for each input."""
        model = self.models[route.backend]
        inputs, failed = await self._prepare(request, route, model)
        outcome = await model.embed(list(inputs.values()), caller)
        names = list(inputs)
        failed |= {names[row]: _named(error, names[row]) for row, error in outcome.failed.items()}
        _raise_if_all(failed, request)
        return Served(outcome.served(), sum(len(ids) for index, ids in inputs.items() if index not in failed), failed)

    async def _embed_tokens(
        self, request: EmbedRequest, route: Route, token_embedder: TokenEmbedder, caller: Caller
    ) -> Served:
        """One vector for each token of each input."""
        inputs, failed = await self._prepare(request, route, self.models[route.backend])
        made = await token_embedder.embed(inputs, caller)
        failed |= made.failed
        _raise_if_all(failed, request)
        tokens = sum(len(ids) for index, ids in inputs.items() if index not in failed)
        return Served(np.concatenate(list(made.rows.values())), tokens, failed, tuple(map(len, made.rows.values())))

    async def _prepare(
        self, request: EmbedRequest, route: Route, model: ServedModel
    ) -> tuple[dict[int, Ids], dict[int, ProxyError]]:
        """The token ids of each input, by index, and the errors of those that have none."""
        async with model.admitted(estimate(request.inputs)):
            prepared = await prepare_inputs(request, route.prefix, model, self._rules)
        _raise_if_all(prepared.failed, request)
        return prepared.ids, prepared.failed

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


def _made_by(provenance: Provenance, token_embedder: TokenEmbedder | None) -> Provenance:
    """The provenance of the result: a projection makes another vector space."""
    if token_embedder is None:
        return provenance
    return replace(provenance, space=token_embedder.projection.space_of(provenance.space))


def _raise_if_all(failed: Mapping[int, ProxyError], request: EmbedRequest) -> None:
    if len(failed) == len(request.inputs):
        raise failed[min(failed)]


def _named(error: ProxyError, index: int) -> ProxyError:
    """Maps the index among the prepared inputs back to the one the caller sent."""
    return PoisonedInput(index) if isinstance(error, PoisonedInput) else error
