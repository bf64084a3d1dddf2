"""The rounding check measures once for all callers, and a cancelled caller leaves it to the next."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from proxy.errors import DeadlineExceeded
from proxy.models.rounding import ROUNDING_LENGTHS, RoundingCheck, rounding_error
from proxy.scheduling.entries import Outcome
from proxy.types import Ids


class Engine:
    """Rounds nothing; answers when the gate is open."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, inputs: Sequence[Ids]) -> Outcome:
        self.asked.append([len(ids) for ids in inputs])
        await self.gate.wait()
        return Outcome(np.ones((len(inputs), 4), dtype=np.float32), {})


async def test_it_is_measured_once_for_concurrent_callers() -> None:
    check, engine = RoundingCheck(), Engine()
    engine.gate.set()
    assert await asyncio.gather(*(check.error("x", 4096, engine) for _ in range(5))) == [0.0] * 5
    assert engine.asked == [list(ROUNDING_LENGTHS)]


async def test_a_caller_cancelled_while_it_measures_leaves_it_to_the_next() -> None:
    check, engine = RoundingCheck(), Engine()
    first, second, third = (asyncio.ensure_future(check.error("x", 100, engine)) for _ in range(3))
    while not engine.asked:
        await asyncio.sleep(0)
    second.cancel()
    first.cancel()
    engine.gate.set()
    assert await third == 0.0
    assert engine.asked == [[n for n in ROUNDING_LENGTHS if n <= 100]] * 2


async def test_a_caller_that_times_out_leaves_it_to_the_next() -> None:
    async def late(_: Sequence[Ids]) -> Outcome:
        raise DeadlineExceeded("too late")

    check, engine = RoundingCheck(), Engine()
    engine.gate.set()
    with pytest.raises(DeadlineExceeded):
        await check.error("x", 100, late)
    assert await check.error("x", 100, engine) == 0.0


def test_the_rounding_error_is_the_distance_of_means_that_must_be_equal() -> None:
    exact = np.tile(np.arange(1, 5, dtype=np.float32), (3, 1))
    assert rounding_error(exact) == 0
    assert rounding_error(exact * np.array([[1], [1 + 2**-11], [1]], dtype=np.float32)) == pytest.approx(
        2**-11, rel=0.5
    )
