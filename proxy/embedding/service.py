"""The whole use case on one screen: a request of any dialect in, the model's vectors out."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from proxy.embedding import chunk_means, late_chunking
from proxy.embedding.late_chunking import Chunks
from proxy.embedding.multivector import MultiVectors, TokenEmbedder
from proxy.embedding.reading import Reading
from proxy.embedding.tasks import Route, TaskTable
from proxy.errors import DeadlineExceeded, PoisonedInput, ProxyError, invalid
from proxy.models.admission import estimate
from proxy.models.served_model import ServedModel
from proxy.scheduling.entries import Caller
from proxy.tokens.foreign_ids import Decode
from proxy.types import EmbedRequest, EmbedResult, Ids, Provenance, Served
from proxy.wire import encodings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLimits:
    """What one request may ask for."""

    items: int
    input_tokens: int
    dimensions: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EmbedService:
    """`decode` reads token ids in a request; None leaves it to the model's own tokenizer.

    `by_token` are the same models once more, by name, that give the state of every token.
    """

    tasks: TaskTable
    models: Mapping[str, ServedModel]
    limits: ServedLimits
    multivectors: MultiVectors
    decode: Decode | None = None
    by_token: Mapping[str, ServedModel] = field(default_factory=dict)

    @property
    def all_models(self) -> dict[str, ServedModel]:
        """By their backends' names."""
        return {model.backend.name: model for model in (*self.models.values(), *self.by_token.values())}

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """The vector of every input for the request's task, in order: sliced, then normalised.

        Raises a ProxyError: ModelNotFound, Invalid, InputTooLong before anything is computed; Overloaded and
        DeadlineExceeded; PoisonedInput; BackendError and its kin where the model cannot answer. For a partial request
        those of an input by itself are in the result's `failed`, unless every input failed.
        """
        self._check(request)
        route = self.tasks.route(request.model, request.task, request.role, default=request.default_task)
        model = self.models[route.backend]
        tokenwise = self.multivectors.of(route.backend) if request.multivector else None
        seconds = min(self.limits.seconds, request.timeout_s or math.inf)
        try:
            async with asyncio.timeout(seconds) as clock:
                caller = Caller(client=request.client, deadline=clock.when() or math.inf, partial=request.partial)
                if tokenwise:
                    served = await self._tokens(request, route, tokenwise, caller)
                else:
                    embed = self._document if request.late else self._texts
                    served = await embed(request, route, caller)
        except TimeoutError as error:
            raise DeadlineExceeded(f"not done within {seconds:g} s", retry_after_s=5) from error
        dimensions = tokenwise.projection.dimensions if tokenwise else request.dimensions or self.limits.dimensions
        return EmbedResult(
            model=self.tasks.model,
            task=route.task,
            prefix=route.prefix,
            provenance=_made_by(model.provenance, tokenwise),
            vectors=encodings.finish(served.rows, dimensions=dimensions, normalized=request.normalized),
            tokens=served.tokens,
            failed=served.failed,
            lengths=served.lengths,
        )

    async def _texts(self, request: EmbedRequest, route: Route, caller: Caller) -> Served:
        """Each input by itself."""
        model = self.models[route.backend]
        inputs, failed = await self._read(request, route, model)
        outcome = await model.embed(list(inputs.values()), caller)
        names = list(inputs)
        failed |= {names[row]: _named(error, names[row]) for row, error in outcome.failed.items()}
        _raise_if_all(failed, request)
        return Served(outcome.served(), sum(len(ids) for index, ids in inputs.items() if index not in failed), failed)

    async def _tokens(self, request: EmbedRequest, route: Route, tokenwise: TokenEmbedder, caller: Caller) -> Served:
        """Each token of each input."""
        inputs, failed = await self._read(request, route, self.models[route.backend])
        made = await tokenwise.embed(inputs, caller)
        failed |= made.failed
        _raise_if_all(failed, request)
        tokens = sum(len(ids) for index, ids in inputs.items() if index not in failed)
        return Served(np.concatenate(list(made.rows.values())), tokens, failed, tuple(map(len, made.rows.values())))

    async def _read(
        self, request: EmbedRequest, route: Route, model: ServedModel
    ) -> tuple[dict[int, Ids], dict[int, ProxyError]]:
        """The token ids of each input, by index, and the errors of those that have none."""
        reading = Reading(request, model, self.limits.input_tokens)
        async with model.admitted(estimate(request.inputs)):
            inputs = await reading.ids(route.prefix, self.tasks.unicode_normalization, self.decode or model.decode)
        _raise_if_all(reading.failed, request)
        return inputs, reading.failed

    async def _document(self, request: EmbedRequest, route: Route, caller: Caller) -> Served:
        """The inputs as the chunks of one document."""
        model, by_token = self.models[route.backend], self.by_token.get(route.backend)
        reading, tokens = Reading(request, model, self.limits.input_tokens), estimate(request.inputs)
        async with model.admitted(tokens if by_token else chunk_means.cost(tokens, len(request.inputs))):
            texts = await reading.texts(self.decode or model.decode)
            sent = Chunks(
                prefix=route.prefix,
                texts=[texts.get(index, "") for index in range(len(request.inputs))],
                form=self.tasks.unicode_normalization,
            )
            document = await late_chunking.read(sent, model, self.limits.input_tokens, truncate=request.truncate)
        document = replace(document, failed={**document.failed, **reading.failed})
        return await late_chunking.embed(document, model, by_token, caller)

    def _check(self, request: EmbedRequest) -> None:
        if not request.inputs:
            raise invalid("input", "must have at least one text", kind="too_short", given="[]")
        if len(request.inputs) > self.limits.items:
            raise invalid("input", f"{len(request.inputs)} texts; at most {self.limits.items}", kind="too_long")
        if request.refused and not request.partial:
            first = min(request.refused)
            raise request.refused[first].error(f"input.{first}")
        if request.dimensions is not None and not 1 <= request.dimensions <= self.limits.dimensions:
            message = f"must be from 1 to {self.limits.dimensions}"
            raise invalid("dimensions", message, kind="out_of_range", given=request.dimensions)


def _made_by(provenance: Provenance, tokenwise: TokenEmbedder | None) -> Provenance:
    """A projection is another vector space."""
    return replace(provenance, space=tokenwise.projection.space_of(provenance.space)) if tokenwise else provenance


def _raise_if_all(failed: Mapping[int, ProxyError], request: EmbedRequest) -> None:
    if len(failed) == len(request.inputs):
        raise failed[min(failed)]


def _named(error: ProxyError, index: int) -> ProxyError:
    """The line knows an input by its place among those that came so far."""
    return PoisonedInput(index) if isinstance(error, PoisonedInput) else error
