"""Latency: one short text while nothing else runs, and queries while somebody re-indexes."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from itertools import islice

import numpy as np

from bench.contenders import Contender, Host, direct, trillama
from bench.rows import Found, Row
from launcher.load import Sample, arrivals, closed_loop, cut, open_loop, percentile, summary, texts

PAIRS = 300
QUERIES_PER_S, BULK_TEXTS, WINDOW_S = 3.0, 128, 20.0


async def added(host: Host, seed: int) -> Found:
    """Pairs of one short text, in turn, each after a pause: what idle clients see."""
    async with direct(host) as alone, trillama(host) as ours:
        stream = texts(np.random.default_rng(seed), "short")
        pairs: list[tuple[float, float]] = []
        for number in range(PAIRS):
            (text,) = islice(stream, 1)
            timed = {}
            for one in (alone, ours) if number % 2 else (ours, alone):
                await asyncio.sleep(0.01)
                timed[one.name] = await _timed(one, text)
            pairs.append((timed[alone.name], timed[ours.name]))
    warm = pairs[PAIRS // 10 :]
    difference = statistics.median(b - a for a, b in warm) * 1e3
    columns = {name: [pair[i] for pair in warm] for i, name in enumerate((alone.name, ours.name))}
    row = Row(
        measure=f"added median latency, one short text, idle ({host.made.shape.name})",
        goal="≤ 0.7 ms",
        seen=f"{difference:+.2f} ms",
        met=difference <= 0.7,
    )
    figures = {
        name: {"p50_ms": statistics.median(column) * 1e3, "p99_ms": percentile(column, 99) * 1e3}
        for name, column in columns.items()
    }
    return Found(model=host.made.shape.why, rows=(row,), figures=figures)


async def _timed(one: Contender, text: str) -> float:
    started = time.perf_counter()
    await one.post([text])
    return time.perf_counter() - started


async def interactive(host: Host, seed: int) -> Found:
    """One client sends BULK_TEXTS medium texts a request, without a pause; queries come at random, and are due then."""
    ours: list[Sample] = []
    theirs: list[Sample] = []
    bulk: dict[str, list[float]] = {}
    async with direct(host) as alone, trillama(host) as served:
        for one, kept in ((alone, theirs), (served, ours)):
            await _beside(one, seed, kept, bulk.setdefault(one.name, []))
        full = await _one_full_batch(alone, seed)
        undisturbed = await _bulk_alone(served, seed)
    mine, other = (summary(kept) for kept in (ours, theirs))
    loss = 1 - statistics.mean(bulk[served.name]) / statistics.mean(bulk[alone.name])
    rows = (
        Row(
            measure="interactive p99 while one client re-indexes, vs directly",
            goal="≤ 1/10",
            seen=f"{mine.p99_s:.2f} s vs {other.p99_s:.2f} s: 1/{other.p99_s / mine.p99_s:.0f}",
            met=mine.p99_s <= other.p99_s / 10,
        ),
        Row(
            measure="… vs one physical batch",
            goal="≤ 2 x",
            seen=f"{mine.p99_s / full:.2f} x (a batch of {16 * 128} tokens: {full:.2f} s)",
            met=mine.p99_s <= 2 * full,
        ),
        Row(
            measure="… bulk loses, vs directly beside the same queries",
            goal="≤ 7 %",
            seen=f"{loss:.0%}",
            met=loss <= 0.07,
        ),
    )
    figures = {
        name: {
            **kept.as_dict(),
            "bulk_tokens_per_s": statistics.mean(bulk[name]),
        }
        for name, kept in ((alone.name, other), (served.name, mine))
    }
    figures["trillama, bulk alone"] = {"bulk_tokens_per_s": undisturbed}
    return Found(model=host.made.shape.why, rows=rows, figures=figures)


async def _beside(one: Contender, seed: int, kept: list[Sample], bulk: list[float]) -> None:
    """Queries beside bulk for WINDOW_S; bulk's speed is of the requests that it finished, queries or not."""
    random = np.random.default_rng(seed)
    due = arrivals(random, per_s=QUERIES_PER_S, seconds=WINDOW_S)
    queries = cut(texts(random, "short"), 1)
    jobs = cut(texts(np.random.default_rng(seed + 1), "medium"), BULK_TEXTS)
    async with asyncio.TaskGroup() as tasks:
        indexing = tasks.create_task(closed_loop(one.ask(), jobs, clients=1, seconds=WINDOW_S))
        await asyncio.sleep(1.0)
        kept += await open_loop(one.ask(), queries, due)
    bulk.append(summary(indexing.result()).tokens_per_s)


async def _one_full_batch(one: Contender, seed: int) -> float:
    """Seconds for as many tokens as one physical batch takes."""
    full = next(cut(texts(np.random.default_rng(seed), "medium"), 15))
    return statistics.median([(await closed_loop(one.ask(), iter([full]), clients=1))[0].latency_s for _ in range(3)])


async def _bulk_alone(one: Contender, seed: int) -> float:
    jobs: Sequence[Sequence[str]] = list(islice(cut(texts(np.random.default_rng(seed + 2), "medium"), 64), 1))
    return summary(await closed_loop(one.ask(), iter(jobs), clients=1)).tokens_per_s
