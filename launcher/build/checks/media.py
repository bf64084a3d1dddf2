"""Checks that a built engine pools an image over all of its tokens, on a small Qwen2.5-VL with random weights.

Without our patch, or with a wrong one, it answers as if all was well: with the vector of the text behind the image.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from launcher.arrays import F32
from launcher.build.checks import media_models
from launcher.build.checks.media_models import MediaFiles
from launcher.engine.discovery import Engine
from launcher.errors import ChildError, EngineBuildError, Miscompiled
from launcher.images.prompt import TOKEN_SIDE, golden_pixels, image_input, media_marker
from launcher.processes.child import crash_of
from launcher.settings.config import SupervisionSettings
from launcher.settings.folders import runtime_base
from launcher.supervision.standalone import Standalone, StandaloneEmbedder, standalone

_SIZES = ((1, 5), (4, 6), (9, 7))  # height and width in tokens: less than one of the encoder's windows, and several
_TEXTS = ((5, 6, 7), tuple(range(3, 250)), (9,) * 60)
_AROUND = 5 + 1 + 2  # tokens: `user\n` in bytes, and the three that mark the start of a message and an image
_SAME, _OTHER = 0.9999, 0.999  # cosines: at least and at most
_TEXTS_ALONE = "`trillama engine build --no-images`"
_NORM = 1e-3  # of a vector's length: how much the same vector may differ


async def check_media(engine: Engine, folder: Path, *, software: bool = False) -> None:
    """Return if images have right vectors, alone, beside texts and at once.

    Raises EngineBuildError if not, Miscompiled if the engine crashes. The engine must know `--pool-media`. Runs one
    server after the other, on models made in `folder`. `software`: its GPU is a software device, so check few and small
    images.
    """
    files = await asyncio.to_thread(media_models.write_media_model, folder)
    sizes, texts = (_SIZES[:2], _TEXTS[:1]) if software else (_SIZES, _TEXTS)
    images, plain = [_image(*size) for size in sizes], _run(engine, files)
    try:
        async with standalone(replace(plain, mmproj=None), "texts alone", files.model) as embedder:
            expected = await _alone(embedder, texts)
        async with standalone(replace(plain, by_token=True), "states of images", files.model) as embedder:
            states = await _alone(embedder, images)
        async with standalone(plain, "images", files.model) as embedder:
            found, alone = await _alone(embedder, texts), await _alone(embedder, images)
            together = await embedder.raw_rows([*texts, *images])
            apart = await asyncio.gather(*(_alone(embedder, [one]) for one in (*texts, *images)))
    except ChildError as error:
        if crash := crash_of(error.returncode):
            raise Miscompiled(f"the built engine dies of {crash} on images") from error
        raise EngineBuildError(f"the built engine does not serve images: {error}") from error
    if any(one.tobytes() != other.tobytes() for one, other in zip(expected, found, strict=True)):
        raise _wrong("changes the vectors of texts")
    for size, (vector,), rows in zip(sizes, alone, states, strict=True):
        _check_states(size, vector, rows)
    if _cosine(alone[0][0], alone[1][0]) > _OTHER:
        raise _wrong("gives two images the same vector")
    for answers in (together, [rows for (rows,) in apart]):
        if not all(_same(one[0], other[0]) for one, other in zip([*expected, *alone], answers, strict=True)):
            raise _wrong("gives other vectors if texts and images come at once")


async def _alone(embedder: StandaloneEmbedder, inputs: Sequence[object]) -> list[F32]:
    """The rows of each input, of one request after the other."""
    return [(await embedder.raw_rows([one]))[0] for one in inputs]


def _check_states(size: tuple[int, int], vector: F32, rows: F32) -> None:
    """Raises EngineBuildError unless the vector is the mean of an image's states, one for each token."""
    count = size[0] * size[1] + _AROUND
    if len(rows) != count:
        raise _wrong(f"has {len(rows)} states of an image's {count} tokens")
    if not _same(rows.mean(axis=0), vector):
        raise _wrong("does not pool an image over all of its tokens")
    if _cosine(rows[-1], vector) > _OTHER:
        raise _wrong("pools only the text behind an image")


def _run(engine: Engine, files: MediaFiles) -> Standalone:
    return Standalone(
        log="engine-check.log",
        engine=engine,
        policy=SupervisionSettings(),
        runtime=runtime_base(),
        slots=8,
        batch_tokens=1024,
        gpu_layers=99,
        threads=None,
        mmproj=files.mmproj,
    )


def _image(height: int, width: int) -> dict[str, object]:
    return image_input(golden_pixels(height * TOKEN_SIDE, width * TOKEN_SIDE), media_marker())


def _wrong(what: str) -> EngineBuildError:
    return EngineBuildError(f"the built engine {what}, with --pool-media; for texts alone: {_TEXTS_ALONE}")


def _same(one: F32, other: F32) -> bool:
    lengths = np.linalg.norm(one), np.linalg.norm(other)
    return _cosine(one, other) >= _SAME and abs(lengths[0] - lengths[1]) <= _NORM * lengths[0]


def _cosine(one: F32, other: F32) -> float:
    return float(one.astype(np.float64) @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
