"""The type of response that an Accept header prefers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.negotiation import MAX_ACCEPT, preferred

JSON, RAW, NPY = "application/json", "application/octet-stream", "application/x-npy"
OFFERS = (JSON, RAW, NPY)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        (RAW, RAW),
        ("Application/Octet-Stream ; Q=0.3", RAW),
        (f"{RAW}, {JSON};q=0.5", RAW),
        (f"{JSON};q=0.1, {NPY};q=0.2, {RAW};q=0.15", NPY),
        (f"{RAW}, */*;q=0.1", RAW),
        (f"{RAW}, */*", RAW),
        (f"{JSON};q=0, */*", RAW),
        # behind JSON, or with less weight
        (f"{JSON}, {RAW}", JSON),
        (f"*/*, {RAW}", JSON),
        (f"{JSON};q=1.0, {RAW};q=0.1", JSON),
        (f"{RAW};q=0.5, */*", JSON),
        (f"{RAW};q=0.5, application/*;q=0.6, */*;q=0.1", JSON),
        # not acceptable at all: JSON, never a 406
        (f"{RAW};q=0, {JSON}", JSON),
        (f"{RAW};q=0", JSON),
        (f"{JSON};q=0", JSON),
        ("image/png", JSON),
        # parameters that are not the weight change nothing; commas in quotes do not separate
        (f"{RAW};profile=x;q=1;ext=1, {JSON};charset=utf-8;q=0.9", RAW),
        (f'text/plain;note="{RAW}, ", {NPY}', NPY),
        # malformed
        (f"{RAW};q=much, {NPY};q=0.1", NPY),
        (f"{RAW};q=nan", JSON),
        (f"{RAW};q=", JSON),
        (f"{RAW};q=-1", JSON),
        (f"{RAW};q=1.5, {NPY}", RAW),
        (",,;q=1;;=,/", JSON),
        ('"', JSON),
    ],
)
def test_the_greatest_weight_wins_and_then_the_order(accept: str, wanted: str) -> None:
    assert preferred(accept, OFFERS) == wanted


WORDS = st.sampled_from([*OFFERS, "*/*", "application/*", ";", "q", "=", ",", "0", ".5", "1", '"', " ", "\\", "é"])


@given(st.lists(WORDS, max_size=20).map("".join) | st.text(max_size=40))
def test_no_header_is_an_error(accept: str) -> None:
    assert preferred(accept, OFFERS) in OFFERS


def test_only_the_beginning_of_a_long_header_is_read() -> None:
    padding = "a/b," * (MAX_ACCEPT // 4)
    assert preferred(RAW + "," + padding, OFFERS) == RAW
    assert preferred(padding + RAW, OFFERS) == JSON
