"""An image file → its pixels in the size that the model sees. For a thread.

As the original: the first frame, no EXIF rotation, transparency dropped (what is under it shows), then the resize.
"""

import math
import re
from collections.abc import Iterator
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import (
    STRIPBYTECOUNTS,
    STRIPOFFSETS,
    TILEBYTECOUNTS,
    TILELENGTH,
    TILEOFFSETS,
    TILEWIDTH,
    TiffImageFile,
)

from proxy.faults import BadImage
from proxy.images.bicubic import Raster, resized_columns, resized_rows
from proxy.images.sizes import PixelSize
from proxy.quoting import quoted
from proxy.types import ImageFacts

# Pillow reads more, with parsers that few files test (EPS, FITS, PSD); these are read, and none is installed beside it.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
Image.MAX_IMAGE_PIXELS = None  # `opened` has a bound of its own; Pillow's would only warn
_BITS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}  # of a pixel; all others: a byte for each band
_STRIP = 256  # rows that are converted at a time
_MAX_TILE = 2**22  # pixels of a TIFF's tile, which libtiff has in memory as a whole however small the image is
_LAYOUT = (STRIPOFFSETS, STRIPBYTECOUNTS, TILEWIDTH, TILELENGTH, TILEOFFSETS, TILEBYTECOUNTS)
_OVERLAP = 4  # times a TIFF's bytes may be decoded: strips may share some, but not each of thousands the whole file
_HEAD_READS = 20_000  # of a file's head: Pillow reads one for each segment, block of comments, or byte of some heads
_SCANS = 20  # of a JPEG with the most pixels; each scan of a progressive one goes over all of them again
_REFUSED = {
    "HEIC": re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|(mif1|msf1)(?!.{4,64}?avi[fs]))", re.DOTALL),
    "SVG": re.compile(rb"(\xef\xbb\xbf)?\s*<(\?xml|!--|!DOCTYPE svg|svg)", re.IGNORECASE),
    "PDF": re.compile(rb"\s*%PDF-"),
    "plain PPM": re.compile(rb"P[123]\s"),  # Pillow takes minutes for one that is full of comments
}


class _Head(BytesIO):
    """A file that raises ValueError after `reads` reads: Pillow's parsers are Python, and a head may keep one busy."""

    reads: float = _HEAD_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads -= 1
        if self.reads < 0:
            raise ValueError("its head has too many parts")
        return super().read(size)


def opened(file: bytes, max_pixels: int) -> Image.Image:
    """The image, of which only the head was read. Raises BadImage for another format, or for more than `max_pixels`."""
    for name, beginning in _REFUSED.items():
        if beginning.match(file):
            raise BadImage(f"is {name}, which is not supported: send one of {', '.join(FORMATS)}")
    try:
        image = Image.open(head := _Head(file), formats=FORMATS)
        head.reads = math.inf
        tile, parts = _tile_pixels(image), _part_bytes(image)
        hidden = isinstance(image, TiffImageFile) and _hides_layout(file, image)
    except Exception as error:  # Pillow's parsers raise whatever a broken file makes them
        raise BadImage(f"is not a readable image: it is damaged, or none of {', '.join(FORMATS)}") from error
    if image.width * image.height > max_pixels:
        raise BadImage(f"has more than {max_pixels} pixels, the most that this server takes")
    if hidden or parts > _OVERLAP * len(file):
        raise BadImage("is a TIFF whose layout is unusual: its strips overlap, or its tags are of an unknown type")
    if tile > max(_MAX_TILE, image.width * image.height):
        raise BadImage("is a TIFF whose tiles are much larger than the image")
    if _scans(file) * image.width * image.height > _SCANS * max_pixels:
        raise BadImage("is a JPEG with too many scans for its size")
    return image


def _tile_pixels(image: Image.Image) -> int:
    """The pixels of a TIFF's tile; 0 if it has none, and for another format."""
    if not isinstance(image, TiffImageFile):
        return 0
    tags = image.tag_v2
    return int(tags.get(TILEWIDTH, 0)) * int(tags.get(TILELENGTH, 0))


def _part_bytes(image: Image.Image) -> int:
    """How many bytes of a compressed TIFF are decoded, with those that are decoded more than once; 0 for others."""
    if not isinstance(image, TiffImageFile) or not any(tile.codec_name == "libtiff" for tile in image.tile):
        return 0
    counts = (image.tag_v2.get(tag, ()) for tag in (STRIPBYTECOUNTS, TILEBYTECOUNTS))
    return sum(sum(map(int, count)) if isinstance(count, tuple) else int(count) for count in counts)


def _hides_layout(file: bytes, image: TiffImageFile) -> bool:
    """Whether libtiff finds tags of the layout that Pillow passes over: of a type that Pillow does not read, say."""
    order: Literal["little", "big"] = "little" if file.startswith(b"II") else "big"
    big = 43 in file[2:4]
    places, counted, entry = (slice(8, 16), 8, 20) if big else (slice(4, 8), 2, 12)
    start = int.from_bytes(file[places], order)
    first = start + counted
    count = int.from_bytes(file[start:first], order)
    starts = range(first, min(first + count * entry, len(file)), entry)
    written = {int.from_bytes(file[at : at + 2], order) for at in starts}
    return any(tag in written and tag not in image.tag_v2 for tag in _LAYOUT)


def _scans(file: bytes) -> int:
    """How many scans a JPEG has, at most: no marker occurs within their data; 1 for another format."""
    return file.count(b"\xff\xda") if file.startswith(b"\xff\xd8") else 1


def facts_of(image: Image.Image) -> ImageFacts:
    """What the file says of itself."""
    width, height = image.size
    return ImageFacts(width, height, image.format or "", _BITS.get(image.mode, 8 * len(image.getbands())))


def pixels(image: Image.Image, size: PixelSize) -> Raster:
    """All pixels of that size, (height, width, 3). Raises BadImage for a broken or truncated file."""
    try:
        image.load()
        image.info.pop("transparency", None)  # changes no pixel, only a warning
        rows = np.concatenate([resized_rows(strip, size.width) for strip in _strips(image)])
    except Exception as error:  # Pillow's parsers raise whatever a broken file makes them
        raise BadImage(f"is a broken or truncated {image.format}: {quoted(str(error))}") from error
    return resized_columns(rows, size.height)


def _strips(image: Image.Image) -> Iterator[Raster]:
    """The image as RGB, some rows at a time: a large one as a whole would take its memory twice more."""
    for top in range(0, image.height, _STRIP):
        strip = image.crop((0, top, image.width, min(top + _STRIP, image.height)))
        yield np.asarray(strip.convert("RGB"))
