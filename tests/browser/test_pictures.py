"""The playground compares pictures with texts, where the server has images; elsewhere it does not ask for them."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio

from tests.support.engines.engine import EngineMissing
from tests.support.host.watched_page import watched
from tests.support.requests.dialects import embeddings
from tests.support.requests.pictures import png
from tests.support.servers.media import serving_images
from tests.support.servers.stack import Stack

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from tests.support.host.watched_page import Watched

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def images(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A proxy that takes images."""
    try:
        async with serving_images(tmp_path_factory.mktemp("media"), {}) as served:
            yield served
    except EngineMissing as missing:
        pytest.skip(str(missing))


async def test_pictures_stand_beside_texts_in_the_matrix(browser: "Browser", images: Stack, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for number, file in enumerate(files):
        file.write_bytes(png(number))
    async with watched(browser, images.url) as console:
        page = await console.open("playground")
        await page.get_by_label("Texts, one a line").fill("a llama")
        await page.get_by_label("Pictures, beside the texts").set_input_files(files)
        await page.locator("#task-a").select_option("retrieval.passage")
        await page.locator("#code", has_text="data:image/png;base64,").wait_for(state="attached")
        await page.get_by_role("button", name="Compute").click()
        await page.locator("#play-status", has_text="tokens in").wait_for()
        rows = await page.locator("table.heat tbody tr").all()
        shown = [[float(cell) for cell in await row.locator("td").all_inner_texts()] for row in rows]
        titles = await page.locator("table.heat tbody th").all_inner_texts()
        assert len(await page.locator("#pieces li").all()) == 1
        assert len(await page.locator("#code").inner_text()) < 1000
    assert titles == ["1 a llama", "2 0.png", "3 1.png"]
    inputs = ["a llama", *({"image": _base64(file)} for file in files)]
    answer = await images.post({"input": inputs, "task": "retrieval.passage"})
    vectors = np.array(embeddings(answer), dtype=np.float32)
    assert np.abs(np.array(shown) - vectors @ vectors.T).max() < 0.0006


async def test_without_images_no_picture_is_asked_for(console: "Watched") -> None:
    page = await console.open("playground")
    assert not await page.get_by_label("Pictures, beside the texts").is_visible()


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
