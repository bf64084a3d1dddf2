"""GGUF name → verified local file."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher.errors import DamagedFile, ModelError
from launcher.hub.cache import sha256_of
from launcher.hub.cache_entry import sha256_named
from launcher.hub.download import fetch
from launcher.models.gguf_file import read_header
from launcher.settings.config import ModelSettings
from launcher.settings.family import Family
from proxy.contract.gguf import Header

log = logging.getLogger(__name__)


Report = Callable[[str, int, int], None]  # a backend's name, the bytes that are here, and all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """What must be served by one backend: a file of a hub's repository, or the user's own file."""

    backend: str
    repo: str
    filename: str
    local: Path | None


def model_files(family: Family, settings: ModelSettings) -> tuple[ModelFile, ...]:
    """One file per backend of the family, in its order.

    Raises ModelError for a quantisation that is not offered.
    """
    weights = family.weights
    quantization = weights.named(settings.quantization or weights.quantization)
    if quantization not in weights.quantizations:
        offered = ", ".join(weights.quantizations)
        raise ModelError(f'[models] quantization = "{quantization}": {family.name} is offered as {offered}')
    return tuple(
        ModelFile(
            backend=backend,
            repo=source.repo,
            filename=source.file.format(quantization=quantization),
            local=settings.files.get(backend),
        )
        for backend, source in weights.models.items()
    )


async def locate(model_files: ModelFile, *, report: Report, damaged: bool = False) -> Path:
    """The user's own file as it is, else the hub's file: from the cache, or downloaded into it.

    `report(backend, bytes done, bytes in all)` is called on the event loop as bytes arrive. Cancelled, it returns at
    once; what has arrived stays, and the next start goes on from it. With `damaged` what is in the cache is not
    trusted. Raises ModelError with the user's next step, ConfigError.
    """
    if model_files.local is not None:
        return model_files.local
    loop, stop = asyncio.get_running_loop(), threading.Event()

    def on_loop(done: int, total: int) -> None:
        loop.call_soon_threadsafe(report, model_files.backend, done, total)

    try:
        work = partial(fetch, model_files.repo, model_files.filename, report=on_loop, stop=stop, damaged=damaged)
        return await _in_daemon_thread(work)
    finally:
        stop.set()


async def whole(model_files: ModelFile, *, report: Report, thorough: bool = False) -> Path:
    """What `locate` finds, with all that it names; a damaged file of the hub's is fetched again, once.

    `thorough` also reads it whole, for its SHA-256. Raises ModelError.
    """
    path = await locate(model_files, report=report)
    try:
        check_whole(path)
        if thorough:
            await _in_daemon_thread(partial(_check_content, path))
    except DamagedFile as error:
        if model_files.local is not None:
            raise
        log.warning("%s is damaged: fetching it again", path)
        try:
            path = await locate(model_files, report=report, damaged=True)
        except ModelError as also:
            raise type(also)(f"{path} is damaged, and cannot be fetched again: {also}") from error
        check_whole(path)
    return path


def check(path: Path, *, architecture: str, dimensions: int) -> None:
    """Raises ModelError unless the file is a whole GGUF of that architecture whose vectors have that many numbers."""
    header = check_whole(path)
    if (found := header.metadata.get("general.architecture")) != architecture:
        raise ModelError(
            f"{path}: its architecture is {found}, this family's is {architecture}; give a file of this family, "
            "or name another `family` in the configuration"
        )
    if (length := header.metadata.get(f"{architecture}.embedding_length")) != dimensions:
        raise ModelError(
            f"{path}: its vectors have {length} dimensions, this family's have {dimensions}; give a file of this "
            "family, or name another `family` in the configuration"
        )


def check_whole(path: Path) -> Header:
    """The header of a GGUF that lacks nothing of what it names. Raises DamagedFile, ModelError."""
    header = read_header(path)
    if header.file_bytes < header.needed_bytes:
        raise DamagedFile(
            f"{path}: cut off: {header.file_bytes} bytes of {header.needed_bytes}; delete it and start again, or copy "
            "it once more"
        )
    return header


def _check_content(path: Path) -> Path:
    """Raises DamagedFile if the content is not what the cache calls it."""
    expected = sha256_named(path)
    if expected and (found := sha256_of(path)) != expected:
        raise DamagedFile(f"{path}: its SHA-256 is {found}, not {expected}")
    return path


async def _in_daemon_thread(work: Callable[[], Path]) -> Path:
    # Not asyncio.to_thread: its threads are waited for when the loop and the interpreter end, and a download that
    # waits for a dead network would hold up Ctrl-C for a minute. Nothing is lost with this one: its file is resumed.
    done: Future[Path] = Future()
    done.set_running_or_notify_cancel()
    threading.Thread(target=_settle, args=(done, work), name="download", daemon=True).start()
    return await asyncio.wrap_future(done)


def _settle(done: Future[Path], work: Callable[[], Path]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # noqa: BLE001 # whatever it is belongs to the one who waits
        done.set_exception(error)
