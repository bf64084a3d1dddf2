"""Finds each backend's model file, downloading or making it, and checks it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher.conversion import made
from launcher.conversion.made import Recipe
from launcher.errors import DamagedFile, ModelError
from launcher.hub.cache import CachedFile, cached_files, sha256_of
from launcher.hub.cache_entry import find_cached, sha256_in_name
from launcher.hub.download import fetch
from launcher.models.gguf_file import model_header
from launcher.settings.family import FamilyFile, HubFile
from launcher.settings.models import ModelSettings
from proxy.contract.gguf import Header

log = logging.getLogger(__name__)

ReportBytes = Callable[[str, int, int], None]  # a backend's name, bytes done, bytes in all


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A file that one backend serves, and where it comes from: the hub, a recipe, or the user's own path."""

    backend: str
    origin: HubFile | Recipe | Path

    @property
    def local(self) -> Path | None:
        """The user's own file."""
        return self.origin if isinstance(self.origin, Path) else None


def model_files(family: FamilyFile, settings: ModelSettings) -> tuple[ModelFile, ...]:
    """One file per backend of the family, in its order.

    Raises ModelError for a quantisation that is not offered.
    """
    weights = family.weights
    quantization = weights.named(settings.quantization or weights.quantization)
    if quantization not in weights.quantizations:
        offered = ", ".join(weights.quantizations)
        raise ModelError(f'[models] quantization = "{quantization}": {family.name} is offered as {offered}')
    return tuple(
        model_file(family, backend, quantization, local=settings.files.get(backend)) for backend in weights.models
    )


def model_file(family: FamilyFile, backend: str, quantization: str, *, local: Path | None = None) -> ModelFile:
    """The backend's file of that quantisation, whether or not it is offered."""
    return ModelFile(backend=backend, origin=local or _origin(family, backend, quantization))


def _origin(family: FamilyFile, backend: str, quantization: str) -> HubFile | Recipe:
    if package := family.weights.models[backend].package:
        name = family.name if len(family.weights.models) == 1 else f"{family.name}-{backend}"
        return Recipe(name=name, source=package, quantization=quantization, licence=family.licence)
    place = family.weights.on_hub[backend]
    return HubFile(place.repo, place.file.format(quantization=quantization))


def find_here(file: ModelFile) -> Path | None:
    """The file, if nothing has to be fetched for it; a file of the hub may be damaged."""
    if isinstance(file.origin, Path):
        return file.origin
    if isinstance(file.origin, Recipe):
        return made.find_made(file.origin)
    return find_cached(file.origin.repo, file.origin.file)


def files_here(family: FamilyFile) -> tuple[CachedFile, ...]:
    """Every file of the family that was downloaded or made. Damaged ones too, if they were made."""
    files = [
        (model_file(family, backend, quantization), quantization)
        for backend in family.weights.models
        for quantization in family.weights.quantizations
    ]
    return *cached_files(family), *(
        CachedFile(
            backend=file.backend,
            quantization=quantization,
            bytes=file.origin.path.stat().st_size,
            sha256=sha256_in_name(file.origin.path),
            current=True,
            path=file.origin.path,
            entry=None,
        )
        for file, quantization in files
        if isinstance(file.origin, Recipe) and file.origin.path.is_file()
    )


def lora_files(family: FamilyFile, settings: ModelSettings) -> tuple[ModelFile, ...]:
    """The LoRA of each backend that has one: the family's, or the user's own."""
    quantization = family.weights.named(settings.quantization or family.weights.quantization)
    found = list[ModelFile]()
    for backend, source in family.weights.models.items():
        if local := settings.lora_files.get(backend):
            found.append(ModelFile(backend=backend, origin=local))
        elif lora := source.lora:
            found.append(
                ModelFile(backend=backend, origin=HubFile(lora.repo, lora.file.format(quantization=quantization)))
            )
    return tuple(found)


def check_loras(family: FamilyFile, settings: ModelSettings, backends: Collection[str]) -> None:
    """Raises ModelError if the weights of one of the backends need a LoRA and there is none."""
    for backend in backends:
        source = family.weights.models[backend]
        if source.needs_lora and not source.lora and backend not in settings.lora_files:
            raise ModelError(
                f"{family.name}: {backend} is another model without its LoRA: make one with llama.cpp's "
                f'convert_lora_to_gguf.py, and set {backend} = "…" under [models.lora_files]'
            )


async def locate(file: ModelFile, *, report: ReportBytes, damaged: bool = False) -> Path:
    """The user's own file as it is; else from the cache, where the hub's is downloaded, or another made, if missing.

    `report(backend, bytes done, bytes in all)` is called on the event loop as bytes arrive. Returns at once when
    cancelled; the partial download stays, and the next start resumes it. With `damaged` the cached file is not trusted.
    Raises ModelError with the user's next step, ConfigError.
    """
    if isinstance(file.origin, Path):
        return file.origin
    if isinstance(file.origin, Recipe):  # what is damaged is always made again
        return await made.make_model(file.origin, partial(report, file.backend))
    loop, stop = asyncio.get_running_loop(), threading.Event()

    def on_loop(done: int, total: int) -> None:
        loop.call_soon_threadsafe(report, file.backend, done, total)

    try:
        work = partial(fetch, file.origin.repo, file.origin.file, report=on_loop, stop=stop, damaged=damaged)
        return await _in_daemon_thread(work)
    finally:
        stop.set()


async def locate_intact(file: ModelFile, *, report: ReportBytes, thorough: bool = False) -> Path:
    """What `locate` finds, checked to be complete; a damaged file of the hub's is fetched again, once.

    `thorough` also verifies its SHA-256, which reads all of it. Raises ModelError.
    """
    path = await locate(file, report=report)
    try:
        check_complete(path)
        if thorough:
            await _in_daemon_thread(partial(_check_content, path))
    except DamagedFile as error:
        if file.local is not None:
            raise
        log.warning("%s is damaged: fetching it again", path)
        try:
            path = await locate(file, report=report, damaged=True)
        except ModelError as also:
            raise type(also)(f"{path} is damaged, and cannot be fetched again: {also}") from error
        check_complete(path)
    return path


def check_complete(path: Path) -> Header:
    """The header of a GGUF that is as long as its header says. Raises DamagedFile, ModelError."""
    header = model_header(path)
    if header.file_bytes < header.needed_bytes:
        raise DamagedFile(
            f"{path}: cut off: {header.file_bytes} bytes of {header.needed_bytes}; delete it and start again, or copy "
            "it once more"
        )
    return header


def _check_content(path: Path) -> Path:
    """Raises DamagedFile if the content's SHA-256 is not the one in its cache name."""
    expected = sha256_in_name(path)
    if expected and (found := sha256_of(path)) != expected:
        raise DamagedFile(f"{path}: its SHA-256 is {found}, not {expected}")
    return path


async def _in_daemon_thread(work: Callable[[], Path]) -> Path:
    # Not asyncio.to_thread: loop and interpreter wait for its threads at exit, and a download that waits for a dead
    # network would delay Ctrl-C for a minute. Killing this thread loses nothing: its file is resumed.
    done: Future[Path] = Future()
    done.set_running_or_notify_cancel()
    threading.Thread(target=_settle, args=(done, work), name="download", daemon=True).start()
    return await asyncio.wrap_future(done)


def _settle(done: Future[Path], work: Callable[[], Path]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # noqa: BLE001 # any error belongs to the waiting task
        done.set_exception(error)
