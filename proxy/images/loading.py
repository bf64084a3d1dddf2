"""From what a client sent to a picture, bounded at each step: bytes, pixels, and how many are in memory at a time."""

import asyncio
import logging
import os
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple, TypeVar

from proxy.contract.images import ImageOptions
from proxy.faults import BadImage
from proxy.images import decoding
from proxy.images.fetching import Fetcher, fetching, system_lookup
from proxy.images.pdf.rendering import rendered_pages
from proxy.images.pictures import picture_of
from proxy.images.sizes import PixelSize, target_size
from proxy.images.sources import file_of, image_url
from proxy.types import ImageSource, Picture

MAX_PICTURES = 32  # in memory at a time, from their file to their vector: at most 8 MB before, 2.4 MB after
MAX_DOCUMENTS = 4  # PDFs that are rendered or embedded at a time: at most 58 MB of pages each
LARGE = 12_500_000  # pixels; images with more are decoded one after the other, and hold up no smaller one
_THREADS = max(2, min(4, os.cpu_count() or 2))

T = TypeVar("T")


class Threads(NamedTuple):
    """Where images are decoded: those of up to LARGE pixels, and all larger ones."""

    small: ThreadPoolExecutor
    large: ThreadPoolExecutor


@asynccontextmanager
async def image_loading(options: ImageOptions) -> AsyncIterator["ImageLoader"]:
    """A loader for the block."""
    warnings.filterwarnings("ignore", module="PIL")  # what Pillow thinks of a client's file is not for the log,
    logging.getLogger("PIL").setLevel(logging.INFO)  # nor what the file says of its maker
    threads = Threads(ThreadPoolExecutor(_THREADS, "images"), ThreadPoolExecutor(1, "large-images"))
    try:
        with system_lookup() as lookup:
            async with fetching(options, lookup) as fetcher:
                yield ImageLoader(options, fetcher, threads)
    finally:
        for pool in threads:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)


class FileBudget:
    """The bytes that the image files of one request may still have."""

    def __init__(self, options: ImageOptions) -> None:
        self._most = self._left = options.max_total_bytes

    def spend(self, size: int) -> None:
        """Raises BadImage."""
        if size > self._left:
            raise BadImage(f"is too much: the images of one request may have {self._most} bytes together, as files")
        self._left -= size


class ImageLoader:
    """Loads images. Waiting for a place costs no memory but the request's own."""

    def __init__(self, options: ImageOptions, fetcher: Fetcher, threads: Threads) -> None:
        self._options, self._fetcher, self._threads, self._large = options, fetcher, *threads
        self._places = asyncio.Semaphore(MAX_PICTURES)
        self._documents = asyncio.Semaphore(MAX_DOCUMENTS)

    def budget(self) -> FileBudget:
        """The bytes for one request."""
        return FileBudget(self._options)

    @asynccontextmanager
    async def picture(self, source: ImageSource, budget: FileBudget) -> AsyncIterator[Picture]:
        """The image as the model gets it. Until the block ends it is one of MAX_PICTURES. Raises BadImage."""
        async with AsyncExitStack() as place:
            yield await self._decoded(await self._file(source, budget, place))

    async def tokens(self, source: ImageSource, budget: FileBudget) -> int:
        """How many tiles the image is for the model; its pixels are not read. Raises BadImage."""
        async with AsyncExitStack() as place:
            file = await self._file(source, budget, place)
            image = await self._run(lambda: decoding.opened(file, self._options.max_pixels))
            return target_size(PixelSize(*image.size)).tokens

    @asynccontextmanager
    async def pages(self, pdf: ImageSource) -> AsyncIterator[list[ImageSource]]:
        """The pages of a PDF. Until the block ends it is one of MAX_DOCUMENTS. Raises BadImage."""
        async with self._documents:
            async with AsyncExitStack() as place:
                file = await self._file(pdf, self.budget(), place)
            yield [ImageSource(page) for page in await rendered_pages(file)]

    async def _file(self, source: ImageSource, budget: FileBudget, place: AsyncExitStack) -> bytes:
        """The file, once there is a place for it; until then a fetched one counts as being fetched."""
        if url := image_url(source):
            async with self._fetcher.fetched(url) as file:
                await place.enter_async_context(self._places)
        else:
            await place.enter_async_context(self._places)
            file = await self._run(lambda: file_of(source, self._options.max_bytes))
        budget.spend(len(file))
        return file

    async def _decoded(self, file: bytes) -> Picture:
        image = await self._run(lambda: decoding.opened(file, self._options.max_pixels))
        given = PixelSize(*image.size)
        size, facts = target_size(given), decoding.facts_of(image)
        threads = self._large if given.pixels > LARGE else self._threads
        return await _run(threads, lambda: picture_of(decoding.pixels(image, size), facts))

    async def _run(self, work: Callable[[], T]) -> T:
        return await _run(self._threads, work)


async def _run(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.wrap_future(threads.submit(work))
