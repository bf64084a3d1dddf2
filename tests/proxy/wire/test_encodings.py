"""How vectors are encoded, to the bit."""

import base64

import numpy as np

from proxy.types import Encoding
from proxy.wire.encodings import encode

RAW = np.array([[3.0, 4.0, 12.0], [0.0, -5.0, 0.0]], dtype=np.float32)


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
