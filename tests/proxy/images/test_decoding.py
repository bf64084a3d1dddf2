"""An image file becomes the original's pixels, and a broken or hostile one an error that says what it is."""

import io
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from PIL import Image

from proxy.faults import BadImage
from proxy.images import decoding
from proxy.images.bicubic import resized_columns, resized_rows
from proxy.images.pictures import bitmap, picture_of
from proxy.images.sizes import PixelSize, target_size
from tests.support.requests.pictures import (
    bad_files,
    hidden_tiles,
    many_scans,
    noise_image,
    original_pixels,
    overlapping_strips,
    png_head,
    tiff_of_tags,
    tiled_tiff,
    written_image,
)

MOST = 100_000_000
Make = Callable[[], bytes]


def decoded(file: bytes) -> np.ndarray:
    image = decoding.opened(file, MOST)
    return decoding.pixels(image, target_size(PixelSize(*image.size)))


def transparent() -> bytes:
    image = noise_image(1, 100, 600).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return written_image(image)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return written_image(noise_image(2, 120, 50), "JPEG", exif=exif)


def sixteen_bits() -> bytes:
    return written_image(Image.fromarray(np.random.default_rng(1).integers(0, 2**16, (40, 90), dtype=np.uint16)))


def palette_with_transparency() -> bytes:
    return written_image(noise_image(3, 64, 64).quantize(16), transparency=bytes(range(0, 160, 10)))


def animated() -> bytes:
    frames = [noise_image(seed, 70, 80) for seed in (4, 5)]
    return written_image(frames[0], "GIF", save_all=True, append_images=frames[1:])


MADE: dict[str, Make] = {
    "alpha is dropped, not blended": transparent,
    "no EXIF rotation": rotated,
    "16 bits": sixteen_bits,
    "palette": palette_with_transparency,
    "the first frame": animated,
    "AVIF as a still image of any codec": lambda: written_image(noise_image(5, 60, 60), "AVIF").replace(
        b"ftypavif", b"ftypmif1", 1
    ),
    "grey": lambda: written_image(noise_image(6, 99, 33).convert("L")),
    "black and white": lambda: written_image(noise_image(6, 99, 33).convert("1")),
    "strips that share bytes": lambda: overlapping_strips(3),
    "CMYK": lambda: written_image(noise_image(7, 300, 40).convert("CMYK"), "JPEG"),
    "32-bit floats": lambda: written_image(noise_image(7, 30, 40).convert("L").convert("F"), "TIFF"),
    "1 pixel": lambda: written_image(noise_image(8, 1, 1)),
    "1 x 200": lambda: written_image(noise_image(8, 1, 200)),
    **{kind: partial(written_image, noise_image(9, 200, 151), kind) for kind in decoding.FORMATS},
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
def test_the_pixels_are_those_of_the_original(make: Make) -> None:
    file = make()
    before = original_pixels(file)
    size = target_size(PixelSize(before.shape[1], before.shape[0]))
    assert np.array_equal(decoded(file), resized_columns(resized_rows(before, size.width), size.height))


def test_the_file_for_the_engine_has_exactly_these_pixels() -> None:
    pixels = decoded(written_image(noise_image(1, 200, 90)))
    again = Image.open(io.BytesIO(bitmap(pixels)))
    assert (again.format, again.mode) == ("BMP", "RGB")
    assert np.array_equal(np.asarray(again), pixels)


def test_equal_pixels_and_no_others_have_equal_digests() -> None:
    image = noise_image(1, 56, 84)
    first, same = (picture_of(decoded(written_image(image, kind))) for kind in ("PNG", "BMP"))
    other = picture_of(decoded(written_image(image, "JPEG")))
    turned = picture_of(decoded(written_image(image)).reshape(56, 84, 3))
    assert first == same
    assert first.tokens == 6
    assert len({first.digest, other.digest, turned.digest}) == 3


JPEG, GIF = (written_image(noise_image(1, 9, 9), name) for name in ("JPEG", "GIF"))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "is HEIC, which is not supported"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "is HEIC, which is not supported"),
        (b" <svg xmlns='http://www.w3.org/2000/svg'/>", "is SVG, which is not supported"),
        (b"%PDF-1.7", "is PDF, which is not supported"),
        (b"P3 9 9 255\n" + b"#\n" * 9, "is plain PPM, which is not supported"),
        (tiled_tiff(4096), "is a TIFF whose tiles are much larger than the image"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "is not a readable image: it is damaged, or none of AVIF",
        ),
        (b"P6\n" + b"#" * 30_000 + b"\n1 1\n255\nabc", "is not a readable image"),
        (b"\xff\xd8" + b"\xff\xe1\0\x02" * 30_000 + JPEG[2:], "is not a readable image"),
        (b"GIF89a" + bytes(7) + b"!\xfe\x01a\0" * 30_000 + GIF[13:], "is not a readable image"),
        (png_head(100_000, 100_000), "has more than 100000000 pixels"),
        (png_head(201, 1), "one side is more than 200 times the other"),
        (png_head(500, 500), "is a broken or truncated PNG"),
        (written_image(noise_image(1, 99, 99), "JPEG")[:2000], "is a broken or truncated JPEG"),
        (written_image(noise_image(1, 99, 99), "PNG")[:9000], "is a broken or truncated PNG"),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_its_reason(file: bytes, said: str) -> None:
    with pytest.raises(BadImage, match=said):
        decoded(file)


@pytest.mark.parametrize("make", [hidden_tiles, partial(overlapping_strips, 500)])
def test_a_tiff_whose_work_its_tags_hide_is_refused(make: Make) -> None:
    with pytest.raises(BadImage, match="is a TIFF whose layout is unusual"):
        decoded(make())


@pytest.mark.filterwarnings("ignore:Tag data:UserWarning")
def test_the_tags_of_a_tiff_take_no_more_memory_than_the_file() -> None:
    file = tiff_of_tags(count=100, size=10**5)
    tracemalloc.start()
    try:
        assert decoded(file).shape == (56, 56, 3)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(file)
    finally:
        tracemalloc.stop()


def test_a_jpeg_whose_scans_are_too_many_for_its_size_is_refused_before_it_is_decoded() -> None:
    image = noise_image(1, 99, 99)
    for more, most in ((5, 99 * 99), (50, MOST)):
        assert decoding.opened(many_scans(image, more), most).size == (99, 99)
    with pytest.raises(BadImage, match="too many scans"):
        decoding.opened(many_scans(image, more=50), 99 * 99)


def test_a_hundred_bad_files_are_refused_or_decoded_and_nothing_else() -> None:
    refused = 0
    for file in bad_files(100):
        try:
            decoded(file)
        except BadImage:
            refused += 1
    assert refused > 90
