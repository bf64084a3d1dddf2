"""The proxy before a real, patched llama-server on a small Qwen2.5-VL, as a process in a loop of a thread."""

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import tomli_w

from launcher.build.checks.media_models import write_media_model
from launcher.build.checks.models import DIMENSIONS
from launcher.build.patches.media import MEDIA_FLAG
from tests.support.engine import EngineMissing, found_engine
from tests.support.stack import FAMILY_FILE, Stack, stack

BACKEND = "retrieval"


@asynccontextmanager
async def serving_images(folder: Path, *, by_token: bool = False, **settings: object) -> AsyncIterator[Stack]:
    """Serve texts and images by one model for all tasks. Raises EngineMissing where no engine pools images."""
    engine = await found_engine("native")
    if MEDIA_FLAG not in engine.flags:
        raise EngineMissing(f"the engine of this machine does not know {MEDIA_FLAG}: `trillama engine build` makes one")
    files = write_media_model(folder)
    serving = stack(
        "native",
        {BACKEND: files.model},
        family=media_family(folder),
        mmproj=files.mmproj,
        by_token=[BACKEND] if by_token else [],
        **settings,
    )
    async with serving as served:
        yield served


def media_family(folder: Path) -> Path:
    """The family of that model: its tasks are all of one backend."""
    family = tomllib.loads(FAMILY_FILE.read_text(encoding="utf-8"))
    tasks = {name: {**row, "backend": BACKEND} for name, row in family["tasks"].items()}
    file = folder / "media.toml"
    file.write_text(
        tomli_w.dumps({**family, "dimensions": DIMENSIONS, "trained_dimensions": [DIMENSIONS], "tasks": tasks}),
        encoding="utf-8",
    )
    return file
