"""The design's open question: one batch in flight or two, and full batches or such of 250 ms."""

import asyncio
import statistics
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import numpy as np

from bench.gpu.machine import BenchMachine
from bench.gpu.results.found import Recorder
from bench.gpu.served import cosines
from bench.servers.contenders import Contender
from bench.servers.setups import direct
from launcher.measure.loadgen import closed_loop, summary, texts
from proxy.embedding.chunk_means import F64

_TEXTS, _SLOTS, ROUNDS = 256, 32, 2
_BATCH_S = 0.25
_SAME = 0.999  # Q8_0 rounds otherwise in another batch; a cut or mixed-up text is far below


async def run_in_flight(machine: BenchMachine, found: Recorder) -> None:
    """Batches as the proxy would compose them, sent directly, by one client and by two; windows in turn."""
    pool = list(islice(texts(np.random.default_rng(11), "mixed"), _TEXTS if machine.on_gpu else _TEXTS // 8))
    async with direct(machine.host("Q8_0", slots=2 * _SLOTS)) as engine:
        alone = {one: (await engine.vectors([one]))[0] for one in pool}
        full = list(_batches(pool, machine.scale.batch_tokens))
        speed = await _speed(machine, engine, full, 1)
        short = list(_batches(pool, max(64, int(_BATCH_S * speed))))
        seen: dict[tuple[str, int], list[float]] = {}
        for _ in range(ROUNDS):
            for name, batches in (("full batches", full), ("batches of 250 ms", short)):
                for clients in (1, 2):
                    seen.setdefault((name, clients), []).append(await _speed(machine, engine, batches, clients))
        wrong = await _wrong(engine, full, alone)
    for (name, clients), windows in seen.items():
        found.set(f"{name}, {clients} in flight: tokens/s", statistics.median(windows))
    found.set("two batches in flight: wrong", wrong)


def _batches(pool: Sequence[str], tokens: int) -> Iterator[list[str]]:
    """As many texts as fit _SLOTS and `tokens`, in order."""
    batch: list[str] = []
    used = 0
    for one in pool:
        size = one.count(" ") + 3
        if batch and (len(batch) == _SLOTS or used + size > tokens):
            yield batch
            batch, used = [], 0
        batch.append(one)
        used += size
    yield batch


async def _speed(machine: BenchMachine, engine: Contender, batches: Sequence[list[str]], clients: int) -> float:
    done = summary(await closed_loop(engine.ask(), cycle(batches), clients=clients, seconds=machine.scale.window_s))
    assert not done.failed, f"{done.failed} of {done.requests} failed"
    return done.tokens_per_s


async def _wrong(engine: Contender, batches: Sequence[list[str]], alone: dict[str, F64]) -> int:
    """How many vectors are others than alone, if two batches are in flight."""
    waiting = list(batches)
    wrong = 0

    async def client() -> None:
        nonlocal wrong
        while waiting:
            batch = waiting.pop()
            found = await engine.vectors(batch)
            wrong += int((cosines(found, np.stack([alone[one] for one in batch])) < _SAME).sum())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(client())
    return wrong
