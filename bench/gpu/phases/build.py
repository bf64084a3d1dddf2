"""Build: the engine that was just built (or is here, in the rehearsal) checked, and packed to be brought back."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.gpu import engine
from bench.gpu.machine import BenchMachine
from bench.gpu.models import MIXTURES
from bench.gpu.results.found import Recorder
from launcher.arrays import F32
from launcher.build.patches.lean import FLAG
from launcher.engine.discovery import Engine, Origin, probe
from launcher.supervision.standalone import standalone

_BATCH_TOKENS = 1024
_BATCHES = ((1,), (5,), (512,), (2, 40, 128, 7, 300, 1), (32,) * 16, (1024,))  # tokens of each text of a batch


async def run_build(machine: BenchMachine, found: Recorder) -> None:
    """Vectors with the logits and without, and the engine's parts."""
    if FLAG in machine.engine.flags:
        for quantization in MIXTURES:
            found.set(f"{quantization}: vectors that differ without the logits", await _differ(machine, quantization))
    else:
        found.note(f"this engine does not know {FLAG}: there is nothing to compare")
    if len(machine.engine.argv) > 1:
        found.note("the embedded engine is no folder that can be packed")
        return
    started, folder = time.monotonic(), Path(machine.engine.argv[0]).parent
    made = await asyncio.to_thread(engine.pack_engine, folder, machine.out)
    again = machine.work / "unpacked"
    await asyncio.to_thread(engine.unpack_engine, machine.out, again)
    files = [one for one in again.iterdir() if not one.is_symlink()]
    same = all(one.read_bytes() == (folder / one.name).read_bytes() for one in files)
    await probe((str(again / engine.SERVER),), Origin.CONFIGURED, machine.engine.env)
    found.set("packed: seconds", time.monotonic() - started)
    found.set("packed: MiB", sum(one.stat().st_size for one in made) / 2**20)
    found.set("packed: parts", len(made))
    found.set("packed: the same when unpacked, and runs", same)


async def _differ(machine: BenchMachine, quantization: str) -> int:
    """How many vectors are not the same to the last bit."""
    model = await asyncio.to_thread(machine.model, machine.scale.checked, quantization)
    stock = replace(machine.engine, flags=machine.engine.flags - {FLAG})
    lean, full = [await _vectors(machine, one, model) for one in (machine.engine, stock)]
    return sum(one.tobytes() != other.tobytes() for one, other in zip(lean, full, strict=True))


async def _vectors(machine: BenchMachine, which: Engine, model: Path) -> list[F32]:
    """Each text's vector, not normalised."""
    async with standalone(machine.alone(which, batch_tokens=_BATCH_TOKENS), "build", model) as embedder:
        return [row for batch in _batches() for row in await embedder.raw_vectors(batch)]


def _batches() -> Iterator[Sequence[Sequence[int]]]:
    random = np.random.default_rng(4)
    for lengths in _BATCHES:
        yield [random.integers(0, 256, length).tolist() for length in lengths]
