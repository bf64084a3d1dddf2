"""GGUF name → verified local file."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher.config import ModelSettings
from launcher.download import fetch
from launcher.errors import ModelError
from launcher.family import Family
from launcher.gguf_file import read_header


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What must be served by one backend: a file of a hub's repository, or the user's own file."""

    backend: str
    repo: str
    filename: str
    local: Path | None


def wanted(family: Family, settings: ModelSettings) -> tuple[Wanted, ...]:
    """One file per backend of the family, in its order.

    Raises ModelError for a quantisation that is not offered.
    """
    weights = family.weights
    quantization = weights.named(settings.quantization or weights.quantization)
    if quantization not in weights.quantizations:
        offered = ", ".join(weights.quantizations)
        raise ModelError(f'[models] quantization = "{quantization}": {family.name} is offered as {offered}')
    return tuple(
        Wanted(
            backend=backend,
            repo=source.repo,
            filename=source.file.format(quantization=quantization),
            local=settings.files.get(backend),
        )
        for backend, source in weights.models.items()
    )


async def locate(wanted: Wanted, *, report: Callable[[str, int, int], None]) -> Path:
    """The user's own file as it is, else the hub's file: from the cache, or downloaded into it.

    `report(backend, bytes done, bytes in all)` is called on the event loop as bytes arrive. Cancelled, it returns at
    once; what has arrived stays, and the next start goes on from it. Raises ModelError with the user's next step.
    """
    if wanted.local is not None:
        return wanted.local
    loop, stop = asyncio.get_running_loop(), threading.Event()

    def on_loop(done: int, total: int) -> None:
        loop.call_soon_threadsafe(report, wanted.backend, done, total)

    try:
        return await _in_daemon_thread(partial(fetch, wanted.repo, wanted.filename, report=on_loop, stop=stop))
    finally:
        stop.set()


def check(path: Path, *, architecture: str, dimensions: int) -> None:
    """Raises ModelError unless the file is a whole GGUF of that architecture whose vectors have that many numbers."""
    header = read_header(path)
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
    if header.file_bytes < header.needed_bytes:
        raise ModelError(
            f"{path}: cut off: {header.file_bytes} bytes of {header.needed_bytes}; delete it and start again, or copy "
            "it once more"
        )


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
