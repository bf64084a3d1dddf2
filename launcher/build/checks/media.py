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
from launcher.errors import ChildError, EngineBuildError
from launcher.images.prompt import TOKEN_SIDE, golden_pixels, image_input, media_marker
from launcher.settings.config import SupervisionSettings
from launcher.settings.folders import runtime_base
from launcher.supervision.standalone import Standalone, StandaloneEmbedder, standalone

_SIZES = ((1, 5), (4, 6), (9, 7))  # height and width in tokens: less than one of the encoder's windows, and several
_TEXTS = ((5, 6, 7), tuple(range(3, 250)), (9,) * 60)
_AROUND = 5 + 1 + 2  # tokens: `user\n` in bytes, and the three that mark the start of a message and an image
_SAME, _OTHER = 0.9999, 0.999  # cosines: at least and at most
_NORM = 1e-3  # of a vector's length: how much the same vector may differ


async def check_media(engine: Engine, folder: Path) -> None:
    """Return if images have right vectors, alone, beside texts and at once. Raises EngineBuildError if not.

    The engine must know `--pool-media`. Runs one server after the other, on models made in `folder`.
    """
    files = await asyncio.to_thread(media_models.write_media_model, folder)
    plain = _run(engine, files)
    try:
        async with standalone(replace(plain, mmproj=None), "texts alone", files.model) as embedder:
            expected = [await embedder.raw_rows([ids]) for ids in _TEXTS]
        async with standalone(replace(plain, by_token=True), "states of images", files.model) as embedder:
            states = [(await embedder.raw_rows([image]))[0] for image in _images()]
        async with standalone(plain, "images", files.model) as embedder:
            found = [await embedder.raw_rows([ids]) for ids in _TEXTS]
            alone = [(await embedder.raw_rows([image]))[0][0] for image in _images()]
            mixed = await _mixed(embedder)
    except ChildError as error:
        raise EngineBuildError(f"the built engine does not serve images: {error}") from error
    if any(one[0].tobytes() != other[0].tobytes() for one, other in zip(expected, found, strict=True)):
        raise _wrong("changes the vectors of texts")
    _check_states(alone, states)
    texts = [one[0][0] for one in expected]
    if not all(_same(*pair) for answer in mixed for pair in zip([*texts, *alone], answer, strict=True)):
        raise _wrong("gives other vectors if texts and images come at once")


def _check_states(vectors: Sequence[F32], states: Sequence[F32]) -> None:
    """Raises EngineBuildError unless each vector is the mean of an image's states, one for each token."""
    for (height, width), vector, rows in zip(_SIZES, vectors, states, strict=True):
        if len(rows) != height * width + _AROUND:
            raise _wrong(f"has {len(rows)} states of an image's {height * width + _AROUND} tokens")
        if not _same(rows.mean(axis=0), vector):
            raise _wrong("does not pool an image over all of its tokens")
        if _cosine(rows[-1], vector) > _OTHER:
            raise _wrong("pools only the text behind an image")
    if _cosine(vectors[0], vectors[1]) > _OTHER:
        raise _wrong("gives two images the same vector")


async def _mixed(embedder: StandaloneEmbedder) -> list[list[F32]]:
    """The vectors of all texts and images: in one request, then in requests at the same time."""
    inputs = [*_TEXTS, *_images()]
    together = await embedder.raw_rows(inputs)
    apart = await asyncio.gather(*(embedder.raw_rows([one]) for one in inputs))
    return [[one[0] for one in together], [one[0][0] for one in apart]]


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


def _images() -> list[dict[str, object]]:
    sizes = [(height * TOKEN_SIDE, width * TOKEN_SIDE) for height, width in _SIZES]
    return [image_input(golden_pixels(*size), media_marker()) for size in sizes]


def _wrong(what: str) -> EngineBuildError:
    return EngineBuildError(f"the built engine {what}, with --pool-media; try `trillama engine build --stock`")


def _same(one: F32, other: F32) -> bool:
    lengths = np.linalg.norm(one), np.linalg.norm(other)
    return _cosine(one, other) >= _SAME and abs(lengths[0] - lengths[1]) <= _NORM * lengths[0]


def _cosine(one: F32, other: F32) -> float:
    return float(one.astype(np.float64) @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
