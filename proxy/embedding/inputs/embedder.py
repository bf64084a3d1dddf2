"""Embeds the texts and images of a request: each becomes one vector, or one for each of its tokens."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from proxy.embedding.inputs.images import Compute, EmbeddedImages, count_tiles, embed_images
from proxy.embedding.inputs.requests import images_in, images_tokens
from proxy.embedding.multivector import TokenEmbedder, check_total
from proxy.embedding.preparation import PreparationRules, PreparedInputs, prepare_inputs
from proxy.errors import ProxyError
from proxy.faults import PoisonedInput
from proxy.images.loading import ImageLoader
from proxy.models.admission import estimate
from proxy.models.served_model import ServedModel
from proxy.scheduling.entries import Caller
from proxy.types import EmbedRequest, Ids, ImageSource, Matrix, Picture, Served

First = TypeVar("First")
Second = TypeVar("Second")


@dataclass(frozen=True, slots=True)
class InputEmbedder:
    """Embeds the inputs of requests for one task: `prefix` stands before each text."""

    model: ServedModel
    prefix: str
    rules: PreparationRules
    loader: ImageLoader

    async def vectors(self, request: EmbedRequest, caller: Caller) -> Served:
        """One vector for each input. Raises what `EmbedService.embed` raises."""
        images = images_in(request)
        prepared = await self._prepared(request, images)
        if not images:
            outcome = await self.model.embed(list(prepared.ids.values()), caller)
            failed = {**prepared.failed, **_named(outcome.failed, list(prepared.ids))}
            _raise_if_all(failed, request)
            return Served(outcome.served(), _tokens(prepared.ids, failed), failed)
        with self.model.expecting(len(images)) as arrived:
            compute = self._compute(replace(caller, bulk=caller.bulk or len(request.inputs) > 1), arrived)
            texts, embedded = await _both(
                self._texts(prepared, caller), embed_images(images, self.loader, compute, partial=request.partial)
            )
        return self._joined(request, texts, embedded, prepared)

    async def token_vectors(self, request: EmbedRequest, token_embedder: TokenEmbedder, caller: Caller) -> Served:
        """One vector for each token of each input, images after texts, one at a time. Raises as `vectors`."""
        images = images_in(request)
        prepared = await self._prepared(request, images)
        check_total(sum(map(len, prepared.ids.values())) + estimate(images.values()))
        made = await token_embedder.embed(prepared.ids, caller)
        prepared.failed.update(made.failed)

        async def compute(picture: Picture) -> Matrix:
            return await token_embedder.embed_picture(picture, caller)

        embedded = await embed_images(images, self.loader, compute, partial=request.partial, at_once=1)
        return self._joined(request, made.rows, embedded, prepared)

    async def count(self, request: EmbedRequest) -> int:
        """The tokens of all inputs, prefixes included; nothing is computed."""
        images = images_in(request)
        prepared = await self._prepared(request, images)
        tiles = await count_tiles(images, self.loader, partial=request.partial)
        return _tokens(prepared.ids, prepared.failed) + images_tokens(tiles)

    async def _prepared(self, request: EmbedRequest, images: Mapping[int, ImageSource]) -> PreparedInputs:
        """The token ids of each text, once the request is admitted, images of whatever size included."""
        texts = request.inputs if not images else [one for one in request.inputs if not isinstance(one, ImageSource)]
        async with self.model.admitted(estimate(texts), len(images)):
            prepared = await prepare_inputs(request, self.prefix, self.model, self.rules)
        _raise_if_all(prepared.failed, request)
        return prepared

    async def _texts(self, prepared: PreparedInputs, caller: Caller) -> dict[int, Matrix]:
        """The vector of each text, by index; `prepared` gets the errors of those without."""
        if not prepared.ids:
            return {}
        indices = list(prepared.ids)
        outcome = await self.model.embed(list(prepared.ids.values()), caller)
        prepared.failed.update(_named(outcome.failed, indices))
        return {index: outcome.rows[row : row + 1] for row, index in enumerate(indices) if row not in outcome.failed}

    def _compute(self, caller: Caller, arrived: Callable[[], None]) -> Compute:
        async def compute(picture: Picture) -> Matrix:
            arrived()
            return await self.model.embed_picture(picture, caller)

        return compute

    @staticmethod
    def _joined(
        request: EmbedRequest, texts: Mapping[int, Matrix], images: EmbeddedImages, prepared: PreparedInputs
    ) -> Served:
        """All rows in the order of the request."""
        failed, rows = {**prepared.failed, **images.failed}, {**texts, **images.rows}
        _raise_if_all(failed, request)
        served = [rows[index] for index in sorted(rows)]
        return Served(
            rows=np.concatenate(served),
            tokens=sum(len(prepared.ids[index]) for index in texts) + images_tokens(images.tiles),
            failed=failed,
            lengths=tuple(map(len, served)) if request.multivector else None,
            image_tokens=sum(images.tiles.values()) if images_in(request) else None,
            images=tuple(facts for _, facts in sorted(images.facts.items())),
        )


async def _both(first: Coroutine[None, None, First], second: Coroutine[None, None, Second]) -> tuple[First, Second]:
    """The results of both, at the same time. Raises the first error of either; the other is cancelled."""
    try:
        async with asyncio.TaskGroup() as tasks:
            one, other = tasks.create_task(first), tasks.create_task(second)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return one.result(), other.result()


def _tokens(ids: Mapping[int, Ids], failed: Mapping[int, ProxyError]) -> int:
    return sum(len(one) for index, one in ids.items() if index not in failed)


def _raise_if_all(failed: Mapping[int, ProxyError], request: EmbedRequest) -> None:
    if len(failed) == len(request.inputs):
        raise failed[min(failed)]


def _named(failed: Mapping[int, ProxyError], indices: Sequence[int]) -> dict[int, ProxyError]:
    """Maps the index among the prepared inputs back to the one the caller sent."""
    return {
        indices[row]: PoisonedInput(indices[row]) if isinstance(error, PoisonedInput) else error
        for row, error in failed.items()
    }
