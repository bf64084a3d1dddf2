"""Follows what is added to a log across its rotation: each run has a file of its own, older ones are renamed."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self


class Follower:
    """Reads a file that another process writes: from its end on, and the file that replaces it from its beginning.

    With `earlier_bytes` it begins so many before the end, at the first line that begins there.
    """

    def __init__(self, path: Path, earlier_bytes: int = 0) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._open()
        if self._file:
            size = self._file.seek(0, os.SEEK_END)
            self._file.seek(max(0, size - earlier_bytes))
            if size > earlier_bytes > 0:
                self._file.seek(-1, os.SEEK_CUR)
                self._file.readline()  # the rest of the line before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def lines(self) -> list[str]:
        """The complete lines added since the last call; of a file that was replaced, also an unfinished last line."""
        found = self._read()
        if self._was_replaced():
            found += self._read()  # what was added to the old file just before it was replaced
            found, self._rest = [*found, *([self._rest] if self._rest else [])], b""
            self._open()
            found += self._read()
        return [line.decode(errors="replace") for line in found]

    def _read(self) -> list[bytes]:
        if self._file is None:
            return []
        if self._file.tell() > os.fstat(self._file.fileno()).st_size:  # truncated and written again
            self._file.seek(0)
            self._rest = b""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return lines

    def _was_replaced(self) -> bool:
        """Whether the path leads to another file now. No file at all is one that is still to be written."""
        with suppress(OSError):
            return self._file is None or not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        return False

    def _open(self) -> None:
        if self._file:
            self._file.close()
        self._file = None
        with suppress(OSError):  # there is none yet, or it was just renamed
            self._file = self._path.open("rb")
