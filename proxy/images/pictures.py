"""Raster → the file that the engine gets: a BMP, which costs no time to write and loses nothing. Pure."""

import hashlib
import struct

import pybase64

from proxy.images.bicubic import Raster
from proxy.images.sizes import PixelSize
from proxy.types import ImageFacts, Picture

_HEAD = struct.Struct("<2sIHHI IiiHHIIiiII")


def picture_of(pixels: Raster, facts: ImageFacts | None = None) -> Picture:
    """The picture with these pixels, (height, width, 3); both sides are multiples of TILE.

    `facts` are those of the file that they are from; without one, those of the file that the engine gets.
    """
    height, width, _ = pixels.shape
    digest = hashlib.sha256(struct.pack("<II", height, width) + pixels.tobytes()).digest()
    return Picture(
        pybase64.b64encode(bitmap(pixels)),
        PixelSize(width, height).tokens,
        digest,
        facts or ImageFacts(width, height, "BMP", 24),
    )


def bitmap(pixels: Raster) -> bytes:
    """A BMP of 24 bits a pixel; the width is a multiple of 4, so that no row needs padding."""
    height, width, channels = pixels.shape
    size = height * width * channels
    head = _HEAD.pack(b"BM", _HEAD.size + size, 0, 0, _HEAD.size, 40, width, height, 1, 24, 0, size, 2835, 2835, 0, 0)
    return head + pixels[::-1, :, ::-1].tobytes()
