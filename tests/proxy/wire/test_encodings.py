"""Slice, then normalise, then encode, to the bit."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from proxy.types import Encoding, Matrix
from proxy.wire.encodings import encode, finish

RAW = np.array([[3.0, 4.0, 12.0], [0.0, -5.0, 0.0]], dtype=np.float32)


def test_a_slice_is_normalised_after_slicing() -> None:
    assert finish(RAW, dimensions=2, normalized=True).tolist() == [[np.float32(0.6), np.float32(0.8)], [0.0, -1.0]]


def test_not_normalised_is_the_raw_vector_sliced() -> None:
    assert finish(RAW, dimensions=2, normalized=False).tolist() == [[3.0, 4.0], [0.0, -5.0]]


def test_a_zero_vector_stays_zero() -> None:
    assert finish(np.zeros((1, 4), np.float32), dimensions=4, normalized=True).tolist() == [[0, 0, 0, 0]]


@given(arrays(np.float32, (3, 8), elements=st.floats(-1e3, 1e3, width=32)), st.integers(1, 8))
def test_a_normalised_vector_has_length_one_and_its_direction(raw: Matrix, dimensions: int) -> None:
    finished = finish(raw, dimensions=dimensions, normalized=True)
    for before, after in zip(raw[:, :dimensions].astype(np.float64), finished, strict=True):
        if (norm := np.linalg.norm(before)) > 1e-3:
            assert after == pytest.approx(before / norm, abs=1e-6)


def test_ubinary_packs_positive_bits_most_significant_first() -> None:
    vectors = np.array([[1, -1, 0, 2, -3, 4, 5, -6, 7, -1]], dtype=np.float32)
    assert encode(vectors, (Encoding.UBINARY,)) == [[0b10010110, 0b10000000]]


def test_binary_is_the_byte_minus_128_and_no_int8_view() -> None:
    vectors = np.array([[1] * 8 + [-1] * 8 + [1] + [-1] * 7], dtype=np.float32)
    assert encode(vectors, (Encoding.BINARY,)) == [[127, -128, 0]]


def test_base64_is_little_endian_float32() -> None:
    (text,) = encode(RAW[:1], (Encoding.BASE64,))
    assert isinstance(text, str)
    assert np.frombuffer(base64.b64decode(text), dtype="<f4").tolist() == [3.0, 4.0, 12.0]


def test_several_encodings_give_an_object_per_row() -> None:
    rows = encode(RAW, (Encoding.UBINARY, Encoding.BINARY))
    assert rows == [{"ubinary": [224], "binary": [96]}, {"ubinary": [0], "binary": [-128]}]
