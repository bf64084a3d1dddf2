"""Image files of all kinds, good ones and bad ones."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from proxy.images.bicubic import Raster


def noise_image(seed: int, width: int, height: int) -> Image.Image:
    """A smooth picture with some noise, as photographs are."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR), dtype=np.int16)
    noise = random.integers(-9, 10, smooth.shape, dtype=np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def written_image(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The file of an image in that format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(seed: int = 0, width: int = 90, height: int = 60) -> bytes:
    """A small PNG."""
    return written_image(noise_image(seed, width, height))


def original_pixels(file: bytes) -> Raster:
    """The pixels as the original has them before its resize."""
    with warnings.catch_warnings(action="ignore"):  # what Pillow thinks of transparency in a palette
        return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def png_head(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has nearly nothing of it."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + _chunk(b"IEND", b"")
    )


def tiled_tiff(side: int) -> bytes:
    """A TIFF of 100 x 100 pixels whose one tile has that side, and nothing in it."""
    return _tiff({256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 8}, bytes(8))


def hidden_tiles() -> bytes:
    """That TIFF with tiles of 4096, in a type of tag that libtiff reads and Pillow passes over (SLONG8)."""
    head = {256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: 100, 279: 8}
    return _tiff(head, struct.pack("<Q", 4096), [struct.pack("<HHII", tag, 17, 1, 8) for tag in (322, 323)])


def overlapping_strips(rows: int) -> bytes:
    """A TIFF of that many rows of 100 pixels, each a compressed strip, and all of them the same bytes."""
    strip = zlib.compress(np.random.default_rng(0).bytes(100))
    offsets, counts = (struct.pack(f"<{rows}I", *[value] * rows) for value in (8, len(strip)))
    place = 8 + len(strip)
    parts = [struct.pack("<HHII", tag, 4, rows, at) for tag, at in ((273, place), (279, place + len(offsets)))]
    return _tiff({256: 100, 257: rows, 258: 8, 259: 8, 262: 1, 277: 1, 278: 1}, strip + offsets + counts, parts)


def tiff_of_tags(count: int, size: int) -> bytes:
    """A TIFF of 9 x 9 pixels with that many tags more, all of which have the same `size` bytes."""
    head = {256: 9, 257: 9, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 9, 279: 81}
    return _tiff(head, bytes(size), [struct.pack("<HHII", 40000 + number, 1, size, 8) for number in range(count)])


def _tiff(tags: Mapping[int, int], content: bytes, more: Sequence[bytes] = ()) -> bytes:
    entries = [*(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()), *more]
    head = b"II*\0" + struct.pack("<I", 8 + len(content))
    return head + content + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def many_scans(image: Image.Image, more: int) -> bytes:
    """A progressive JPEG whose last scan stands in it that many times more."""
    file = written_image(image, "JPEG", progressive=True)
    last = file[file.rindex(b"\xff\xc4", 0, file.rindex(b"\xff\xda")) : -2]
    return file[:-2] + last * more + file[-2:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bad_files(count: int) -> Iterator[bytes]:
    """Files that are no images, or broken ones: cut, with bytes flipped, of other formats, huge by their head."""
    random = np.random.default_rng(3)
    image = noise_image(1, 120, 80)
    good = [written_image(image, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM")]
    yield from (
        b"",
        b"\0" * 100,
        b"GIF89a",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?><svg/>",
        b"%PDF-1.7\n",
        b"\0\0\0\x18ftypheic\0\0\0\0heicmif1",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"8BPS\0\x01" + b"\0" * 40,
        b"RIFF\x24\0\0\0WAVEfmt ",
        png_head(100_000, 100_000),
        png_head(30_000, 4_000),
        png_head(0, 5),
        png_head(300, 1),
        png_head(500, 500),
        random.bytes(3000),
    )
    while count > 16:
        one = good[count % len(good)]
        kind = count % 3
        if kind == 0:
            yield one[: int(random.integers(1, len(one) * 3 // 4))]
        elif kind == 1:
            yield one[:20] + random.bytes(len(one) - 20)
        else:
            yield one[: len(one) // 2] + random.bytes(200)
        count -= 1
