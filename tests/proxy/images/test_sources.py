"""A file as base64 is bounded before it is decoded, however it is written."""

import tracemalloc

import pytest

from proxy.faults import BadImage
from proxy.images.sources import file_of
from proxy.types import ImageSource


def test_a_long_text_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BadImage, match="more than 300 bytes"):
        file_of(ImageSource("?" * 409), 300)  # what is decoded first would be found invalid
    assert len(file_of(ImageSource("A" * 398 + "=="), 298)) == 298


def test_base64_full_of_spaces_takes_no_more_memory_than_any() -> None:
    written = "A A\n" * 100_000
    tracemalloc.start()
    try:
        assert len(file_of(ImageSource(written), 10**6)) == 150_000
        assert tracemalloc.get_traced_memory()[1] < 3 * len(written)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "head", ["", " ", "data:image/png;base64,", " DATA:;base64,", "\n data:image/png;name=a;base64,"]
)
def test_spaces_around_a_file_are_left_out(head: str) -> None:
    assert file_of(ImageSource(f"{head} QUJD\n"), 9) == b"ABC"
