"""The whole use case on one screen: a request of any dialect in, the model's vectors out."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from proxy import encode, prepare
from proxy.embedding import EmbedRequest, EmbedResult
from proxy.errors import DeadlineExceeded, invalid
from proxy.model import ServedModel
from proxy.tasks import TaskTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may ask for."""

    items: int
    input_tokens: int
    dimensions: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EmbedService:
    tasks: TaskTable
    models: Mapping[str, ServedModel]
    limits: Limits

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """The vector of every text for the request's task, in order: sliced, then normalised.

        Raises a ProxyError: ModelNotFound, Invalid, InputTooLong before anything is computed; Overloaded and
        DeadlineExceeded; BackendError and its kin where the model cannot answer.
        """
        self._check(request)
        route = self.tasks.route(request.model, request.task, request.role)
        model = self.models[route.backend]
        try:
            async with asyncio.timeout(self.limits.seconds):
                texts = prepare.as_trained(route.prefix, request.texts, self.tasks.unicode_normalization)
                ids = await model.tokenize(texts)
                ids = prepare.within(self.limits.input_tokens, ids, truncate=request.truncate)
                raw = await model.embed(ids)
        except TimeoutError as error:
            raise DeadlineExceeded(f"not done within {self.limits.seconds:g} s", retry_after_s=5) from error
        dimensions = request.dimensions or self.limits.dimensions
        vectors = encode.finish(raw, dimensions=dimensions, normalized=request.normalized)
        return EmbedResult(model=self.tasks.model, task=route.task, vectors=vectors, tokens=sum(map(len, ids)))

    def _check(self, request: EmbedRequest) -> None:
        if not request.texts:
            raise invalid("input", "must have at least one text", kind="too_short", given="[]")
        if len(request.texts) > self.limits.items:
            raise invalid("input", f"{len(request.texts)} texts; at most {self.limits.items}", kind="too_long")
        if request.dimensions is not None and not 1 <= request.dimensions <= self.limits.dimensions:
            message = f"must be from 1 to {self.limits.dimensions}"
            raise invalid("dimensions", message, kind="out_of_range", given=request.dimensions)
