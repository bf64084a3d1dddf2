"""Compressed bodies: in any chunks, inflated in slices, and complete."""

import gzip
import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.edge.inflate import MAX_MEMBERS, SLICE_BYTES, BadData, Inflater

WAYS: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", lambda data: zlib.compress(data, wbits=-15)),
}


def inflated(encoding: str, *chunks: bytes) -> bytes:
    inflater = Inflater(encoding)
    whole = b"".join(part for chunk in chunks for part in inflater.inflate(chunk))
    inflater.check_end()
    return whole


@pytest.mark.parametrize("way", WAYS)
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_a_body_is_the_same_in_any_chunks(way: str, data: bytes, cuts: list[int]) -> None:
    encoding, compress = WAYS[way]
    sent = compress(data)
    at = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    assert inflated(encoding, *(sent[start:end] for start, end in pairwise(at))) == data


def test_gzip_may_have_several_members() -> None:
    assert inflated("gzip", gzip.compress(b"one ") + gzip.compress(b""), gzip.compress(b"two")) == b"one two"


def test_a_bomb_is_inflated_lazily_in_slices() -> None:
    parts = Inflater("gzip").inflate(gzip.compress(bytes(100 * SLICE_BYTES)))
    assert [len(next(parts)) for _ in range(3)] == [SLICE_BYTES] * 3


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", b""),
        ("gzip", b'{"input": "a"}'),
        ("gzip", gzip.compress(b"a" * 99, mtime=0)[:-1]),
        ("gzip", gzip.compress(b"a", mtime=0) + b"and more"),
        ("gzip", gzip.compress(b"", mtime=0) * (MAX_MEMBERS + 1)),
        ("deflate", zlib.compress(b"a")[:-1]),
        ("deflate", zlib.compress(b"a") + b"x"),
        ("deflate", b"\xff\xff\xff"),
    ],
)
def test_damaged_data_is_an_error(encoding: str, data: bytes) -> None:
    with pytest.raises(BadData):
        inflated(encoding, data)
