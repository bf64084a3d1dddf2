"""PDFs, good and hostile, in the process that renders them."""

import asyncio
import io
from contextlib import suppress

import psutil
import pytest
from PIL import Image

from proxy.contract.images import PDF_PAGES
from proxy.faults import BadImage
from proxy.images.pdf.rendering import rendered_pages
from proxy.images.sizes import MAX_PIXELS
from tests.support.requests.pdfs import ENCRYPTED, bomb, filled, pdf, slow


async def test_pages_have_the_pixels_that_the_model_sees_whatever_their_size_on_paper() -> None:
    file = pdf(filled(1, 0, 0), filled(0, 0, 1), size=(300, 700))
    for page, colour in zip(await rendered_pages(file), ((255, 0, 0), (0, 0, 255)), strict=True):
        image = Image.open(io.BytesIO(page))
        assert image.width * image.height == pytest.approx(MAX_PIXELS, rel=0.01)
        assert image.width / image.height == pytest.approx(300 / 700, rel=0.01)
        assert image.getpixel((image.width // 2, image.height // 2)) == colour
        assert image.getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"", "is not a PDF"),
        (b"%PDF-1.7\n" + b"x" * 1000, "is not a PDF"),
        (pdf(filled(1, 0, 0))[:200], "is not a PDF"),
        (pdf(b"", trailer=ENCRYPTED), "is an encrypted PDF"),
        (pdf(*[b""] * (PDF_PAGES + 1)), f"is a PDF of {PDF_PAGES + 1} pages: from 1 to {PDF_PAGES} are served"),
    ],
    ids=["empty", "garbage", "cut", "encrypted", "long"],
)
async def test_what_is_no_pdf_that_can_be_rendered_is_refused_by_name(file: bytes, said: str) -> None:
    with pytest.raises(BadImage, match=said):
        await rendered_pages(file)


async def test_a_bomb_takes_no_memory_of_ours_and_a_slow_one_ends_at_its_deadline() -> None:
    with pytest.raises(BadImage, match="within 1 s"):
        await rendered_pages(slow(200_000), deadline_s=1)
    assert not rendering()
    before = psutil.Process().memory_info().rss
    with suppress(BadImage):  # PDFium draws what there is of it, or gives up
        await rendered_pages(bomb(60_000))
    assert psutil.Process().memory_info().rss - before < 50 * 2**20
    assert not rendering()


async def test_its_process_ends_with_the_request_that_wanted_it() -> None:
    running = asyncio.create_task(rendered_pages(slow(200_000)))
    async with asyncio.timeout(60):
        while not rendering():
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not rendering()


def rendering() -> list[psutil.Process]:
    """The processes that render, of this one's children."""
    children = psutil.Process().children()
    return [one for one in children if any(part.endswith("child.py") for part in one.cmdline())]
