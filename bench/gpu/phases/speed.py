"""Speed: trillama, llama-server directly, llama-bench and PyTorch on the real shape, in turn."""

import asyncio
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import orjson

from bench import rows
from bench.gpu import card, twin
from bench.gpu.machine import BenchMachine
from bench.gpu.phases import in_flight
from bench.gpu.results.found import Recorder
from bench.gpu.served import cosines
from bench.measures import latency
from bench.servers.contenders import Contender
from bench.servers.setups import direct, trillama
from launcher.measure.loadgen import closed_loop, cut, summary, texts

_QUANTIZATIONS = ("Q8_0", "F16")
PROMPTS = (512, 2048)  # of llama-bench
MANY_SLOTS = 64
A_PART_S = 60.0  # about the longest that a part after the windows takes
SEED = 1
OURS, THEIRS = "trillama", "directly"


@dataclass(slots=True)
class WindowSpeeds:
    """Tokens per second by kind of text, number of clients and contender; one figure per window."""

    windows: dict[tuple[str, int, str], list[float]] = field(default_factory=dict)

    def add(self, kind: str, clients: int, name: str, tokens_per_s: float) -> None:
        self.windows.setdefault((kind, clients, name), []).append(tokens_per_s)

    def best(self, kind: str, name: str = OURS) -> float:
        """At the best number of clients; the median of its windows."""
        return max(statistics.median(found) for key, found in self.windows.items() if (key[0], key[2]) == (kind, name))

    def ratio(self) -> float:
        """Ours by theirs with the most clients: the median over the kinds."""
        most = max(clients for _, clients, _ in self.windows)
        ours, theirs = (
            {
                kind: statistics.median(found)
                for (kind, clients, one), found in self.windows.items()
                if (clients, one) == (most, name)
            }
            for name in (OURS, THEIRS)
        )
        return statistics.median(ours[kind] / theirs[kind] for kind in ours)


async def run_speed(machine: BenchMachine, found: Recorder) -> None:
    """Q8_0 in two rounds and F16 in one, then more slots, latency, and the design's open question."""
    torch: dict[str, float] = {}
    with found.part("PyTorch"):
        model = await asyncio.to_thread(machine.model, machine.scale.real, "F16")
        torch |= await twin.torch_speed(machine, model, machine.scale.kinds, machine.scale.window_s / 2)
        for kind, tokens_per_s in torch.items():
            found.set(f"PyTorch, {kind}: tokens/s", tokens_per_s)
    for quantization, rounds in zip(_QUANTIZATIONS, (2, 1), strict=True):
        with found.part(quantization):
            await _quantization(machine, found, quantization, rounds, torch)
    for part in (_slots, _idle, _beside, in_flight.run_in_flight):
        if machine.left_s < A_PART_S:
            found.note(f"left out for lack of time: {part.__name__}")
            continue
        with found.part(part.__name__):
            await part(machine, found)


async def _quantization(
    machine: BenchMachine, found: Recorder, quantization: str, rounds: int, torch: Mapping[str, float]
) -> None:
    limit = await _llama_bench(machine, found, quantization)
    speeds = await _windows(machine, found, quantization, rounds)
    found.set(f"{quantization}: tokens/s of those directly", speeds.ratio())
    if limit:
        found.set(f"{quantization}: tokens/s of llama-bench's", max(map(speeds.best, machine.scale.kinds)) / limit)
    for kind, tokens_per_s in torch.items():
        found.set(f"{quantization}, {kind}: times PyTorch's tokens/s", speeds.best(kind) / tokens_per_s)


