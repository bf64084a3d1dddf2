"""The image that every backend is verified on, and the file in which images are sent."""

import base64
import hashlib
import struct

import numpy as np

from launcher.images.prompt import GOLDEN_SIZE, TOKEN_SIDE, bmp, golden_pixels, image_input, media_marker


def test_the_golden_image_is_the_same_on_every_machine() -> None:
    pixels = golden_pixels()
    assert pixels.shape == (*GOLDEN_SIZE, 3)
    assert all(side % TOKEN_SIDE == 0 for side in GOLDEN_SIZE)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "6e34c15082e4ea22"


def test_a_bmp_has_rows_from_below_in_blue_green_red_padded_to_four_bytes() -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    data = bmp(pixels)
    size, offset, width, height, bits = (*struct.unpack_from("<I4xI4xii2xH", data, 2),)
    assert (size, offset, width, height, bits) == (len(data), 54, 3, 2, 24)
    assert list(data[54:66]) == [11, 10, 9, 14, 13, 12, 17, 16, 15, 0, 0, 0]
    assert list(data[66:]) == [2, 1, 0, 5, 4, 3, 8, 7, 6, 0, 0, 0]


def test_an_image_is_the_marker_that_nobody_can_guess_and_a_file() -> None:
    given = image_input(golden_pixels(), media_marker())
    assert given["prompt_string"] == f"<|im_start|>user\n{media_marker()}"
    assert given["multimodal_data"] == [base64.b64encode(bmp(golden_pixels())).decode()]
    assert len(media_marker()) > 40
