"""What has arrived of a file, beside the cache's blobs: locked, open at its end, and never larger than announced."""

import fcntl
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from huggingface_hub import constants

from launcher.errors import HubUnreachable
from launcher.hub.cache_entry import INCOMPLETE

MOST_TIMES = 4  # as many bytes as the file has may come, before the hub is no hub


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadTarget:
    """How many bytes are announced, who is told of those that arrive, and when no more are wanted."""

    size: int
    report: Callable[[int, int], None]
    stop: Event


class PartialDownload(io.BufferedWriter):
    """Every write reports the bytes so far, or raises CancelledError, or HubUnreachable for more than announced."""

    def __init__(self, path: Path, transfer: DownloadTarget) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self.path, self._transfer, self._received = path, transfer, 0

    def write(self, data: bytes) -> int:  # type: ignore[override]  # http_get writes nothing but bytes
        if self._transfer.stop.is_set():
            raise CancelledError
        size = self._transfer.size
        self._received += len(data)
        # Some times over: a connection that breaks off, to a server without ranges, begins from the start.
        if self.tell() + len(data) > size or self._received > MOST_TIMES * size:
            raise HubUnreachable(
                f"{constants.ENDPOINT} sends more than the {size} bytes that it announced: check HF_ENDPOINT"
            )
        written = super().write(data)
        self._transfer.report(self.tell(), size)
        return written

    def empty(self) -> None:
        """Begin from the start."""
        self.seek(0)
        self.truncate()


@contextmanager
def open_locked(blob: Path, transfer: DownloadTarget) -> Iterator[PartialDownload]:
    """The half of that content: another launcher may be fetching the same file, and is waited for.

    A blob that lost its end, as by a power cut, becomes such a half.
    """
    half = blob.with_name(f"{blob.name}{INCOMPLETE}")
    while True:
        with PartialDownload(half, transfer) as partial:
            fcntl.flock(partial, fcntl.LOCK_EX)
            if not _is_at(half, partial):
                continue
            if not partial.tell() and _is_cut_off(blob, transfer.size):
                blob.replace(half)
                continue
            yield partial
            return


def _is_at(path: Path, partial: PartialDownload) -> bool:
    """Whether what we opened still has its name; who held it may have removed it, as damaged or as no longer wanted."""
    try:
        return os.path.samestat(path.stat(), os.fstat(partial.fileno()))
    except FileNotFoundError:
        return False


def _is_cut_off(blob: Path, size: int) -> bool:
    return blob.is_file() and not blob.is_symlink() and 0 < blob.stat().st_size < size
