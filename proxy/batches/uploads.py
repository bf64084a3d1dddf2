"""Uploaded files: received in pieces onto the disk, kept until deleted or too old; each key sees its own."""

import asyncio
import math
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from proxy.batches.storage import BatchStorage, StoredRecord, is_id, load_record, new_id, save_record
from proxy.bulk.durable import sync_folder
from proxy.errors import BodyTooLarge, NotFound
from proxy.quoting import quoted

FILE_PREFIX = "file-"
RECORD, CONTENT = "record.json", "content.jsonl"
COUNTED_BYTES = 2**20  # of the storage, at a time


class FileRecord(StoredRecord):
    """An uploaded file. `expires_at` is its client's wish."""

    id: str
    client: str
    filename: str
    purpose: str
    bytes: int
    created_at: float
    expires_at: float | None = None


class Upload:
    """A file that is being received."""

    def __init__(self, storage: BatchStorage, folder: Path, file: BinaryIO) -> None:
        self.size = 0
        self._storage, self._folder, self._file = storage, folder, file
        self._counted = 0
        self._kept = False

    def write(self, chunk: bytes) -> None:
        """Blocks. Raises BodyTooLarge, StorageFull and OSError."""
        self.size += len(chunk)
        if self.size > self._storage.limits.file_bytes:
            raise BodyTooLarge(f"the file is larger than {self._storage.limits.file_bytes} bytes: send several files")
        while self._counted < self.size:
            self._storage.take(COUNTED_BYTES)
            self._counted += COUNTED_BYTES
        self._file.write(chunk)

    async def keep(self, record: FileRecord) -> None:
        """Make it visible."""
        await asyncio.to_thread(self._keep, record)

    @property
    def id(self) -> str:
        return self._folder.name

    def _keep(self, record: FileRecord) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        save_record(self._folder / RECORD, record)
        sync_folder(self._folder.parent)
        self._kept = True

    def close(self) -> None:
        """Remove what was not kept."""
        self._file.close()
        if not self._kept:
            shutil.rmtree(self._folder, ignore_errors=True)


class UploadedFiles:
    """The files in the storage. All methods block, but for `receiving`."""

    def __init__(self, storage: BatchStorage) -> None:
        self._storage = storage

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Upload]:
        """A file to write in the block; it is removed unless it was kept. Raises StorageFull and OSError."""
        upload = await asyncio.to_thread(self._opened)
        try:
            yield upload
        finally:
            await asyncio.to_thread(upload.close)

    def get(self, client: str, file_id: str) -> FileRecord:
        """Raises NotFound, also for another key's."""
        record = (
            load_record(self._storage.files / file_id / RECORD, FileRecord) if is_id(file_id, FILE_PREFIX) else None
        )
        if record is None or record.client != client:
            raise NotFound(f"there is no file {quoted(file_id)}: it never existed, was deleted or is too old")
        return record

    def of(self, client: str) -> list[FileRecord]:
        """The key's files, the newest first."""
        found = [one for one in self._all() if one.client == client]
        return sorted(found, key=lambda one: one.created_at, reverse=True)

    def content(self, file_id: str) -> Path:
        return self._storage.files / file_id / CONTENT

    def delete(self, file_id: str) -> None:
        shutil.rmtree(self._storage.files / file_id, ignore_errors=True)

    def delete_old(self) -> None:
        """Delete the files that are too old, and what crashed uploads left."""
        now, kept_s = time.time(), self._storage.limits.kept_s
        for record in self._all():
            if now > min(record.expires_at or math.inf, record.created_at + kept_s):
                self.delete(record.id)
        delete_leftovers(self._storage.files, RECORD)

    def _all(self) -> list[FileRecord]:
        paths = (folder / RECORD for folder in self._storage.files.iterdir())
        return [record for path in paths if (record := load_record(path, FileRecord))]

    def _opened(self) -> Upload:
        self._storage.check_entries()
        folder = self._storage.files / new_id(FILE_PREFIX)
        folder.mkdir(mode=0o700)
        return Upload(self._storage, folder, (folder / CONTENT).open("xb"))


LEFTOVER_S = 3600.0 * 24  # after this long, no upload is still in progress


def delete_leftovers(folder: Path, record: str) -> None:
    """Delete the folders in it that never got their record, or have a hidden name: half made or half deleted."""
    for one in folder.iterdir():
        incomplete = one.name.startswith(".") or not (one / record).exists()
        if incomplete and time.time() - one.lstat().st_mtime > LEFTOVER_S:
            shutil.rmtree(one, ignore_errors=True)
