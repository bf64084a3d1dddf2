"""The load generator: a seed decides what is sent."""

import asyncio
from collections.abc import Sequence
from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from launcher.measure.loadgen import (
    LENGTHS,
    RequestFailed,
    Sample,
    closed_loop,
    cut,
    lengths,
    percentile,
    summary,
    texts,
)

SEEDS = st.integers(0, 2**32)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(0.1, 100))
def test_a_percentile_is_a_value_that_was_seen_and_as_many_are_below_it(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(one <= found for one in values) >= percent / 100 * len(values) - 1e-9
    assert sum(one < found for one in values) <= percent / 100 * len(values) + 1e-9


@given(SEEDS, st.sampled_from(list(LENGTHS)))
def test_a_seed_gives_the_same_texts_again_of_that_many_words(seed: int, kind: str) -> None:
    first, again = (list(islice(texts(np.random.default_rng(seed), kind), 5)) for _ in range(2))
    assert first == again
    low, high = LENGTHS[kind]
    assert all(low <= len(one.split()) <= high for one in first)
    assert all(low <= one <= high for one in lengths(np.random.default_rng(seed), kind, 50))


def test_mixed_texts_are_mostly_short_and_some_are_long() -> None:
    found = lengths(np.random.default_rng(1), "mixed", 2000)
    assert 0.45 < sum(one < 63 for one in found) / 2000 < 0.55
    assert min(found) == 4
    assert max(found) > 950


async def test_a_closed_loop_has_no_more_in_flight_than_clients_and_sends_each_request_once() -> None:
    underway, most, sent = 0, 0, list[str]()

    async def ask(asked: Sequence[str]) -> int:
        nonlocal underway, most
        underway += 1
        most = max(most, underway)
        sent.extend(asked)
        await asyncio.sleep(0)
        underway -= 1
        if "5" in asked:
            raise RequestFailed("five")
        return 3

    found = await closed_loop(ask, cut(iter(map(str, range(20))), 3), clients=4)
    assert (most, sorted(map(int, sent))) == (4, list(range(20)))
    assert [one.failed for one in found if one.failed] == ["five"]
    assert summary(found).failed == 1
    assert await closed_loop(ask, cut(iter("ab"), 1), clients=1, seconds=0) == []


def test_a_summary_counts_what_was_answered() -> None:
    found = summary([Sample(1.0, 2.0, 2, 10), Sample(1.5, 5.0, 4, 30), Sample(2.0, 3.0, 9, 90, failed="no")])
    assert (found.requests, found.failed, found.seconds) == (3, 1, 4.0)
    assert (found.tokens_per_s, found.texts_per_s) == (10.0, 1.5)
    assert (found.p50_s, found.p99_s, found.max_s) == (1.0, 3.5, 3.5)
    assert summary([]).tokens_per_s == summary([]).p99_s == 0
