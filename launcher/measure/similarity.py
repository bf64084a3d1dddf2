"""How similar two models' vectors of the same texts are. Pure numpy; vectors are rows of unit length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from launcher.arrays import F32

TOP = 10
MAX_QUERIES = 1000  # more add no information and take long: 1000 rankings of 100,000 documents take half a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Cosines between A's and B's vector of each text. `worst` is the number of the text with the least one."""

    mean: float
    median: float
    min: float
    worst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOverlap:
    """How similar two rankings of the documents are, over all queries.

    `spearman` is the rank correlation over all documents; `top1` the share of queries with the same first document;
    `top` the mean share of the first `k` documents that both have there.
    """

    queries: int
    k: int
    spearman_mean: float
    spearman_min: float
    top1: float
    top: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """One model's vectors: (queries, dimensions) and (documents, dimensions), rows of unit length."""

    queries: F32
    documents: F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The minimum for a "go"; see `launcher.measure.compare_cli` for the reasons."""

    min_cosine: float
    min_worst: float
    min_overlap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`own`: each model ranks its own documents. `mixed`: B's queries rank A's documents, as in a kept index."""

    drift: Drift
    own: RankOverlap
    mixed: RankOverlap


def compared(a: Vectors, b: Vectors, *, paired: bool) -> Comparison:
    """The whole comparison; texts are numbered queries first. `paired`: document i is left out of query i's ranking."""
    return Comparison(
        drift=drift(np.vstack((a.queries, a.documents)), np.vstack((b.queries, b.documents))),
        own=rank_overlap(a, b, paired=paired),
        mixed=rank_overlap(a, Vectors(queries=b.queries, documents=a.documents), paired=paired),
    )


def drift(a: F32, b: F32) -> Drift:
    """The drift from each row of `a` to the same row of `b`."""
    cosines = np.clip(np.einsum("ij,ij->i", a.astype(np.float64), b.astype(np.float64)), -1, 1)
    return Drift(
        mean=float(cosines.mean()),
        median=float(np.median(cosines)),
        min=float(cosines.min()),
        worst=int(cosines.argmin()),
    )


def rank_overlap(a: Vectors, b: Vectors, *, paired: bool) -> RankOverlap:
    """Compare A's and B's order of the documents, for at most MAX_QUERIES evenly chosen queries."""
    count = min(MAX_QUERIES, len(a.queries))
    chosen = np.linspace(0, len(a.queries) - 1, count).astype(int)
    k = max(1, min(TOP, (len(a.documents) - paired) // 2))
    pairs = [(_order(a, query, paired=paired), _order(b, query, paired=paired)) for query in chosen]
    correlations = [spearman(one, other) for one, other in pairs]
    return RankOverlap(
        queries=count,
        k=k,
        spearman_mean=float(np.mean(correlations)),
        spearman_min=float(np.min(correlations)),
        top1=float(np.mean([one[0] == other[0] for one, other in pairs])),
        top=float(np.mean([len(np.intersect1d(one[:k], other[:k])) / k for one, other in pairs])),
    )


def spearman(one: NDArray[np.intp], other: NDArray[np.intp]) -> float:
    """The rank correlation of two orders of the same n things: 1 the same, -1 the reverse; n must be 2 or more."""
    places, count = np.empty((2, one.max() + 1)), len(one)
    places[0, one] = places[1, other] = np.arange(count)
    moved = places[0, one] - places[1, one]
    return float(1 - 6 * np.sum(moved**2) / (count * (count**2 - 1)))


def faults(found: Comparison, wanted: Thresholds) -> tuple[str, ...]:
    """The reasons against replacing A with B; none means "go"."""
    rows = (
        ("mean cosine", found.drift.mean, wanted.min_cosine),
        ("worst cosine", found.drift.min, wanted.min_worst),
        (f"top-{found.own.k} overlap", found.own.top, wanted.min_overlap),
        (f"top-{found.mixed.k} overlap of B's queries on A's documents", found.mixed.top, wanted.min_overlap),
    )
    return tuple(f"{name} {value:.4f} is below {least:g}" for name, value, least in rows if value < least)


def _order(vectors: Vectors, query: int, *, paired: bool) -> NDArray[np.intp]:
    """The documents' numbers, nearest first."""
    order = np.argsort(-(vectors.documents @ vectors.queries[query]), kind="stable")
    return order[order != query] if paired else order
