"""From what a client sent to a picture, bounded at each step: bytes, pixels, and how many are in memory at a time."""

import asyncio
import logging
import os
import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

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
_THREADS = max(2, min(4, os.cpu_count() or 2))

T = TypeVar("T")


@asynccontextmanager
async def image_loading(options: ImageOptions) -> AsyncIterator["ImageLoader"]:
    """A loader for the block."""
    warnings.filterwarnings("ignore", module="PIL")  # what Pillow thinks of a client's file is not for the log,
    logging.getLogger("PIL").setLevel(logging.INFO)  # nor what the file says of its maker
    threads = ThreadPoolExecutor(_THREADS, "images")
    try:
        with system_lookup() as lookup:
            async with fetching(options, lookup) as fetcher:
                yield ImageLoader(options, fetcher, threads)
    finally:
        await asyncio.to_thread(threads.shutdown, cancel_futures=True)


class FileBudget:
    """The bytes that the image files of one request may still have."""

    def __init__(self, options: ImageOptions) -> None:
        self._most = self._left = options.max_total_bytes

    def spend(self, size: int) -> None:
        """Raises BadImage."""
        self._left -= size
        if self._left < 0:
            raise BadImage(f"is too much: the images of one request may have {self._most} bytes together, as files")


class ImageLoader:
    """Loads images. Waiting for a place costs no memory but the request's own."""

    def __init__(self, options: ImageOptions, fetcher: Fetcher, threads: ThreadPoolExecutor) -> None:
        self._options, self._fetcher, self._threads = options, fetcher, threads
        self._places = asyncio.Semaphore(MAX_PICTURES)
        self._documents = asyncio.Semaphore(MAX_DOCUMENTS)
        self._decoding = PixelGate(options.max_pixels)

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
        await self._decoding.enter(given.pixels)
        return await self._run(
            lambda: picture_of(decoding.pixels(image, size), facts), lambda: self._decoding.leave(given.pixels)
        )

    async def _run(self, work: Callable[[], T], done: Callable[[], None] = lambda: None) -> T:
        """The result of the work in a thread. `done` is called when the thread is, even if the caller left before."""
        loop, running = asyncio.get_running_loop(), self._threads.submit(work)
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(done))
        return await asyncio.wrap_future(running)


class PixelGate:
    """Lets images in while they have at most `most` pixels together, in the order in which they came."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._waiting = deque[tuple[int, asyncio.Future[None]]]()

    async def enter(self, pixels: int) -> None:
        """Wait for room; there are never more pixels than `most`."""
        if not self._waiting and pixels <= self._left:
            self._left -= pixels
            return
        admitted = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self.leave(pixels)
            raise

    def leave(self, pixels: int) -> None:
        """Give the room back."""
        self._left += pixels
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._left):
            size, admitted = self._waiting.popleft()
            if not admitted.done():
                self._left -= size
                admitted.set_result(None)
