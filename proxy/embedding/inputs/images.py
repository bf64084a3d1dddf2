"""Embeds the images of one request: a few at a time are loaded, wait in the queue and are computed."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from proxy.errors import BackendError, BackendUnavailable, ProxyError
from proxy.faults import BadImage, PoisonedInput
from proxy.images.loading import ImageLoader
from proxy.types import EmbedRequest, ImageFacts, ImageSource, Matrix, Picture

MAX_LOADED = 4  # images of one request in memory: while one is computed the next are ready, and others have places

Compute = Callable[[Picture], Awaitable[Matrix]]


@dataclass(frozen=True, slots=True)
class EmbeddedImages:
    """By index in the request: what was made of each image, its tiles, and its file's facts; or its error."""

    rows: dict[int, Matrix] = field(default_factory=dict)
    tiles: dict[int, int] = field(default_factory=dict)
    facts: dict[int, ImageFacts] = field(default_factory=dict)
    failed: dict[int, ProxyError] = field(default_factory=dict)


@asynccontextmanager
async def with_pages(request: EmbedRequest, loader: ImageLoader) -> AsyncIterator[EmbedRequest]:
    """The request for the block, with the pages of its PDF in place of that. Raises Invalid for a bad PDF."""
    match request.inputs:
        case [ImageSource(pdf=True) as pdf]:
            async with AsyncExitStack() as kept:
                try:
                    pages = await kept.enter_async_context(loader.pages(pdf))
                except BadImage as error:
                    raise error.at(0) from error
                yield replace(request, inputs=pages)
        case _:
            yield request


async def embed_images(
    images: Mapping[int, ImageSource],
    loader: ImageLoader,
    compute: Compute,
    *,
    partial: bool,
    at_once: int = MAX_LOADED,
) -> EmbeddedImages:
    """What `compute` makes of each image. Equal sources are loaded once, and equal pixels computed once.

    Raises the error of one image, with its index, unless `partial`.
    """
    by_source = defaultdict[ImageSource, list[int]](list)
    for index, source in images.items():
        by_source[source].append(index)
    work = _Work(loader, compute, at_once, partial=partial)
    try:
        async with asyncio.TaskGroup() as tasks:
            for source, indices in by_source.items():
                tasks.create_task(work.embed(source, indices))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return work.embedded


async def count_tiles(images: Mapping[int, ImageSource], loader: ImageLoader, *, partial: bool) -> dict[int, int]:
    """How many tiles each image has, by its index; no pixel is decoded. Raises Invalid, unless `partial`."""
    budget, tiles = loader.budget(), dict[int, int]()
    for index, source in images.items():
        try:
            tiles[index] = await loader.tokens(source, budget)
        except BadImage as error:
            if not partial:
                raise error.at(index) from error
    return tiles


class _Work:
    def __init__(self, loader: ImageLoader, compute: Compute, at_once: int, *, partial: bool) -> None:
        self.embedded = EmbeddedImages()
        self._loader, self._compute, self._partial = loader, compute, partial
        self._budget = loader.budget()
        self._places = asyncio.Semaphore(at_once)
        self._computed = dict[bytes, asyncio.Future[Matrix]]()  # by the digest of the pixels

    async def embed(self, source: ImageSource, indices: Sequence[int]) -> None:
        """Embed the image at these indices."""
        try:
            async with self._places, self._loader.picture(source, self._budget) as picture:
                made = await self._once(picture)
        except BadImage as error:
            self._fail({index: error.at(index) for index in indices})
        except PoisonedInput:
            self._fail({index: PoisonedInput(index) for index in indices})
        except BackendUnavailable:  # it concerns all inputs
            raise
        except BackendError as error:
            self._fail(dict.fromkeys(indices, error))
        else:
            self.embedded.rows.update(dict.fromkeys(indices, made))
            self.embedded.tiles.update(dict.fromkeys(indices, picture.tokens))
            self.embedded.facts.update(dict.fromkeys(indices, picture.facts))

    async def _once(self, picture: Picture) -> Matrix:
        if picture.digest not in self._computed:
            self._computed[picture.digest] = asyncio.ensure_future(self._compute(picture))
        return await self._computed[picture.digest]

    def _fail(self, errors: Mapping[int, ProxyError]) -> None:
        if not self._partial:
            raise errors[min(errors)]
        self.embedded.failed.update(errors)
