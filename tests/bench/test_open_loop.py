"""The open loop: due times come from a seed alone, and latency counts from them."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.open_loop import arrivals, open_loop
from launcher.measure.loadgen import cut, texts


@given(st.integers(0, 2**32), st.floats(1, 200), st.floats(0.1, 20))
def test_arrivals_come_in_order_and_before_the_end(seed: int, per_s: float, seconds: float) -> None:
    due = arrivals(np.random.default_rng(seed), per_s=per_s, seconds=seconds)
    assert due == sorted(due) == arrivals(np.random.default_rng(seed), per_s=per_s, seconds=seconds)
    assert all(0 < one < seconds for one in due)
    assert abs(len(due) - per_s * seconds) <= 7 * (per_s * seconds) ** 0.5 + 7  # Poisson: its variance is its mean


async def test_a_server_that_stalls_cannot_hide_it_from_an_open_loop() -> None:
    """One request at a time, 50 ms each, due every 10 ms: the last one waited for all before it."""
    turn = asyncio.Lock()

    async def ask(_: Sequence[str]) -> int:
        async with turn:
            await asyncio.sleep(0.05)
        return 1

    found = await open_loop(ask, cut(texts(np.random.default_rng(0), "short"), 1), [n * 0.01 for n in range(10)])
    assert len(found) == 10
    assert max(one.latency_s for one in found) >= 10 * 0.05 - 0.09
    assert sorted(one.due_s - found[0].due_s for one in found) == pytest.approx([n * 0.01 for n in range(10)])
