"""Large answers: float JSON, the proxy's memory under many of them, and whether any vector is wrong."""

import asyncio
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
from numpy.random import Generator

from bench.rows import Found, Row, ratio
from bench.servers.contenders import Contender, Host, same_vectors
from bench.servers.hops import undressed
from bench.servers.machine import resident_mib
from bench.servers.setups import direct, trillama
from launcher.measure.loadgen import WORDS, RequestFailed, closed_loop, cut, summary, texts

_PAIRS, _TEXTS = 8, 256
_CLIENTS, MEMORY_TEXTS = 64, 512
STRESS_TEXTS = int(os.environ.get("STRESS_TEXTS", "10000"))  # the goal is about 100000: some ten minutes
STRESS_POOL, STRESS_CLIENTS, STRESS_MOST = 3000, 32, 96
_SAME = 0.9999
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


async def serialised(host: Host, seed: int) -> Found:
    """Requests of _TEXTS short texts, by one client and by four: as JSON floats, and directly also as base64.

    The last is the most that can be gained: it writes no floats at all.
    """
    figures: dict[str, dict[str, float]] = {}
    rows: list[Row] = []
    async with trillama(host) as ours, undressed(ours) as alone:
        await same_vectors((alone, ours))
        ways = {alone.name: (alone, "float"), ours.name: (ours, "float"), f"{alone.name}, base64": (alone, "base64")}
        for clients in (1, 4):
            runs: dict[str, list[_Run]] = {name: [] for name in ways}
            for number in range(_PAIRS // clients + 1):
                for name in ways if number % 2 else reversed(ways):
                    one, encoding = ways[name]
                    runs[name].append(await _answered(one, encoding, [seed, clients, number], clients))
            runs = {name: found[1:] for name, found in runs.items()}  # the first is warm-up
            theirs, mine, base64 = runs.values()
            rows += _compared(theirs, mine, base64, clients)
            for name, found in runs.items():
                figures[f"{name}, {clients} at once"] = {
                    "texts_per_s": statistics.median(one.texts_per_s for one in found),
                    "processor_ms_per_text": statistics.median(one.processor_ms for one in found),
                }
    return Found(model=host.made.shape.why, rows=rows, figures=figures)


@dataclass(frozen=True, slots=True)
class _Run:
    """One request by each client: texts per second, and processor milliseconds per text."""

    texts_per_s: float
    processor_ms: float


def _compared(
    theirs: Sequence[_Run], ours: Sequence[_Run], base64: Sequence[_Run], clients: int
) -> tuple[Row, Row, Row]:
    middle, least, most = ratio(*([one.texts_per_s for one in runs] for runs in (ours, theirs)))
    bound = ratio(*([one.texts_per_s for one in runs] for runs in (base64, theirs)))
    spent = ratio(*([one.processor_ms for one in runs] for runs in (ours, theirs)))
    return (
        Row(
            measure=f"float-JSON answers, {_TEXTS} texts a call, {clients} at once, vs directly",
            goal="≥ 1.2",
            seen=f"{middle:.2f} ({least:.2f} to {most:.2f})",
            met=middle >= 1.2,
        ),
        Row(
            measure="… directly in base64, vs in floats: the most that can be gained",
            goal="",
            seen=f"{bound[0]:.2f} ({bound[1]:.2f} to {bound[2]:.2f})",
            met=None,
        ),
        Row(
            measure="… processor time, proxy and engine, vs directly",
            goal="",
            seen=f"{spent[0]:.2f} ({spent[1]:.2f} to {spent[2]:.2f})",
            met=None,
        ),
    )


async def _answered(one: Contender, encoding: str, seed: list[int], clients: int) -> _Run:
    calls = cut(_distinct(np.random.default_rng(seed), CHARACTERS, 2, _TEXTS * clients), _TEXTS)
    before = one.processor_s()
    found = summary(await closed_loop(one.ask(encoding), calls, clients=clients))
    assert not found.failed
    return _Run(found.texts_per_s, (one.processor_s() - before) / clients / _TEXTS * 1e3)


def _distinct(random: Generator, words: Sequence[str], each: int, count: int) -> Iterator[str]:
    """`count` texts of `each` words, all different: equal ones would be computed only once."""
    for one in random.permutation(len(words) ** each)[:count]:
        yield " ".join(words[one // len(words) ** place % len(words)] for place in range(each))


async def proxy_memory(host: Host, seed: int) -> Found:
    """The proxy's resident memory while _CLIENTS clients request MEMORY_TEXTS texts each, as floats."""
    async with trillama(host) as one:
        before = peak = resident_mib(one.pid)
        calls = cut(_distinct(np.random.default_rng(seed), WORDS, 4, MEMORY_TEXTS * _CLIENTS), MEMORY_TEXTS)
        load = asyncio.create_task(closed_loop(one.ask("float"), calls, clients=_CLIENTS))
        while not load.done():
            peak = max(peak, resident_mib(one.pid))
            await asyncio.sleep(0.02)
        found = summary(load.result())
    row = Row(
        measure=f"proxy memory, {_CLIENTS} clients x {MEMORY_TEXTS} texts",
        goal="≤ 200 MB",
        seen=f"{peak:.0f} MiB at most, {before:.0f} before; {found.failed} failed",
        met=peak * 2**20 <= 200e6 and not found.failed,
    )
    return Found(model=host.made.shape.why, rows=(row,), figures={"trillama": asdict(found)})


async def stress(host: Host, seed: int) -> Found:
    """STRESS_TEXTS texts of mixed lengths in requests of 1 to STRESS_MOST; each vector against its own when alone."""
    random = np.random.default_rng(seed)
    pool = list(islice(texts(random, "mixed"), STRESS_POOL))
    wrong = failed = sent = 0
    async with direct(host) as alone, trillama(host) as served:
        truth = {one: (await alone.vectors([one]))[0] for one in pool}
        started = time.perf_counter()

        async def client() -> None:
            nonlocal wrong, failed, sent
            while sent < STRESS_TEXTS:
                size = int(random.integers(1, STRESS_MOST + 1))
                sent_texts = [pool[number] for number in random.integers(0, STRESS_POOL, size)]
                sent += size
                try:
                    found = await served.vectors(sent_texts)
                except RequestFailed:
                    failed += 1
                    continue
                expected = np.array([truth[one] for one in sent_texts])
                wrong += int((~(np.einsum("ij,ij->i", found, expected) > _SAME)).sum())  # NaN is wrong too

        async with asyncio.TaskGroup() as tasks:
            for _ in range(STRESS_CLIENTS):
                tasks.create_task(client())
        seconds = time.perf_counter() - started
    row = Row(
        measure=f"wrong vectors, failed requests in a mixed stress of {sent} texts",
        goal="0, 0",
        seen=f"{wrong}, {failed}",
        met=not wrong and not failed,
    )
    figures = {"trillama": {"texts_per_s": sent / seconds, "seconds": seconds}}
    return Found(model=host.made.shape.why, rows=(row,), figures=figures)
