"""A partial download beside the cache's blobs: locked, opened for appending, never larger than announced."""

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

MAX_RECEIVED = 4  # times the file's size, over all retries; a hub that sends more is not a hub


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadTarget:
    """The announced size, the progress callback, and the event that stops the download."""

    size: int
    report: Callable[[int, int], None]
    stop: Event


class PartialDownload(io.BufferedWriter):
    """Each write reports the bytes so far. Raises CancelledError if stopped, HubUnreachable for more than announced."""

    def __init__(self, path: Path, target: DownloadTarget) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self.path, self._target, self._received = path, target, 0

    def write(self, data: bytes) -> int:  # type: ignore[override]  # http_get only writes bytes
        if self._target.stop.is_set():
            raise CancelledError
        size = self._target.size
        self._received += len(data)
        # Several times the size: after a lost connection, a server without ranges sends the file from the start.
        if self.tell() + len(data) > size or self._received > MAX_RECEIVED * size:
            raise HubUnreachable(
                f"{constants.ENDPOINT} sends more than the {size} bytes that it announced: check HF_ENDPOINT"
            )
        written = super().write(data)
        self._target.report(self.tell(), size)
        return written

    def empty(self) -> None:
        """Discard the content and start over."""
        self.seek(0)
        self.truncate()


@contextmanager
def open_locked(blob: Path, target: DownloadTarget) -> Iterator[PartialDownload]:
    """Open and lock the partial download of that blob; waits while another launcher fetches the same file.

    A truncated blob, as after a power cut, becomes a partial download again.
    """
    path = blob.with_name(f"{blob.name}{INCOMPLETE}")
    while True:
        with PartialDownload(path, target) as partial:
            fcntl.flock(partial, fcntl.LOCK_EX)
            if not _is_still_at(path, partial):
                continue
            if not partial.tell() and _is_truncated(blob, target.size):
                blob.replace(path)
                continue
            yield partial
            return


def _is_still_at(path: Path, partial: PartialDownload) -> bool:
    """Whether the opened file still has its name; the process that held the lock may have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(partial.fileno()))
    except FileNotFoundError:
        return False


def _is_truncated(blob: Path, size: int) -> bool:
    return blob.is_file() and not blob.is_symlink() and 0 < blob.stat().st_size < size
