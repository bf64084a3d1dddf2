"""Pure numpy: vectors → the encodings that a client requested."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import numpy as np
import pybase64
from numpy.typing import NDArray

from proxy.types import Encoding, Matrix

Embedding = NDArray[np.float32] | list[int] | str
Encoders = Mapping[Encoding, Callable[[Matrix], list[Embedding]]]


def encode(
    vectors: Matrix, encodings: tuple[Encoding, ...], encoders: Encoders | None = None
) -> list[Embedding] | list[dict[str, Embedding]]:
    """One entry per row: the embedding itself for one encoding, a dict by name for several."""
    columns = encode_columns(vectors, encodings, encoders)
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [{name: column[row] for name, column in columns.items()} for row in range(len(vectors))]


def encode_groups(
    vectors: Matrix, lengths: Sequence[int], encodings: tuple[Encoding, ...], encoders: Encoders | None = None
) -> list[list[Embedding]] | list[dict[str, list[Embedding]]]:
    """As `encode`, but `lengths` rows make one entry: a list of embeddings, or a dict of such lists."""
    spans = [slice(end - length, end) for length, end in zip(lengths, accumulate(lengths), strict=True)]
    columns = encode_columns(vectors, encodings, encoders)
    if len(columns) == 1:
        (column,) = columns.values()
        return [column[span] for span in spans]
    return [{name: column[span] for name, column in columns.items()} for span in spans]


def encode_columns(
    vectors: Matrix, encodings: tuple[Encoding, ...], encoders: Encoders | None = None
) -> dict[str, list[Embedding]]:
    """One column per encoding, by name. Bits are lists of ints unless `encoders` says otherwise."""
    table = encoders or BITS_AS_LISTS
    return {encoding.value: table[encoding](vectors) for encoding in encodings}


def pack_bits(vectors: Matrix) -> NDArray[np.uint8]:
    """One bit per dimension, set where the value is positive, most significant bit first; shape (n, ceil(d / 8))."""
    return np.packbits(vectors > 0, axis=1)


def _floats(vectors: Matrix) -> list[Embedding]:
    return list(vectors)


def _base64(vectors: Matrix) -> list[Embedding]:
    return [pybase64.b64encode_as_string(row) for row in vectors.astype("<f4", copy=False)]


def _ubinary(vectors: Matrix) -> list[Embedding]:
    return list(pack_bits(vectors).tolist())


def _binary(vectors: Matrix) -> list[Embedding]:
    return list(_offset_bits(vectors).tolist())


def _offset_bits(vectors: Matrix) -> NDArray[np.int8]:
    # The hosted API subtracts 128; it does not reinterpret the byte as int8.
    return (pack_bits(vectors).astype(np.int16) - 128).astype(np.int8)


def _base64_bits(vectors: Matrix) -> list[Embedding]:
    return [pybase64.b64encode_as_string(row) for row in pack_bits(vectors)]


def _base64_offset_bits(vectors: Matrix) -> list[Embedding]:
    return [pybase64.b64encode_as_string(row) for row in _offset_bits(vectors)]


_FLOATS: Encoders = {Encoding.FLOAT: _floats, Encoding.BASE64: _base64}
BITS_AS_LISTS: Encoders = {**_FLOATS, Encoding.BINARY: _binary, Encoding.UBINARY: _ubinary}
# RunPod's worker writes the same packed bytes for both names, Voyage an array of the requested type.
BITS_PACKED_BASE64: Encoders = {**_FLOATS, Encoding.BINARY: _base64_bits, Encoding.UBINARY: _base64_bits}
BITS_TYPED_BASE64: Encoders = {**_FLOATS, Encoding.BINARY: _base64_offset_bits, Encoding.UBINARY: _base64_bits}
