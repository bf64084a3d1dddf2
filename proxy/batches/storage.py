"""The folder of the batch APIs: private, bounded in bytes, with records that are whole or not there."""

import logging
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from proxy.bulk.durable import write_durably
from proxy.errors import StorageFull

log = logging.getLogger(__name__)

MAX_ENTRIES = 10_000  # files and jobs: each is read when they are listed
COUNT_AGAIN_S = 10.0  # other processes write and delete here, too
_BLOCK = 512  # bytes, the unit of `st_blocks`
_ID = re.compile(r"[a-z]+[-_][0-9a-f]{32}")


class StoredRecord(BaseModel):
    """What is known of a file or a job, as JSON on disk."""

    model_config = ConfigDict(frozen=True, extra="ignore")


R = TypeVar("R", bound=StoredRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What is kept for clients: bytes in all, bytes and lines of one file, seconds after a job's end."""

    total_bytes: int
    file_bytes: int
    lines: int
    kept_s: float


class BatchStorage:
    """The folder, made if need be. Raises OSError."""

    def __init__(self, folder: Path, limits: BatchLimits) -> None:
        self.limits = limits
        self.files, self.jobs = folder / "files", folder / "jobs"
        for each in (folder, self.files, self.jobs):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock_file = folder / "owner.lock"
        self._folder = folder
        self._used = 0
        self._counted_at = -COUNT_AGAIN_S

    def take(self, size: int) -> None:
        """Count that many bytes that are about to be written. Blocks. Raises StorageFull."""
        now = time.monotonic()
        if now - self._counted_at >= COUNT_AGAIN_S:
            self._used, self._counted_at = bytes_kept(self._folder), now
        if self._used + size > self.limits.total_bytes:
            self._counted_at = -COUNT_AGAIN_S  # something may be deleted until the next time
            raise StorageFull(
                f"{self._used} bytes of batches are kept, and max_batch_bytes is {self.limits.total_bytes}: delete "
                "files and finished batches, or wait until they are too old"
            )
        self._used += size

    def check_entries(self) -> None:
        """Raises StorageFull."""
        if len(os.listdir(self.files)) + len(os.listdir(self.jobs)) >= MAX_ENTRIES:  # noqa: PTH208 # names alone
            raise StorageFull(f"{MAX_ENTRIES} files and batches are kept: delete those that are not needed")


@dataclass(frozen=True, slots=True)
class NoStorage:
    """Why there is none."""

    reason: str


def opened_storage(folder: Path | None, limits: BatchLimits) -> BatchStorage | NoStorage:
    """The storage, or why this server keeps no batches. A folder that cannot be made costs the other routes nothing."""
    if folder is None:
        return NoStorage("this server keeps no batches: set batches_dir under [proxy]")
    try:
        return BatchStorage(folder, limits)
    except OSError as error:
        log.warning("batches_dir = %s: %s: the batch APIs are off", folder, error.strerror)
        return NoStorage(f"this server keeps no batches: its folder cannot be used ({error.strerror})")


def new_id(prefix: str) -> str:
    return prefix + uuid.uuid4().hex


def is_id(given: str, prefix: str) -> bool:
    """Whether it is one that `new_id` makes, so that it can be the name of a file."""
    return given.startswith(prefix) and _ID.fullmatch(given) is not None


def save_record(path: Path, record: StoredRecord) -> None:
    """Write it durably. Raises OSError."""
    write_durably(path, lambda file: file.write(record.model_dump_json().encode()))


def load_record(path: Path, kind: type[R]) -> R | None:
    """The record; None if there is none, or a disk has damaged it."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read: %s", path, error)
        return None


def bytes_kept(folder: Path) -> int:
    """On disk, of all files below the folder; one with two names counts once."""
    return sum({(info.st_dev, info.st_ino): info.st_blocks * _BLOCK for info in _infos(folder)}.values())


def _infos(folder: Path) -> Iterator[os.stat_result]:
    for inside, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.stat(os.path.join(inside, name))  # noqa: PTH116, PTH118 # thousands of files
            except OSError:
                continue  # deleted meanwhile
