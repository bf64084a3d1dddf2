"""Tokens per second of a saturated server, what llama-bench says is possible, and the longest wait."""

import asyncio
import os
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import orjson

from bench.rows import Found, Row, ratio
from bench.servers.contenders import BATCH_TOKENS, SLOTS, Contender, Host, Start, same_vectors
from bench.servers.setups import direct, trillama
from launcher.measure.loadgen import Summary, closed_loop, cut, summary, texts

_ROUNDS, ROUND_TEXTS, _CLIENTS = 3, 48, 24
WAIT_TEXTS = 192


async def saturated(host: Host, seed: int) -> Found:
    """The same mixed texts for each, one per request, by 1.5 times as many clients as slots; rounds in turn."""
    before = await _llama_bench(host)
    found = await rounds(host, (direct, trillama), RoundLoad("mixed", ROUND_TEXTS, _CLIENTS), seed)
    limit = before and max(before, await _llama_bench(host) or 0.0)  # the machine's speed changes meanwhile
    names = list(found)
    theirs, ours = ([one.tokens_per_s for one in found[name]] for name in names)
    middle, least, most = ratio(ours, theirs)
    spent = ratio(*([one.processor_s_per_1000 for one in found[name]] for name in reversed(names)))
    rows = [
        Row(
            measure=f"tokens/s served, saturated, mixed lengths, vs directly ({host.made.shape.name})",
            goal="≥ 1.00" if host.engine == host.stock else "≥ 1.10 (lean engine, the real one's proportions)",
            seen=f"{middle:.2f} ({least:.2f} to {most:.2f})",
            met=middle >= (1.0 if host.engine == host.stock else 1.1),
        ),
        Row(
            measure="… processor time per token, proxy and engine, vs directly",
            goal="",
            seen=f"{spent[0]:.2f} ({spent[1]:.2f} to {spent[2]:.2f})",
            met=None,
        ),
    ]
    if limit:
        part = statistics.median(ours) / limit
        rows.append(
            Row(
                measure="tokens/s served vs llama-bench at its best batch",
                goal="≥ 0.95",
                seen=f"{part:.2f} ({statistics.median(ours):.0f} of {limit:.0f})",
                met=part >= 0.95,
            )
        )
    notes = () if limit else ("llama-bench is not built here: $LLAMA_BENCH names it",)
    return Found(model=host.made.shape.why, rows=rows, figures=figures_of(found), notes=notes)


async def waits(host: Host, seed: int) -> Found:
    """Short texts, one per request, by four times as many clients as slots."""
    found = await rounds(host, (direct, trillama), RoundLoad("short", WAIT_TEXTS, 4 * SLOTS), seed)
    worst = {name: max(one.done.max_s / one.done.p50_s for one in runs) for name, runs in found.items()}
    theirs, ours = worst.values()
    row = Row(
        measure="worst wait at 4 x slots concurrency, vs median",
        goal="≤ 3",
        seen=f"{ours:.1f} (directly: {theirs:.1f})",
        met=ours <= 3,
    )
    return Found(model=host.made.shape.why, rows=(row,), figures=figures_of(found))


@dataclass(frozen=True, slots=True)
class RoundLoad:
    """One round: the number and kind of texts, one per request, and the number of clients."""

    kind: str
    count: int
    clients: int


@dataclass(frozen=True, slots=True)
class Round:
    """The outcome of a round, and the processor seconds that the contender used for it."""

    done: Summary
    processor_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.done.tokens_per_s

    @property
    def processor_s_per_1000(self) -> float:
        """Per 1000 tokens."""
        return self.processor_s / (self.done.tokens_per_s * self.done.seconds) * 1000


async def rounds(host: Host, starts: Sequence[Start], load: RoundLoad, seed: int) -> dict[str, list[Round]]:
    """Each contender's rounds on the same texts; the order changes from round to round."""
    async with AsyncExitStack() as exits:
        up = [await exits.enter_async_context(start(host)) for start in starts]
        await same_vectors([one for one in up if one.same_weights])
        for one in up:
            await _round(one, replace(load, count=load.count // 4), seed)  # warm
        found: dict[str, list[Round]] = {one.name: [] for one in up}
        for number in range(_ROUNDS):
            for one in up if number % 2 else up[::-1]:
                found[one.name].append(await _round(one, load, seed + 1 + number))
    return found


async def _round(one: Contender, load: RoundLoad, seed: int) -> Round:
    requests = cut(islice(texts(np.random.default_rng(seed), load.kind), load.count), 1)
    before = one.processor_s()
    done = summary(await closed_loop(one.ask(), requests, clients=load.clients))
    assert not done.failed, f"{one.name}: {done.failed} of {done.requests} failed"
    return Round(done, one.processor_s() - before)


def figures_of(found: dict[str, list[Round]]) -> dict[str, dict[str, float]]:
    """Medians of each contender's rounds."""
    return {
        name: {
            "tokens_per_s": statistics.median(one.tokens_per_s for one in runs),
            "texts_per_s": statistics.median(one.done.texts_per_s for one in runs),
            "p50_ms": statistics.median(one.done.p50_s for one in runs) * 1e3,
            "max_ms": max(one.done.max_s for one in runs) * 1e3,
            "processor_s_per_1000_tokens": statistics.median(one.processor_s_per_1000 for one in runs),
        }
        for name, runs in found.items()
    }


async def _llama_bench(host: Host) -> float | None:
    """Tokens per second of prompt processing at the best of three batches; None where llama-bench is not built."""
    binary = Path(os.environ.get("LLAMA_BENCH", ""))
    if not binary.is_file():
        return None
    process = await asyncio.create_subprocess_exec(
        *(str(binary), "-m", str(host.made.model), "-p", "512,1024", "-n", "0", "-b", str(BATCH_TOKENS)),
        *("-ub", str(BATCH_TOKENS), "-t", str(host.threads), "-embd", "1", "-ngl", "0", "-r", "2", "-fa", "1"),
        *("-o", "json"),
        env=host.stock.env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    return max(float(one["avg_ts"]) for one in orjson.loads(output))