async def _llama_bench(machine: BenchMachine, found: Recorder, quantization: str) -> float | None:
    """Tokens per second of prompts, as llama-bench itself sees them; None where it is not built."""
    binary = Path(os.environ.get("LLAMA_BENCH") or Path(machine.engine.argv[0]).with_name("llama-bench"))
    if not binary.is_file():
        found.note("there is no llama-bench beside the engine, and $LLAMA_BENCH names none")
        return None
    model, tokens = machine.model(machine.scale.real, quantization), str(max(PROMPTS))
    process = await asyncio.create_subprocess_exec(
        *(str(binary), "-m", str(model), "-p", ",".join(map(str, PROMPTS)), "-n", "0", "-r", "3", "-fa", "1"),
        *("-b", tokens, "-ub", tokens, "-ngl", str(machine.gpu_layers), "-o", "json"),
        env=machine.engine.env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    rows = orjson.loads(output)
    for row in rows:
        found.set(f"{quantization}, llama-bench pp{row['n_prompt']}: tokens/s", row["avg_ts"])
    return max(float(row["avg_ts"]) for row in rows)


async def _windows(machine: BenchMachine, found: Recorder, name: str, rounds: int) -> WindowSpeeds:
    """Each kind of text and number of clients, both contenders in turn."""
    speeds, host = WindowSpeeds(), machine.host(name)
    async with trillama(host) as ours, direct(host) as theirs:
        sent = list(islice(texts(np.random.default_rng(0), "short"), 3))
        found.set(
            f"{name}: least cosine between both", cosines(*[await one.vectors(sent) for one in (ours, theirs)]).min()
        )
        for number in range(rounds):
            for kind in machine.scale.kinds:
                for clients in machine.scale.clients:
                    for one, title in ((ours, OURS), (theirs, THEIRS)):
                        tokens_per_s = await _window(machine, found, one, title, (name, kind, clients, number))
                        speeds.add(kind, clients, title, tokens_per_s)
    for (kind, clients, title), seen in speeds.windows.items():
        found.set(f"{name}, {kind}, {clients} clients, {title}: tokens/s", statistics.median(seen))
    return speeds


async def _window(
    machine: BenchMachine, found: Recorder, one: Contender, title: str, key: tuple[str, str, int, int]
) -> float:
    """One contender's tokens per second; what the card did meanwhile, if trillama has most clients."""
    name, kind, clients, number = key
    watched = title == OURS and clients == max(machine.scale.clients)
    requests = cut(texts(np.random.default_rng([SEED, clients, number]), kind), 1)
    before = await _batches(one) if watched else (0.0, 0.0)
    async with card.busy(watched=machine.on_gpu and watched) as busy:
        done = summary(await closed_loop(one.ask(), requests, clients=clients, seconds=machine.scale.window_s))
    assert not done.failed, f"{title}: {done.failed} of {done.requests} failed"
    if watched:
        seconds, batches = (now - then for now, then in zip(await _batches(one), before, strict=True))
        found.set(f"{name}, {kind}: ms between two batches", (done.seconds - seconds) / max(1.0, batches) * 1e3)
        found.set(f"{name}, {kind}: requests/s", done.texts_per_s)
        if busy:
            found.set(f"{name}, {kind}: per cent of the time in which the card computed", busy[0])
    return done.tokens_per_s


async def _batches(one: Contender) -> tuple[float, float]:
    """The seconds that all batches took, and their number, as trillama counts them."""
    async with one.session.get(f"{one.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    totals = {
        line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.startswith("trillama_call_seconds")
    }
    return totals['trillama_call_seconds_sum{backend="retrieval"}'], totals[
        'trillama_call_seconds_count{backend="retrieval"}'
    ]


async def _slots(machine: BenchMachine, found: Recorder) -> None:
    """Short texts with more slots: with few, a batch of them is small."""
    host = machine.host("Q8_0", slots=MANY_SLOTS)
    async with trillama(host) as ours:
        for kind in ("short", "mixed"):
            key = (f"Q8_0, {MANY_SLOTS} slots", kind, max(machine.scale.clients), 0)
            found.set(", ".join(key[:2]) + ": tokens/s", await _window(machine, found, ours, OURS, key))


async def _idle(machine: BenchMachine, found: Recorder) -> None:
    """One short text to each in turn while nothing else runs: the latency that trillama adds."""
    _note(found, "idle", await latency.added(machine.host("Q8_0"), SEED, machine.scale.pairs))


async def _beside(machine: BenchMachine, found: Recorder) -> None:
    """Queries beside a client that re-indexes."""
    _note(found, "beside a re-index", await latency.interactive(machine.host("Q8_0"), SEED, 2 * machine.scale.window_s))


def _note(found: Recorder, name: str, seen: rows.Found) -> None:
    for contender, figures in seen.figures.items():
        for figure in ("p50_ms", "p99_ms"):
            found.set(f"query, {name}, {contender}: {figure.replace('_', ' in ')}", figures[figure])
    for row in seen.rows:
        found.note(f"{row.measure}: {row.seen}")
