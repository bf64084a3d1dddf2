"""The request of an image for llama-server, and the image that every backend with images is verified on."""

import base64
import secrets
import struct
from functools import cache

import numpy as np
from numpy.typing import NDArray

RgbPixels = NDArray[np.uint8]  # (height, width, RGB)

TOKEN_SIDE = 28  # pixels of a token's side
BEFORE = "<|im_start|>user\n"  # the original's prompt as far as its vector depends on it; llama-server adds the rest
GOLDEN_SIZE = (TOKEN_SIDE, 5 * TOKEN_SIDE)  # 5 tokens in two of the encoder's windows, of 112 pixels each


@cache
def media_marker() -> str:
    """What stands for an image in a prompt: nobody can guess it, and it stays the same until this process ends.

    So a reload restarts no llama-server because of it.
    """
    return f"<__media_{secrets.token_hex(16)}__>"


def image_input(pixels: RgbPixels, marker: str) -> dict[str, object]:
    """An item of llama-server's `input`. Both sides must be multiples of TOKEN_SIDE, or it scales the image."""
    return {"prompt_string": BEFORE + marker, "multimodal_data": [base64.b64encode(bmp(pixels)).decode()]}


def bmp(pixels: RgbPixels) -> bytes:
    """The pixels as a 24-bit BMP file: without loss, and llama-server reads it fast."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels[::-1, :, ::-1].reshape(height, 3 * width), ((0, 0), (0, -3 * width % 4)))
    data = padded.tobytes()
    head = struct.pack("<2sIHHI", b"BM", 54 + len(data), 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(data), 2835, 2835, 0, 0) + data


def golden_pixels(height: int = GOLDEN_SIZE[0], width: int = GOLDEN_SIZE[1]) -> RgbPixels:
    """A made-up image with slopes, edges and fine structure, the same on every machine: integers alone make it."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    slopes = (5 * x + 3 * y, 7 * y - 2 * x, x * y // 16)
    checks = ((x // 14 + y // 14) % 2, (x // 4) % 2, (y // 3) % 2)
    channels = [(slope + 90 * check + (x * x + 3 * y) % 17) % 256 for slope, check in zip(slopes, checks, strict=True)]
    return np.stack(channels, axis=-1).astype(np.uint8)
