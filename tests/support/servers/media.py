"""The proxy before a real, patched llama-server on a small Qwen2.5-VL, as a process in a loop of a thread."""

import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import tomli_w

from launcher.build.checks.media_models import write_media_model
from launcher.build.checks.models import MODEL_WIDTH
from launcher.build.patches.media import MEDIA_FLAG
from launcher.multivector import projector
from tests.support.engines.engine import EngineMissing, found_engine
from tests.support.servers.stack import FAMILY_FILE, Stack, family_of, stack

BACKEND = "retrieval"


@asynccontextmanager
async def serving_images(folder: Path, settings: Mapping[str, object]) -> AsyncIterator[Stack]:
    """Serve texts and images by one model for all tasks, also token by token, with `projector_of`'s projector.

    Raises EngineMissing where no engine pools images.
    """
    engine = await found_engine("native")
    if MEDIA_FLAG not in engine.flags:
        raise EngineMissing(f"the engine of this machine does not know {MEDIA_FLAG}: `trillama engine build` makes one")
    files, family, projector_file = write_media_model(folder), media_family(folder), folder / "projector.npz"
    projector.save_projector(projector_of(family), projector_file)
    serving = stack(
        "native",
        {BACKEND: files.model},
        family=family,
        mmproj=files.mmproj,
        by_token=[BACKEND],
        multivector_file=str(projector_file),
        **settings,  # type: ignore[arg-type] # of the proxy
    )
    async with serving as served:
        yield served


def projector_of(family: Path) -> projector.Projector:
    """A random one of the family's shape."""
    multivector, random = family_of(family).multivector, np.random.default_rng(0)
    assert multivector
    weights = {BACKEND: random.standard_normal((multivector.dimensions, MODEL_WIDTH), dtype=np.float32)}
    bias = random.standard_normal(multivector.dimensions, dtype=np.float32)
    return projector.Projector(weights, bias, {"family": family_of(family).name})


def media_family(folder: Path) -> Path:
    """The family of that model: its tasks are all of one backend."""
    family = tomllib.loads(FAMILY_FILE.read_text(encoding="utf-8"))
    tasks = {name: {**row, "backend": BACKEND} for name, row in family["tasks"].items()}
    file = folder / "media.toml"
    file.write_text(
        tomli_w.dumps({**family, "dimensions": MODEL_WIDTH, "trained_dimensions": [MODEL_WIDTH], "tasks": tasks}),
        encoding="utf-8",
    )
    return file
