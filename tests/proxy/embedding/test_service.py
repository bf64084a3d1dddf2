"""A vector is sliced, then normalised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from proxy.embedding.service import finish
from proxy.types import Matrix

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
