"""An open loop: requests are sent when they are due, whether or not earlier ones have been answered.

Latency counts from the due time: a server that stalls cannot hide it by slowing its clients down (coordinated
omission). The closed loop, in which each client has one request at a time, is `launcher.measure.loadgen`'s.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence

from numpy.random import Generator

from launcher.measure.loadgen import Ask, Sample, Texts, timed


def arrivals(random: Generator, *, per_s: float, seconds: float) -> list[float]:
    """Due times of a Poisson process, in seconds from its start, up to `seconds`."""
    found: list[float] = []
    at = float(random.exponential(1 / per_s))
    while at < seconds:
        found.append(at)
        at += float(random.exponential(1 / per_s))
    return found


async def open_loop(ask: Ask, requests: Iterator[Texts], due: Sequence[float]) -> list[Sample]:
    """Send a request at each of those times, in seconds from now, however many are in flight."""
    found: list[Sample] = []
    start = time.perf_counter()

    async def one(texts: Texts, at: float) -> None:
        found.append(await timed(ask, texts, at))

    async with asyncio.TaskGroup() as tasks:
        for at, texts in zip(due, requests, strict=False):
            await asyncio.sleep(start + at - time.perf_counter())
            tasks.create_task(one(texts, start + at))
    return found
