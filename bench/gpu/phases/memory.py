"""Memory: what a llama-server takes against what `trillama plan` says, and a card that is filled to its reserve."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import psutil

from bench.gpu import card
from bench.gpu.machine import BenchMachine
from bench.gpu.models import MIXTURES
from bench.gpu.results.found import Recorder
from bench.gpu.served import TASKS, Serving, three, trillama_serving
from bench.servers.contenders import SLOTS
from launcher.build.patches.lean import FLAG
from launcher.engine.device_list import MIB
from launcher.measure.loadgen import text
from launcher.planning.memory import GIB, Flags, Need, need, weights_of
from launcher.planning.sizing import RESERVE_BYTES, RESERVE_PART
from launcher.settings.config import FlashAttention
from launcher.supervision.standalone import StandaloneEmbedder, standalone
from proxy.contract.gguf import read_header

A_CASE_S = 30.0  # about the longest that one start and its batches take
FREE_WITHIN_S = 20.0
_PREFIX = 8  # tokens, at least those of any task's prefix
SPARE_BYTES = 640 * MIB  # beside the plan and its reserve: a process that asks how much is free takes some itself


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCase:
    """One way to run the real model. `lean`: without the logits that nobody reads."""

    quantization: str
    batch_tokens: int
    lean: bool
    flash_attention: FlashAttention

    @property
    def name(self) -> str:
        engine = "lean" if self.lean else "stock"
        return f"{self.quantization}, -ub {self.batch_tokens}, {engine}, flash attention {self.flash_attention}"


async def run_memory(machine: BenchMachine, found: Recorder) -> None:
    """All cases, the usual ones first; then three models at once on a card that has no more memory than they need."""
    ratios = []
    for case in _cases(machine):
        if machine.left_s < A_CASE_S + (120 if machine.on_gpu else 30):
            found.note(f"left out for lack of time: {case.name}")
            continue
        with found.part(case.name):
            taken, planned = await _taken(machine, case), _need(machine, case)
            most = planned.vram if machine.on_gpu else planned.ram
            found.set(f"{case.name}: GiB", taken / GIB)
            found.set(f"{case.name}: of the plan", taken / most)
            if case.flash_attention == "auto":
                ratios.append(taken / most)
    if ratios:
        found.set("memory of the plan, least", min(ratios))
        found.set("memory of the plan, most", max(ratios))
    with found.part("three at once"):
        await _filled(machine, found)


def _cases(machine: BenchMachine) -> Iterator[MemoryCase]:
    ways: tuple[FlashAttention, ...] = ("auto", "off")
    for flash_attention, lean in product(ways, (True, False)):
        if lean or FLAG in machine.engine.flags:
            for quantization, tokens in product(MIXTURES, machine.scale.ubatches):
                yield MemoryCase(
                    quantization=quantization, batch_tokens=tokens, lean=lean, flash_attention=flash_attention
                )


def _need(machine: BenchMachine, case: MemoryCase) -> Need:
    """What the plan says."""
    logits = not case.lean or FLAG not in machine.engine.flags
    weights = weights_of(read_header(machine.model(machine.scale.real, case.quantization)))
    assert weights
    return need(
        weights, Flags(batch_tokens=case.batch_tokens, slots=SLOTS, gpu_layers=machine.gpu_layers, logits=logits)
    )


async def _taken(machine: BenchMachine, case: MemoryCase) -> int:
    """Bytes after the largest batches, of many texts and of one."""
    model = await asyncio.to_thread(machine.model, machine.scale.real, case.quantization)
    engine = machine.engine if case.lean else replace(machine.engine, flags=machine.engine.flags - {FLAG})
    run_ = replace(machine.alone(engine, batch_tokens=case.batch_tokens), flash_attention=case.flash_attention)
    before = await _settled(machine)
    async with standalone(run_, "memory", model) as embedder:
        await _largest(embedder, case.batch_tokens)
        return _used(machine, model) - before


async def _largest(embedder: StandaloneEmbedder, tokens: int) -> None:
    for texts in (SLOTS, 1):
        each = tokens // texts
        await embedder.raw_vectors([[(7 * at + one) % 256 for at in range(each)] for one in range(texts)])


def _used(machine: BenchMachine, model: Path) -> int:
    """Of the card, or of all processes that serve the model."""
    if machine.on_gpu:
        return card.used_bytes()
    ours = psutil.Process().children(recursive=True)
    return sum(one.memory_info().rss for one in ours if str(model) in one.cmdline())


async def _settled(machine: BenchMachine) -> int:
    """The bytes in use once they no longer become fewer: those of the process before are released a moment later."""
    if not machine.on_gpu:
        return 0
    used = card.used_bytes()
    async with asyncio.timeout(FREE_WITHIN_S):
        while True:
            await asyncio.sleep(0.5)
            if (now := card.used_bytes()) >= used:
                return now
            used = now


async def _filled(machine: BenchMachine, found: Recorder) -> None:
    """Three models of F16 where free memory is what the plan asks for: they must start, and serve the longest text."""
    sizes, tokens = machine.scale.real, machine.scale.ubatches[-1]
    case = MemoryCase(quantization="F16", batch_tokens=tokens, lean=True, flash_attention="auto")
    planned = _need(machine, case)
    files = await asyncio.to_thread(three, machine, sizes, "F16", alike=True)
    total = 3 * (planned.vram if machine.on_gpu else planned.ram)
    async with _only(machine, found, total):
        before = await _settled(machine)
        async with trillama_serving(machine, files, sizes, tokens=tokens) as served:
            await _longest(served, tokens)
            taken = _used(machine, files["retrieval"]) - before
    found.set("three at once, F16: GiB", taken / GIB)
    found.set("three at once, F16: of the plan", taken / total)
    found.set("three at once, F16: all served their longest text", 1.0)


async def _longest(served: Serving, tokens: int) -> None:
    """The longest text to each backend, and many at once."""
    random = np.random.default_rng(9)
    backends: Mapping[str, str] = {backend: task for task, (backend, _) in TASKS.items()}
    async with asyncio.TaskGroup() as tasks:
        for task in backends.values():
            tasks.create_task(served.client.vectors([text(random, tokens - _PREFIX)], task=task))
            tasks.create_task(
                served.client.vectors([text(random, tokens // SLOTS - _PREFIX) for _ in range(SLOTS)], task=task)
            )


def _ballast(machine: BenchMachine, total: int) -> int:
    """Bytes to take from the card, so that what is left after the plan's reserve is `total`."""
    if not machine.on_gpu:
        return 0
    wanted = round((total + RESERVE_BYTES) / (1 - RESERVE_PART)) + SPARE_BYTES
    return max(0, card.unused_bytes() - wanted)


@asynccontextmanager
async def _only(machine: BenchMachine, found: Recorder, total: int) -> AsyncIterator[None]:
    """A card on which the plan may use `total` bytes and no more."""
    bytes_ = _ballast(machine, total)
    if not bytes_:
        yield
        return
    async with card.held(bytes_):
        found.set("three at once, F16: GiB left by others", card.unused_bytes() / GIB)
        yield
