"""The whole use case on one screen: a request of any dialect in, the model's vectors out."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from proxy import encode, prepare, token_ids
from proxy.embedding import EmbedRequest, EmbedResult
from proxy.errors import DeadlineExceeded, invalid
from proxy.model import ServedModel
from proxy.tasks import TaskTable
from proxy.token_ids import Decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may ask for."""

    items: int
    input_tokens: int
    dimensions: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EmbedService:
    """`decode` reads token ids in a request; None leaves it to the model's own tokenizer."""

    tasks: TaskTable
    models: Mapping[str, ServedModel]
    limits: Limits
    decode: Decode | None = None

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """The vector of every input for the request's task, in order: sliced, then normalised.

        Raises a ProxyError: ModelNotFound, Invalid, InputTooLong before anything is computed; Overloaded and
        DeadlineExceeded; BackendError and its kin where the model cannot answer.
        """
        self._check(request)
        route = self.tasks.route(request.model, request.task, request.role, default=request.default_task)
        model = self.models[route.backend]
        try:
            async with asyncio.timeout(self.limits.seconds):
                texts = token_ids.texts_of(request.inputs, self.decode or model.decode)
                texts = prepare.as_trained(route.prefix, texts, self.tasks.unicode_normalization)
                limit, truncate = self.limits.input_tokens, request.truncate
                texts = prepare.bounded(texts, limit, model.longest_token, truncate=truncate)
                ids = prepare.within(limit, await model.tokenize(texts), truncate=truncate)
                raw = await model.embed(ids)
        except TimeoutError as error:
            raise DeadlineExceeded(f"not done within {self.limits.seconds:g} s", retry_after_s=5) from error
        dimensions = request.dimensions or self.limits.dimensions
        return EmbedResult(
            model=self.tasks.model,
            task=route.task,
            prefix=route.prefix,
            provenance=model.provenance,
            vectors=encode.finish(raw, dimensions=dimensions, normalized=request.normalized),
            tokens=sum(map(len, ids)),
        )

    def _check(self, request: EmbedRequest) -> None:
        if not request.inputs:
            raise invalid("input", "must have at least one text", kind="too_short", given="[]")
        if len(request.inputs) > self.limits.items:
            raise invalid("input", f"{len(request.inputs)} texts; at most {self.limits.items}", kind="too_long")
        if request.dimensions is not None and not 1 <= request.dimensions <= self.limits.dimensions:
            message = f"must be from 1 to {self.limits.dimensions}"
            raise invalid("dimensions", message, kind="out_of_range", given=request.dimensions)
