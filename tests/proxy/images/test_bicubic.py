"""The resize gives torch's pixels to the last one: its own stored ones, and those of a plain loop over its rules."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.faults import BadImage
from proxy.images.bicubic import Raster, resized_columns, resized_rows
from proxy.images.sizes import MAX_PIXELS, MIN_PIXELS, TILE, PixelSize, target_size


def resized(pixels: Raster, height: int, width: int) -> Raster:
    return resized_columns(resized_rows(pixels, width), height)


def noise(seed: int, height: int, width: int) -> Raster:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# By torch 2.13: `interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)` of uint8.
TORCH = [
    (0, (37, 53), (56, 84), "646364f9a4df4718a9debd2b654aa128"),
    (1, (300, 200), (56, 28), "1fbe4fe1b137029d32ab7bb68e750f89"),
    (2, (1, 3000), (28, 560), "fa779b852cdd9a6fd081da03fdc873e6"),
    (3, (500, 7), (224, 28), "b39ba9e975c96eaed0e6845929bedfca"),
    (5, (2, 2), (56, 56), "3d3de03d052dcafe598a34c36b8449aa"),
    (6, (333, 517), (336, 532), "82c069b5ce21a572171d8c2e1eb72d32"),
    (7, (28, 400), (28, 84), "cac08cdfd0716a4650653cf8cfc6b7d2"),
]


@pytest.mark.parametrize(("seed", "size", "target", "digest"), TORCH)
def test_the_pixels_are_torchs(seed: int, size: tuple[int, int], target: tuple[int, int], digest: str) -> None:
    made = np.ascontiguousarray(resized(noise(seed, *size), *target))
    assert hashlib.sha256(made.tobytes()).hexdigest()[:32] == digest


def test_overshoot_is_bounded_as_torchs() -> None:
    black_and_white = (noise(4, 128, 131) > 127).astype(np.uint8) * 255
    made = np.ascontiguousarray(resized(black_and_white, 28, 112))
    assert hashlib.sha256(made.tobytes()).hexdigest()[:32] == "b7f79ebf6726230eaee7b8dacc4b5008"


def by_loop(line: list[int], size: int) -> list[int]:
    """One channel of one row, by ATen's rules, a pixel after another in whole numbers."""
    scale = len(line) / size
    stretch = max(scale, 1.0)
    rows = []
    for output in range(size):
        center = scale * (output + 0.5)
        first, end = max(int(center - 2 * stretch + 0.5), 0), min(int(center + 2 * stretch + 0.5), len(line))
        weights = [keys((at - center + 0.5) / stretch) for at in range(first, end)]
        rows.append((first, [weight / sum(weights) for weight in weights]))
    largest, bits = max(max(weights) for _, weights in rows), 0
    while bits < 22 and int(0.5 + largest * 2 ** (bits + 1)) < 2**15:
        bits += 1
    made = []
    for first, weights in rows:
        whole = [int(weight * 2**bits + (0.5 if weight >= 0 else -0.5)) for weight in weights]
        total = 2 ** (bits - 1) + sum(weight * line[first + at] for at, weight in enumerate(whole))
        made.append(max(0, min(255, total >> bits)))
    return made


def keys(x: float) -> float:
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=200), st.integers(1, 150))
def test_a_plain_loop_over_the_rules_gives_the_same_pixels(line: list[int], size: int) -> None:
    row = np.array(line, dtype=np.uint8)[None, :, None]
    assert resized_rows(row, size)[0, :, 0].tolist() == by_loop(line, size)
    assert resized_columns(row.transpose(1, 0, 2), size)[:, 0, 0].tolist() == by_loop(line, size)


def test_a_large_image_is_resized_in_strips_without_seams() -> None:
    pixels = noise(9, 700, 40)
    columns = np.stack([resized_columns(pixels[:, at : at + 1], 56)[:, 0] for at in range(40)], axis=1)
    assert np.array_equal(resized_columns(pixels, 56), columns)
    assert np.array_equal(resized_rows(pixels, 28)[600], resized_rows(pixels[600:601], 28)[0])


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_target_has_whole_tiles_and_4_to_768_tokens(width: int, height: int) -> None:
    if max(width, height) / min(width, height) > 200:
        with pytest.raises(BadImage, match="200 times"):
            target_size(PixelSize(width, height))
        return
    size = target_size(PixelSize(width, height))
    assert not any(side % TILE for side in size)
    assert MIN_PIXELS <= size.pixels <= MAX_PIXELS
    assert 4 <= size.tokens <= 768


@pytest.mark.parametrize(
    ("given_size", "target"),
    [
        ((640, 480), (644, 476)),
        ((42, 70), (56, 56)),  # half a tile goes to the even number: 1.5 → 2, 2.5 → 2
        ((1, 1), (56, 56)),
        ((4000, 3000), (896, 672)),
        ((200, 1), (812, 28)),
        ((700, 700), (700, 700)),
    ],
)
def test_targets_are_those_of_the_original(given_size: tuple[int, int], target: tuple[int, int]) -> None:
    assert target_size(PixelSize(*given_size)) == target


def test_the_rule_is_the_originals_formula() -> None:
    width, height = 1234, 777
    shrink = math.sqrt(width * height / MAX_PIXELS)
    assert target_size(PixelSize(width, height)) == (
        math.floor(width / shrink / 28) * 28,
        math.floor(height / shrink / 28) * 28,
    )
