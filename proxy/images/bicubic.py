"""Resizes pixels exactly as torch's antialiased bicubic interpolation of uint8 does, which the original's processor
uses. Pure.

Pillow's differs by up to 18 levels, and the model turns that into another vector. As in ATen's
UpSampleKernel.cpp: weights in float64, then in whole numbers of one precision for each axis; width first, then height;
rounded and bounded to a byte after each.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Raster = NDArray[np.uint8]

_A = -0.5  # of the cubic: Keys', and Pillow's
_MAX_PRECISION = 22  # bits of a weight's fraction
_MAX_WEIGHT = 2**15  # a weight fits 16 bits
_BLOCK = 24  # outputs that are computed at a time
_FLOATS = 2**18  # inputs that are computed at a time: 2 MB; for more, BLAS keeps every core busy waiting (measured)


class _Weights(NamedTuple):
    """Output i is the sum of `taps[i]` times the inputs from `starts[i]` on, divided by 2 ** `precision`."""

    starts: NDArray[np.int64]
    taps: NDArray[np.float64]  # whole numbers
    precision: int


def resized_rows(rows: Raster, width: int) -> Raster:
    """The image (height, width, channels) with another width."""
    return resized_columns(rows.transpose(1, 0, 2), width).transpose(1, 0, 2)


def resized_columns(rows: Raster, height: int) -> Raster:
    """The image (height, width, channels) with another height."""
    if rows.shape[0] == height:
        return rows
    weights = _weights(rows.shape[0], height)
    resized = np.empty((height, *rows.shape[1:]), dtype=np.uint8)
    step = max(1, _FLOATS // (rows.shape[0] * rows.shape[2]))
    for start in range(0, rows.shape[1], step):
        strip = slice(start, start + step)
        _resize(rows[:, strip], weights, resized[:, strip])
    return resized


def _resize(lines: Raster, weights: _Weights, resized: Raster) -> None:
    """Write the resized lines (n, columns, channels). Sums of whole numbers below 2 ** 53 are exact."""
    half, scale = 2.0 ** (weights.precision - 1), 2.0**-weights.precision
    inputs = lines.astype(np.float64, order="C").reshape(len(lines), -1)
    for start in range(0, len(resized), _BLOCK):
        outputs = slice(start, start + _BLOCK)
        starts, taps = weights.starts[outputs], weights.taps[outputs]
        first, last = int(starts[0]), min(int(starts[-1]) + taps.shape[1], len(lines))
        band = np.zeros((len(starts), int(starts[-1]) - first + taps.shape[1]))
        for row, (at, tap) in enumerate(zip(starts - first, taps, strict=True)):
            band[row, at : at + len(tap)] = tap
        sums = band[:, : last - first] @ inputs[first:last]
        sums += half
        sums *= scale
        np.clip(np.floor(sums, out=sums), 0, 255, out=sums)
        resized[outputs] = sums.reshape(len(starts), *resized.shape[1:])


def _weights(size: int, resized: int) -> _Weights:
    scale = size / resized
    stretch = max(scale, 1.0)
    support = 2 * stretch
    starts, ends, exact = [], [], []
    for output in range(resized):
        center = scale * (output + 0.5)
        start, end = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), size)
        weights = [_cubic((at - center + 0.5) / stretch) for at in range(start, end)]
        total = math.fsum(weights)
        starts.append(start)
        ends.append(end)
        exact.append([weight / total for weight in weights])
    precision = _precision(max(map(max, exact)))
    taps = np.zeros((resized, max(map(len, exact))))
    for row, weights in enumerate(exact):
        taps[row, : len(weights)] = [int(weight * 2**precision + math.copysign(0.5, weight)) for weight in weights]
    return _Weights(np.array(starts), taps, precision)


def _precision(largest: float) -> int:
    """The most bits for which the largest weight still fits."""
    for precision in range(_MAX_PRECISION):
        if int(0.5 + largest * 2 ** (precision + 1)) >= _MAX_WEIGHT:
            return precision
    return _MAX_PRECISION


def _cubic(distance: float) -> float:
    x = abs(distance)
    if x < 1:
        return ((_A + 2) * x - (_A + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * _A if x < 2 else 0.0
