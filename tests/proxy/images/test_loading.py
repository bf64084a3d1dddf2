"""Loading is bounded: pictures and pixels in memory, bytes of one request; and a caller that leaves gives all back."""

import asyncio
import base64
from contextlib import AsyncExitStack

import numpy as np
import pytest
from PIL import Image

from proxy.contract.images import ImageOptions
from proxy.embedding.inputs.images import MAX_LOADED, embed_images
from proxy.faults import BadImage, Invalid, PoisonedInput
from proxy.images.loading import MAX_PICTURES, image_loading
from proxy.types import ImageSource, Matrix, Picture
from tests.support.requests.pictures import noise_image, png, written_image

SMALL = ImageSource(png())


async def test_the_places_for_pictures_are_given_back() -> None:
    async with image_loading(ImageOptions()) as loader:
        async with AsyncExitStack() as held:
            for _ in range(MAX_PICTURES):
                await held.enter_async_context(loader.picture(SMALL, loader.budget()))
            waiting = asyncio.create_task(loader.tokens(SMALL, loader.budget()))
            await asyncio.sleep(0)
            assert not waiting.done()
        assert await waiting == 6
        bad = ImageSource(b"?")
        for _ in range(MAX_PICTURES + 1):
            with pytest.raises(BadImage):
                async with loader.picture(bad, loader.budget()):
                    pass
        async with loader.picture(SMALL, loader.budget()) as picture:
            assert picture.tokens == 6


async def test_a_caller_that_leaves_while_its_image_is_decoded_gives_back_the_pixels() -> None:
    large = ImageSource(written_image(noise_image(1, 480, 420), "BMP"))
    async with image_loading(ImageOptions(max_pixels=210_000)) as loader:

        async def load() -> int:
            async with loader.picture(large, loader.budget()) as picture:
                return picture.tokens

        leaving = [asyncio.create_task(load()) for _ in range(6)]
        for number, task in enumerate(leaving):
            for _ in range(number * 50):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        async with asyncio.timeout(60):
            assert await load() == 255


async def test_a_small_image_does_not_wait_for_large_ones() -> None:
    large = ImageSource(written_image(Image.new("1", (3600, 3600)), "PNG"))
    async with image_loading(ImageOptions()) as loader:
        order = list[str]()

        async def load(name: str, source: ImageSource) -> None:
            async with loader.picture(source, loader.budget()):
                order.append(name)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(load("large", large))
            tasks.create_task(load("small", ImageSource(png())))
        assert order[0] == "small"


@pytest.mark.parametrize("as_text", [False, True])
async def test_a_file_and_the_files_of_a_request_have_limits(as_text: bool) -> None:
    file = png()
    source = ImageSource(base64.b64encode(file).decode() if as_text else file)
    async with image_loading(ImageOptions(max_bytes=len(file), max_total_bytes=2 * len(file))) as loader:
        budget = loader.budget()
        assert [await loader.tokens(source, budget) for _ in range(2)] == [6, 6]
        with pytest.raises(BadImage, match=f"have {2 * len(file)} bytes together"):
            await loader.tokens(source, budget)
    async with image_loading(ImageOptions(max_total_bytes=len(file))) as loader:
        budget = loader.budget()
        with pytest.raises(BadImage, match="bytes together"):
            await loader.tokens(ImageSource(file + bytes(9)), budget)
        assert await loader.tokens(source, budget) == 6  # what was refused takes nothing from the others
    async with image_loading(ImageOptions(max_bytes=len(file) - 1)) as loader:
        with pytest.raises(BadImage, match=f"more than {len(file) - 1} bytes"):
            await loader.tokens(source, loader.budget())


class Model:
    """Computes an image's number of tiles, and counts; a picture of 4 tiles is poison."""

    def __init__(self) -> None:
        self.computed = self.now = self.most = 0

    async def __call__(self, picture: Picture) -> Matrix:
        self.computed, self.now = self.computed + 1, self.now + 1
        self.most = max(self.most, self.now)
        for _ in range(20):
            await asyncio.sleep(0)
        self.now -= 1
        if picture.tokens == 4:
            raise PoisonedInput(0)
        return np.array([[picture.tokens]], dtype=np.float32)


async def test_images_of_a_request_are_loaded_a_few_at_a_time_and_equal_ones_computed_once() -> None:
    model = Model()
    picture = noise_image(1, 84, 56)
    same = [ImageSource(written_image(picture, kind)) for kind in ("PNG", "BMP", "PNG")]
    others = [ImageSource(png(number, 90, 60)) for number in range(12)]
    images = dict(enumerate([*same, *others], 5))
    async with image_loading(ImageOptions()) as loader:
        embedded = await embed_images(images, loader, model, partial=False)
    assert sorted(embedded.rows) == sorted(images)
    assert set(embedded.tiles.values()) == {6}
    assert model.computed == 13
    assert model.most <= MAX_LOADED


async def test_an_image_that_fails_has_its_own_index() -> None:
    images = {3: ImageSource(png()), 7: ImageSource("?"), 9: ImageSource(png(1, 56, 56)), 11: ImageSource("?")}
    async with image_loading(ImageOptions()) as loader:
        embedded = await embed_images(images, loader, Model(), partial=True)
        assert list(embedded.rows) == [3]
        assert {index: str(error)[:9] for index, error in sorted(embedded.failed.items())} == {
            7: "input.7: ",
            9: "input.9: ",
            11: "input.11:",
        }
        with pytest.raises(Invalid, match=r"input\.7"):
            await embed_images({3: images[3], 7: images[7]}, loader, Model(), partial=False)
