"""What the handlers of files and of batches share: the storage, errors of the disk, paging, and files as responses."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from proxy.batches.jobs import BatchJobs
from proxy.batches.storage import NoStorage
from proxy.batches.uploads import UploadedFiles
from proxy.errors import BatchesOff, NotFound, StorageFull
from proxy.faults import invalid
from proxy.telemetry.observe import CLIENT

log = logging.getLogger(__name__)

T = TypeVar("T")
STORED_JOBS: web.AppKey[BatchJobs | NoStorage] = web.AppKey("batches")
JSONL = "application/jsonl"
_PIECE_BYTES = 64 * 2**10  # of a file that is sent


def owner_of(request: web.Request) -> str:
    """Whose files and batches the request is about: those of its API key."""
    client: str = request.get(CLIENT, "")
    return client


def stored(request: web.Request) -> tuple[UploadedFiles, BatchJobs]:
    """The files and the jobs that this server keeps. Raises BatchesOff."""
    jobs = request.app[STORED_JOBS]
    if isinstance(jobs, NoStorage):
        raise BatchesOff(jobs.reason)
    return UploadedFiles(jobs.storage), jobs


def kept_s_of(request: web.Request) -> float:
    """How long they are kept, in seconds."""
    return stored(request)[1].storage.limits.kept_s


async def in_thread(request: web.Request, work: Callable[[web.Request], T]) -> T:
    """The result of `work`, which reads or writes files. Raises StorageFull and NotFound."""
    with disk_errors():
        return await asyncio.to_thread(work, request)


@contextmanager
def disk_errors() -> Iterator[None]:
    """What the disk refuses is no fault of the client's, and not one that trying again at once would change."""
    try:
        yield
    except ConnectionError:  # of the client
        raise
    except FileNotFoundError as error:
        raise NotFound("it was deleted a moment ago") from error
    except OSError as error:
        raise StorageFull(f"the disk of this server does not take it: {error.strerror}") from error


def limit_of(request: web.Request, *, most: int, usual: int) -> int:
    """How many rows a list may have. Raises Invalid."""
    given = request.query.get("limit")
    return usual if given is None else number_of(given, "limit", 1, most)


def number_of(given: str, field: str, least: int, most: int) -> int:
    """A number that came as text. Raises Invalid."""
    number = least - 1
    with suppress(ValueError):
        number = int(given[:20])
    if not least <= number <= most:
        raise invalid(field, f"must be an integer from {least} to {most}", kind="out_of_range", given=given)
    return number


@contextmanager
def _sending(response: web.StreamResponse) -> Iterator[None]:
    """A file that is deleted meanwhile ends the connection: too late for an error, and the client sees it is short."""
    try:
        yield
    except ConnectionError:  # the client has disconnected
        pass
    except OSError as error:
        log.warning("a file of a batch could not be sent to its end: %s", error)
        response.force_close()


async def send_files(request: web.Request, paths: Sequence[Path]) -> web.StreamResponse:
    """Respond with the contents of the files, one after the other, piece by piece."""
    with disk_errors():
        size = await asyncio.to_thread(lambda: sum(path.stat().st_size for path in paths))
    response = web.StreamResponse(headers={"Content-Type": JSONL, "Content-Length": str(size)})
    with _sending(response):
        await response.prepare(request)
        for path in paths if request.method != "HEAD" else ():
            with path.open("rb") as file:
                while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                    await response.write(piece)
        await response.write_eof()
    return response
