"""Checks that a built engine computes right vectors, with every kernel that a model's file may need.

Compilers and processors have bugs, and a bug in one kernel shows on files of one quantisation only: so a small model of
each quantisation is served. Its vectors must match those of the same numbers in F32, whose kernels are plain (no AMX),
and must be the same to the last bit with and without `--no-logits-for-embeddings`.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from launcher.arrays import F32
from launcher.build.checks import models as check_models
from launcher.build.patches.lean import FLAG
from launcher.engine.discovery import Engine
from launcher.errors import ChildError, EngineBuildError, Miscompiled, WrongAnswer
from launcher.processes.child import crash_of
from launcher.settings.config import SupervisionSettings
from launcher.settings.folders import runtime_base
from launcher.supervision.standalone import Standalone, standalone

Batches = Sequence[Sequence[int]]

_SLOTS, _BATCH_TOKENS = 8, 1024
# Tokens of each text in a batch: one text, the longest possible, and all sizes together, with all slots used or few.
BATCHES = ((5,), (_BATCH_TOKENS,), (1,), (1, 300, 17, 64, 2, 511, 33, 96), (128,) * _SLOTS, (700, 1), (5,))
# On a software device, whose kernels are compiled by the CPU: all of the above took 24 minutes for one quantisation.
SOFTWARE_QUANTIZATION, SOFTWARE_BATCHES = "Q8_0", ((5,), (1, 17, 60), (5,))
LEAST_COSINE = 0.995  # measured with AVX2, AVX-512 and AMX: 0.9990 to 1.0000, because activations are rounded too


async def check_engine(engine: Engine, folder: Path, *, software: bool = False) -> float:
    """The least cosine between a vector and that of the same numbers in F32, over all QUANTIZATIONS.

    Raises Miscompiled if it is below LEAST_COSINE, a vector is not finite or the engine crashes;
    EngineBuildError if the engine does not serve, or if FLAG, where it has that flag, changes a vector. Runs one server
    after the other, on models made in `folder`, and on the GPU if the engine uses one. `software`: that GPU is a
    software device, so check SOFTWARE_QUANTIZATION with SOFTWARE_BATCHES only.
    """
    if software:
        return await _checked(engine, SOFTWARE_QUANTIZATION, SOFTWARE_BATCHES, folder)
    return min([await _checked(engine, quantization, BATCHES, folder) for quantization in check_models.QUANTIZATIONS])


async def _checked(engine: Engine, quantization: str, batches: Batches, folder: Path) -> float:
    model, in_f32 = await asyncio.to_thread(check_models.write_model, folder, quantization)
    plain = replace(engine, flags=engine.flags - {FLAG})
    try:
        expected = await _vectors(plain, f"{quantization} in F32", in_f32, batches)
        found = await _vectors(plain, quantization, model, batches)
        lean = found
        if FLAG in engine.flags:
            lean = await _vectors(engine, f"{quantization} with {FLAG}", model, batches)
    except ChildError as error:
        if crash := crash_of(error.returncode):
            raise Miscompiled(f"the built engine dies of {crash} on {quantization}") from error
        if isinstance(error, WrongAnswer):
            raise Miscompiled(f"the built engine returns no vectors: {error}") from error
        raise EngineBuildError(f"the built engine does not serve: {error}") from error
    cosine = _least_cosine(np.vstack(expected), np.vstack(found))
    if cosine < LEAST_COSINE:
        raise Miscompiled(
            f"the built engine computes wrong vectors on {quantization}: a cosine of {cosine:.4f} to those in F32"
        )
    _require_equal(found, lean, quantization, batches)
    return cosine


def _require_equal(stock: Sequence[F32], lean: Sequence[F32], quantization: str, batches: Batches) -> None:
    """Raises EngineBuildError unless the vectors are the same to the last bit."""
    for lengths, one, other in zip(batches, stock, lean, strict=True):
        if one.tobytes() != other.tobytes():
            raise EngineBuildError(
                f"the built engine computes different vectors with {FLAG} on {quantization}, for texts of "
                f"{', '.join(map(str, lengths))} tokens in one batch; try `trillama engine build --stock`"
            )


async def _vectors(engine: Engine, name: str, model: Path, batches: Batches) -> list[F32]:
    """The vectors of each batch, not normalised."""
    run = Standalone(
        log="engine-check.log",
        engine=engine,
        policy=SupervisionSettings(),
        runtime=runtime_base(),
        slots=_SLOTS,
        batch_tokens=_BATCH_TOKENS,
        gpu_layers=99,
        threads=None,
    )
    async with standalone(run, name, model) as embedder:
        return [await embedder.raw_vectors(ids) for ids in _token_ids(batches)]


def _token_ids(batches: Batches) -> Iterator[Sequence[Sequence[int]]]:
    """Token ids, all plain bytes of the models' vocabulary; no two texts are equal."""
    for batch, lengths in enumerate(batches):
        yield [
            [(7 * batch + 31 * text + 3 * at * at) % 256 for at in range(length)] for text, length in enumerate(lengths)
        ]


def _least_cosine(ones: F32, others: F32) -> float:
    """The least cosine between equal rows; no row may be all zeros."""
    lengths = np.linalg.norm(ones, axis=1) * np.linalg.norm(others, axis=1)
    return float((np.einsum("ij,ij->i", ones, others, dtype=np.float64) / lengths).min())
