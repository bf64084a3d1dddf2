"""Whether an engine's vectors are the same to the last bit with `--no-logits-for-embeddings` as without it."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from launcher.config import SupervisionSettings, runtime_base
from launcher.demo import demo_models
from launcher.engine import Engine
from launcher.errors import ChildError, EngineBuildError
from launcher.lean import FLAG
from launcher.solo import Run, started

SLOTS, BATCH_TOKENS = 8, 1024
# Tokens of each text of a call: alone, as long as can be, and of all sizes side by side, in full and in empty slots.
CALLS = ((5,), (BATCH_TOKENS,), (1, 300, 17, 64, 2, 511, 33, 96), (128,) * SLOTS, (700, 1), (5,))


async def check(engine: Engine, folder: Path) -> None:
    """Raise EngineBuildError unless it is so. Needs an engine that knows FLAG.

    One process is run without the flag and one with it, on a model made in `folder`, on the GPU if the engine has one.
    """
    model = (await asyncio.to_thread(demo_models, folder))["retrieval"]
    try:
        stock = await _vectors(replace(engine, flags=engine.flags - {FLAG}), "without", model)
        lean = await _vectors(engine, "with", model)
    except ChildError as error:
        raise EngineBuildError(f"what was built does not serve, so it is not installed: {error}") from error
    for lengths, one, other in zip(CALLS, stock, lean, strict=True):
        if one != other:
            raise EngineBuildError(
                f"what was built is not installed: {FLAG} changes the vectors of texts of "
                f"{', '.join(map(str, lengths))} tokens in one call; try `trillama engine build --stock`"
            )


async def _vectors(engine: Engine, how: str, model: Path) -> list[bytes]:
    """The raw vectors of each call."""
    run = Run(
        log="engine-check.log",
        engine=engine,
        policy=SupervisionSettings(),
        runtime=runtime_base(),
        slots=SLOTS,
        batch_tokens=BATCH_TOKENS,
        gpu_layers=99,
        threads=None,
    )
    async with started(run, f"{how} {FLAG}", model) as embedder:
        return [(await embedder.raw_vectors(ids)).tobytes() for ids in _calls()]


def _calls() -> Iterator[Sequence[Sequence[int]]]:
    """Token ids, all of them plain bytes of the demo's vocabulary, no two texts alike."""
    for call, lengths in enumerate(CALLS):
        yield [
            [(7 * call + 31 * text + 3 * at * at) % 256 for at in range(length)] for text, length in enumerate(lengths)
        ]
