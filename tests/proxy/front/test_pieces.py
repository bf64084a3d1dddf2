"""A request is cut into pieces and merged again: nothing is lost, swapped or counted twice."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import InputTooLong, ProxyError
from proxy.faults import PoisonedInput
from proxy.front.pieces import MixedSpaces, PieceRules, cut_pieces, merge, size_of
from proxy.types import EmbedRequest, EmbedResult, Provenance, Refused

RULES = PieceRules(texts=32, bytes=60 * 2**10)
INPUTS = st.lists(st.text(max_size=20) | st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=20)


def result(values: list[float], space: str = "a", failed: dict[int, ProxyError] | None = None) -> EmbedResult:
    made = Provenance(digest="d", quantization="q", engine="e", space=space, pooling="mean")
    rows = np.array(values, dtype=np.float32).reshape(-1, 1)
    return EmbedResult(
        model="m", task="t", prefix="", provenance=made, vectors=rows, tokens=len(values), failed=failed or {}
    )


@settings(max_examples=40)
@given(INPUTS, st.integers(1, 9), st.integers(1, 200))
def test_pieces_are_consecutive_bounded_and_complete(inputs: list[str | list[int]], texts: int, size: int) -> None:
    pieces = cut_pieces(EmbedRequest(inputs=inputs), PieceRules(texts=texts, bytes=size))
    assert [one for piece in pieces for one in piece.inputs] == inputs
    assert [piece.first for piece in pieces] == [
        sum(len(before.inputs) for before in pieces[:at]) for at in range(len(pieces))
    ]
    for piece in pieces:
        own = inputs[piece.first : piece.first + len(piece.inputs)]
        assert len(own) == 1 or (len(own) <= texts and sum(map(size_of, own)) <= size)


def test_2048_short_texts_are_64_pieces_of_32() -> None:
    pieces = cut_pieces(EmbedRequest(inputs=["text"] * 2048), RULES)
    assert {len(piece.inputs) for piece in pieces} == {32}
    assert len(pieces) == 64


@pytest.mark.parametrize("kind", ["late", "multivector"])
def test_a_document_and_multi_vectors_are_one_piece(kind: str) -> None:
    request = EmbedRequest(inputs=["text" * 1000] * 100, late=kind == "late", multivector=kind == "multivector")
    (piece,) = cut_pieces(request, RULES)
    assert len(piece.inputs) == 100


def test_a_refused_input_is_in_its_piece_as_the_client_sent_it() -> None:
    sent = {"image": "x"}
    request = EmbedRequest(
        inputs=["a", "", "b"], refused={1: Refused("is an image", "unsupported", sent)}, partial=True
    )
    (piece,) = cut_pieces(request, RULES)
    assert list(piece.inputs) == ["a", sent, "b"]


@settings(max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_merged_rows_are_in_order_whatever_came_first(sizes: list[int], random: Random) -> None:
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    results = [(start, result([*range(start, start + size)])) for start, size in zip(starts, sizes, strict=True)]
    random.shuffle(results)
    merged = merge(results, {})
    assert merged.vectors[:, 0].tolist() == list(range(sum(sizes)))
    assert merged.tokens == sum(sizes)


def test_errors_of_inputs_get_the_index_of_the_whole_request() -> None:
    long = InputTooLong("input 1 has 9000 tokens; at most 8192 tokens are served", param="input")
    merged = merge([(0, result([1, 2])), (2, result([3], failed={1: long}))], {4: PoisonedInput(4)})
    assert merged.failed[3].message == "input 3 has 9000 tokens; at most 8192 tokens are served"
    assert merged.failed[4].message.startswith("input.4: ")
    assert merged.inputs == 3


def test_pieces_of_two_vector_spaces_are_not_merged() -> None:
    with pytest.raises(MixedSpaces):
        merge([(0, result([1], "a")), (1, result([2], "b"))], {})
