"""The size an image gets before the model sees it, as Qwen2-VL's `smart_resize`. Pure."""

import math
from typing import NamedTuple

from proxy.contract.images import IMAGE_TOKENS
from proxy.faults import BadImage

TILE = 28  # pixels of a side; a tile is one token
MIN_PIXELS, MAX_PIXELS = 4 * TILE**2, IMAGE_TOKENS * TILE**2
MAX_ASPECT = 200


class PixelSize(NamedTuple):
    """The sides of an image, in pixels."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def tokens(self) -> int:
        """How many tokens an image of this size is for the model; both sides are multiples of TILE."""
        return self.pixels // TILE**2


def target_size(given: PixelSize) -> PixelSize:
    """The size closest to the given one, with sides that are multiples of TILE and from 4 to 768 tokens.

    Raises BadImage for an image without pixels, or more than MAX_ASPECT times as long as wide, as the original does.
    """
    if min(given) < 1:
        raise BadImage("has no pixels")
    if max(given) / min(given) > MAX_ASPECT:
        raise BadImage(f"is {given.width} x {given.height} pixels: one side is more than {MAX_ASPECT} times the other")
    size = PixelSize(*(round(side / TILE) * TILE for side in given))  # half to even, as the original
    if size.pixels > MAX_PIXELS:
        shrink = math.sqrt(given.pixels / MAX_PIXELS)
        return PixelSize(*(max(TILE, math.floor(side / shrink / TILE) * TILE) for side in given))
    if size.pixels < MIN_PIXELS:
        grow = math.sqrt(MIN_PIXELS / given.pixels)
        return PixelSize(*(math.ceil(side * grow / TILE) * TILE for side in given))
    return size
