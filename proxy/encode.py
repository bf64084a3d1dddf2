"""Pure numpy: raw vectors → the vectors and the encodings a caller asked for."""

import base64
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from proxy.embedding import Encoding, Matrix

Embedding = NDArray[np.float32] | list[int] | str


def finish(raw: Matrix, *, dimensions: int, normalized: bool) -> Matrix:
    """The first `dimensions` of each row, shape (n, dimensions), L2-normalised again if `normalized`.

    A vector of zeros has no direction and stays as it is.
    """
    sliced = np.ascontiguousarray(raw[:, :dimensions])
    if not normalized:
        return sliced
    norms = np.sqrt(np.einsum("ij,ij->i", sliced, sliced, dtype=np.float64))
    return (sliced / np.where(norms == 0, 1, norms)[:, None]).astype(np.float32)


def encode(vectors: Matrix, encodings: tuple[Encoding, ...]) -> list[Embedding] | list[dict[str, Embedding]]:
    """One entry per row: the embedding itself for one encoding, a dict by encoding's name for several."""
    if len(encodings) == 1:
        return _ENCODERS[encodings[0]](vectors)
    columns = {encoding.value: _ENCODERS[encoding](vectors) for encoding in encodings}
    return [{name: column[row] for name, column in columns.items()} for row in range(len(vectors))]


def pack_bits(vectors: Matrix) -> NDArray[np.uint8]:
    """One bit per dimension, set where the value is positive, most significant bit first; shape (n, ceil(d / 8))."""
    return np.packbits(vectors > 0, axis=1)


def _floats(vectors: Matrix) -> list[Embedding]:
    return list(vectors)


def _base64(vectors: Matrix) -> list[Embedding]:
    return [base64.b64encode(row).decode("ascii") for row in vectors.astype("<f4", copy=False)]


def _ubinary(vectors: Matrix) -> list[Embedding]:
    return list(pack_bits(vectors).tolist())


def _binary(vectors: Matrix) -> list[Embedding]:
    # The hosted API subtracts 128; it does not reinterpret the byte as int8.
    return list((pack_bits(vectors).astype(np.int16) - 128).tolist())


_ENCODERS: dict[Encoding, Callable[[Matrix], list[Embedding]]] = {
    Encoding.FLOAT: _floats,
    Encoding.BASE64: _base64,
    Encoding.BINARY: _binary,
    Encoding.UBINARY: _ubinary,
}
