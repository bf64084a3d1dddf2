"""How similar two models are: measures and verdict, on vectors whose similarity is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.arrays import F32
from launcher.measure.similarity import (
    MAX_QUERIES,
    Thresholds,
    Vectors,
    compared,
    drift,
    faults,
    rank_overlap,
    spearman,
)

WANTED = Thresholds(min_cosine=0.98, min_worst=0.9, min_overlap=0.8)


def unit(random: np.random.Generator, rows: int, turned: float = 0.0, of: F32 | None = None) -> F32:
    """Random unit vectors, or those `of`, each with that much of a random one added."""
    noise = random.standard_normal((rows, 64), dtype=np.float32)
    found = noise if of is None else of + np.float32(turned / 8) * noise
    lengths: F32 = np.linalg.norm(found, axis=1, keepdims=True)
    unit_rows: F32 = np.asarray(found / lengths, dtype=np.float32)
    return unit_rows


@given(st.permutations(range(12)))
def test_rank_correlation_is_one_with_itself_minus_one_with_its_reverse_and_symmetric(order: list[int]) -> None:
    one, other = np.array(order), np.arange(12)
    assert spearman(one, one) == 1
    assert spearman(one, one[::-1]) == pytest.approx(-1)
    assert spearman(one, other) == pytest.approx(spearman(other, one))
    assert -1 <= spearman(one, other) <= 1


def test_one_wrong_text_among_many_is_found_though_the_mean_hides_it() -> None:
    random = np.random.default_rng(0)
    a = Vectors(queries=unit(random, 20), documents=unit(random, 80))
    documents = a.documents.copy()
    documents[7] = unit(random, 1)
    found = compared(a, Vectors(queries=a.queries, documents=documents), paired=False)
    assert found.drift.mean > WANTED.min_cosine
    assert found.drift.worst == 27
    (fault,) = faults(found, WANTED)
    assert fault.startswith("worst cosine")


def test_a_rotated_space_ranks_the_same_by_itself_and_nothing_alike_when_mixed() -> None:
    """Why B's queries are also tried on A's documents: each model alone may be as good as the other."""
    random = np.random.default_rng(0)
    a = Vectors(queries=unit(random, 20), documents=unit(random, 80))
    turn, _ = np.linalg.qr(random.standard_normal((64, 64)))
    b = Vectors(queries=(a.queries @ turn).astype(np.float32), documents=(a.documents @ turn).astype(np.float32))
    found = compared(a, b, paired=False)
    assert found.own.spearman_min > 0.999
    assert found.own.top > 0.99
    assert found.mixed.top < 0.5


@given(st.integers(5, 40), st.floats(0, 0.5), st.booleans(), st.integers(0, 2**32 - 1))
def test_measures_stay_in_their_bounds_and_a_paired_query_never_finds_itself(
    count: int, turned: float, paired: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    rows = unit(random, count)
    a, b = Vectors(queries=rows, documents=rows), Vectors(queries=rows, documents=unit(random, count, turned, rows))
    found = rank_overlap(a, b, paired=paired)
    assert 1 <= found.k <= 10
    assert -1 <= found.spearman_min <= found.spearman_mean + 1e-9 <= 1 + 2e-9  # a mean rounds
    assert 0 <= found.top <= 1 + 1e-9
    if not paired:
        assert rank_overlap(a, a, paired=False).top1 == 1


def test_only_so_many_queries_are_ranked_and_all_texts_drift() -> None:
    random = np.random.default_rng(0)
    rows = unit(random, MAX_QUERIES + 500)
    both = Vectors(queries=rows, documents=rows)
    assert rank_overlap(both, both, paired=True).queries == MAX_QUERIES
    moved = rows.copy()
    moved[1] = -moved[1]
    assert drift(rows, moved).worst == 1
    assert drift(rows, moved).min == -1
