"""PyTorch beside trillama: exact vectors and speed, each asked of one process of `bench.gpu.torch_side`."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import orjson

from bench.gpu.machine import BenchMachine
from proxy.embedding.chunk_means import F64


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Of a text given by its ids: the tokens whose mean state is the vector; all of them unless told otherwise."""

    ids: Sequence[int]
    first: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class TwinJob:
    """What to compute with which model."""

    model: Path
    spans: Sequence[TokenSpan]
    dtype: Literal["float32", "float16"] = "float32"


async def torch_vectors(machine: BenchMachine, jobs: Sequence[TwinJob]) -> list[F64]:
    """For each job (spans, n_embd), not normalised, on the numbers of the model's own file."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for number, job in enumerate(jobs):
            ids, lengths, spans = _arrays(job.spans)
            np.savez(folder / f"{number}.npz", ids=ids, lengths=lengths, spans=spans)
        told = [
            {
                "model": str(job.model),
                "texts": str(folder / f"{number}.npz"),
                "out": str(folder / f"{number}.npy"),
                "dtype": job.dtype,
            }
            for number, job in enumerate(jobs)
        ]
        (folder / "jobs").write_bytes(orjson.dumps(told))
        await _torch("vectors", str(folder / "jobs"), "--device", machine.torch_device)
        return [np.load(folder / f"{number}.npy") for number in range(len(jobs))]


def _arrays(spans: Sequence[TokenSpan]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ids of each text once, one after the other; the texts' lengths; and the spans: text, first token, end."""
    texts: dict[tuple[int, ...], int] = {}
    rows = [(texts.setdefault(tuple(one.ids), len(texts)), one.first, one.end or len(one.ids)) for one in spans]
    return np.concatenate([np.array(ids) for ids in texts]), np.array([len(ids) for ids in texts]), np.array(rows)


async def torch_speed(machine: BenchMachine, model: Path, kinds: Sequence[str], seconds: float) -> dict[str, float]:
    """PyTorch's tokens per second for each kind of text, at its best batch; float32 on a CPU, float16 is slow there."""
    output = await _torch(
        *("speed", str(model), "--device", machine.torch_device),
        *("--dtype", "float16" if machine.on_gpu else "float32"),
        *("--kinds", ",".join(kinds), "--seconds", str(seconds)),
    )
    found: dict[str, float] = orjson.loads(output)
    return found


async def _torch(*arguments: str) -> bytes:
    """What it prints. Fails with what it says if it fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.gpu.torch_side", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, errors.decode(errors="replace")[-2000:]
    return output
