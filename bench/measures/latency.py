"""Latency: one short text while nothing else runs, and queries beside a re-indexing client."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from bench.open_loop import arrivals, open_loop
from bench.rows import Found, Row, ratio
from bench.servers.contenders import Contender, Host, same_vectors
from bench.servers.hops import bare, undressed
from bench.servers.setups import direct, trillama
from launcher.measure.loadgen import Sample, closed_loop, cut, percentile, summary, texts

_PAIRS = 300
QUERIES_PER_S, BULK_TEXTS, WINDOWS, _WINDOW_S = 5.0, 48, 3, 7.0


async def added(host: Host, seed: int, pairs: int = _PAIRS) -> Found:
    """One short text to each in turn, after a pause: what idle clients see. All use the same engine process."""
    async with trillama(host) as ours, undressed(ours) as alone, bare(ours) as hop:
        contenders = (alone, hop, ours)
        await same_vectors(contenders)
        stream = texts(np.random.default_rng(seed), "short")
        taken: dict[str, list[float]] = {one.name: [] for one in contenders}
        for number in range(pairs):
            (text,) = islice(stream, 1)
            for place in range(len(contenders)):
                one = contenders[(number + place) % len(contenders)]
                await asyncio.sleep(0.01)
                taken[one.name].append(await _timed(one, text))
    warm = {name: column[pairs // 10 :] for name, column in taken.items()}
    added_ms, hop_ms = (_added_ms(warm[one.name], warm[alone.name]) for one in (ours, hop))
    rows = (
        Row(
            measure=f"added median latency, one short text, idle ({host.made.shape.name})",
            goal="≤ 0.7 ms",
            seen=f"{added_ms:+.2f} ms",
            met=added_ms <= 0.7,
        ),
        Row(measure="… added by a bare aiohttp server", goal="", seen=f"{hop_ms:+.2f} ms", met=None),
    )
    figures = {
        name: {"p50_ms": statistics.median(column) * 1e3, "p99_ms": percentile(column, 99) * 1e3}
        for name, column in warm.items()
    }
    return Found(model=host.made.shape.why, rows=rows, figures=figures)


async def _timed(one: Contender, text: str) -> float:
    started = time.perf_counter()
    await one.post([text])
    return time.perf_counter() - started


def _added_ms(through: Sequence[float], alone: Sequence[float]) -> float:
    return statistics.median(b - a for a, b in zip(alone, through, strict=True)) * 1e3


@dataclass(slots=True)
class _Seen:
    """All measuring windows of one contender."""

    queries: list[Sample] = field(default_factory=list)
    bulk: list[float] = field(default_factory=list)


async def interactive(host: Host, seed: int, window_s: float = _WINDOW_S) -> Found:
    """One client sends BULK_TEXTS medium texts per request without a pause; queries arrive at random times."""
    seen: dict[str, _Seen] = {}
    async with direct(host) as alone, trillama(host) as served:
        await same_vectors((alone, served))
        for number in range(2 * WINDOWS):
            one = (alone, served)[(number + number // 2) % 2]  # alternate, and alternate which is first
            await _beside(one, seed + number // 2, seen.setdefault(one.name, _Seen()), window_s)
        full = await _one_full_batch(alone, seed)
    theirs, ours = seen[alone.name], seen[served.name]
    mine, other = percentile(_latencies(ours), 99), percentile(_latencies(theirs), 99)
    loss = 1 - ratio(ours.bulk, theirs.bulk)[0]
    rows = (
        Row(
            measure="interactive p99 while one client re-indexes, vs directly",
            goal="≤ 1/10",
            seen=f"{mine:.2f} s vs {other:.2f} s: 1/{other / mine:.0f}",
            met=mine <= other / 10,
        ),
        Row(
            measure="… vs one physical batch",
            goal="≤ 2 x",
            seen=f"{mine / full:.2f} x ({full:.2f} s)",
            met=mine <= 2 * full,
        ),
        Row(measure="… bulk loses, vs directly", goal="≤ 7 %", seen=f"{loss:.0%}", met=loss <= 0.07),
    )
    figures = {
        name: {
            "queries": len(one.queries),
            "failed": sum(bool(sample.failed) for sample in one.queries),
            "p50_ms": percentile(_latencies(one), 50) * 1e3,
            "p99_ms": percentile(_latencies(one), 99) * 1e3,
            "bulk_tokens_per_s": statistics.median(one.bulk),
        }
        for name, one in seen.items()
    }
    return Found(model=host.made.shape.why, rows=rows, figures=figures)


def _latencies(one: _Seen) -> list[float]:
    return [sample.latency_s for sample in one.queries if not sample.failed]


async def _beside(one: Contender, seed: int, seen: _Seen, window_s: float) -> None:
    """Queries beside bulk for `window_s`; bulk's speed is that of the requests begun within it."""
    due = arrivals(np.random.default_rng(seed), per_s=QUERIES_PER_S, seconds=window_s)
    queries = cut(texts(np.random.default_rng([seed, 1]), "short"), 1)
    jobs = cut(texts(np.random.default_rng([seed, 2]), "medium"), BULK_TEXTS)
    async with asyncio.TaskGroup() as tasks:
        indexing = tasks.create_task(closed_loop(one.ask(), jobs, clients=1, seconds=window_s))
        await asyncio.sleep(0.5)
        seen.queries += await open_loop(one.ask(), queries, due)
    seen.bulk.append(summary(indexing.result()).tokens_per_s)


async def _one_full_batch(one: Contender, seed: int) -> float:
    """Seconds for a full physical batch."""
    full = next(cut(texts(np.random.default_rng(seed), "medium"), 15))
    return statistics.median([(await closed_loop(one.ask(), iter([full]), clients=1))[0].latency_s for _ in range(3)])
