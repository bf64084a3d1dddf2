"""An image file → its pixels in the size that the model sees. For a thread.

As the original: the first frame, no EXIF rotation, transparency dropped (what is under it shows), then the resize.
"""

import re
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

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
_REFUSED = {
    "HEIC": re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL),
    "SVG": re.compile(rb"(\xef\xbb\xbf)?\s*<(\?xml|!--|!DOCTYPE svg|svg)", re.IGNORECASE),
    "PDF": re.compile(rb"\s*%PDF-"),
}


def opened(file: bytes, max_pixels: int) -> Image.Image:
    """The image, of which only the head was read. Raises BadImage for another format, or for more than `max_pixels`."""
    for name, beginning in _REFUSED.items():
        if beginning.match(file):
            raise BadImage(f"is {name}, which is not supported: send one of {', '.join(FORMATS)}")
    try:
        image = Image.open(BytesIO(file), formats=FORMATS)
    except Exception as error:  # Pillow's parsers raise whatever a broken file makes them
        raise BadImage(f"is not a readable image: it is damaged, or none of {', '.join(FORMATS)}") from error
    if image.width * image.height > max_pixels:
        raise BadImage(f"has more than {max_pixels} pixels, the most that this server takes")
    return image


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
