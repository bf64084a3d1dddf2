"""Token states become vectors as numpy projects them; a projector or states of another model are refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from launcher.multivector import projector
from proxy.dialects.jina import render
from proxy.embedding.multivector import MAX_TOKENS, MultiVectors, TokenEmbedder, check_total
from proxy.embedding.projection import Projection
from proxy.embedding.service import finish
from proxy.errors import BadVector, InputTooLong
from proxy.faults import Invalid, PoisonedInput, invalid
from proxy.scheduling.entries import ANYBODY, Caller
from proxy.types import EmbedResult, Encoding, Ids, Matrix, Picture, Provenance
from proxy.wire import encodings as encode
from tests.support.servers.stack import FAMILY_FILE, family_of
from tests.support.servers.tokenwise import random_projector

FAMILY = family_of(FAMILY_FILE)

FINITE = st.floats(-100, 100, width=32)
MADE = Provenance(digest="d", quantization="q", engine="e", space="s", pooling="mean")


def projection(weight: Matrix, bias: Sequence[float]) -> Projection:
    return Projection(weight, np.array(bias, dtype=np.float32), "digest")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "damaged"), (b"PK\3\4 not a zip", "damaged"), ("half", "damaged"), ("other", "for another")],
)
def test_a_projector_that_is_not_the_familys_is_refused(tmp_path: Path, content: bytes | str, said: str) -> None:
    file = tmp_path / "projector.npz"
    if content == "other":
        projector.save_projector(random_projector(FAMILY.model_copy(update={"dimensions": 64})), file)
    elif content == "half":
        projector.save_projector(random_projector(FAMILY), file)
        file.write_bytes(file.read_bytes()[:-5000])
    else:
        assert isinstance(content, bytes)
        file.write_bytes(content)
    with pytest.raises(Invalid, match=f"{said}.*pull --multivector"):
        MultiVectors(FAMILY, file).of("code")


def test_a_family_without_multi_vectors_says_so() -> None:
    with pytest.raises(Invalid, match="jina-embeddings-v4 has no multi-vectors"):
        MultiVectors(FAMILY.model_copy(update={"multivector": None})).of("code")


@given(arrays(np.float32, (5, 4), elements=FINITE), arrays(np.float32, (3, 4), elements=FINITE), st.booleans())
def test_a_projection_is_numpys_and_each_row_has_length_one_or_none(states: Matrix, weight: Matrix, zero: bool) -> None:
    if zero:
        states[2] = 0
    made = finish(projection(weight, [0, 0, 0]).vectors(states), dimensions=3, normalized=True)
    exact = states.astype(np.float64) @ weight.T.astype(np.float64)
    for row, vector in zip(exact, made, strict=True):
        if (norm := np.linalg.norm(row)) > 1:
            np.testing.assert_allclose(vector, row / norm, atol=1e-3)
        else:
            assert np.isfinite(vector).all()
    assert not zero or made[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("states", [np.zeros((2, 5)), np.zeros(4), np.full((1, 4), np.nan)])
def test_states_that_are_not_the_models_are_refused(states: Matrix) -> None:
    with pytest.raises(BadVector):
        projection(np.ones((3, 4), np.float32), [0, 0, 0]).vectors(states.astype(np.float32))


class OneShort:
    """A backend that loses a token."""

    takes_images = False

    async def picture_states(self, picture: Picture, _: Caller) -> Matrix:
        raise NotImplementedError

    async def states(self, ids: Ids, _: Caller) -> Matrix:
        if 13 in ids:
            raise PoisonedInput(0)
        return np.ones((len(ids) - 1, 4), np.float32)


async def test_a_token_that_got_lost_and_a_request_too_large_are_refused() -> None:
    broken = TokenEmbedder(projection(np.ones((3, 4), np.float32), [0, 0, 0]), OneShort())
    with pytest.raises(BadVector, match="1 token states for 2 tokens"):
        await broken.embed({0: [1, 2]}, ANYBODY)
    with pytest.raises(InputTooLong, match=f"at most {MAX_TOKENS} in one request"):
        check_total(MAX_TOKENS + 1)
    with pytest.raises(PoisonedInput, match=r"input\.7"):
        await broken.embed({7: [13]}, ANYBODY)
    partial = await broken.embed({7: [13]}, Caller(partial=True))
    assert (list(partial.failed), partial.rows) == ([7], {})


@given(
    st.lists(st.integers(0, 4), max_size=5), st.sampled_from([(Encoding.FLOAT,), (Encoding.BASE64, Encoding.BINARY)])
)
def test_groups_are_the_rows_in_order(lengths: list[int], encodings: tuple[Encoding, ...]) -> None:
    vectors = np.arange(sum(lengths) * 8, dtype=np.float32).reshape(-1, 8)
    groups = encode.encode_groups(vectors, lengths, encodings)
    columns = encode.encode_columns(vectors, encodings)
    assert len(groups) == len(lengths)
    for name, column in columns.items():
        flat = [one for group in groups for one in (group[name] if isinstance(group, dict) else group)]
        assert list(map(str, flat)) == list(map(str, column))


def test_an_answer_has_a_row_for_each_input() -> None:
    failed = {1: invalid("input.1", "no")}
    vectors = np.eye(3, dtype=np.float32)
    result = EmbedResult(
        model="m", task="t", prefix="", provenance=MADE, vectors=vectors, tokens=3, failed=failed, lengths=(1, 2)
    )
    data = render(result, (Encoding.UBINARY,))["data"]
    assert isinstance(data, list)
    assert [row.get("embeddings") for row in data] == [[[128]], None, [[64], [32]]]
