"""What is added to a log, over its rotation: a run has a file of its own, and the one before keeps its lines."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self


class Follower:
    """Reads a file that others write, from its end on, and its successor from the beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._open()
        if self._file:
            self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def lines(self) -> list[str]:
        """The whole lines that were added since it was last asked; the last one of a file that is done counts too."""
        found = self._read()
        if self._is_another():
            found += self._read()  # what was added to the old one just before
            found, self._rest = [*found, *([self._rest] if self._rest else [])], b""
            self._open()
            found += self._read()
        return [line.decode(errors="replace") for line in found]

    def _read(self) -> list[bytes]:
        if self._file is None:
            return []
        if self._file.tell() > os.fstat(self._file.fileno()).st_size:  # written again from its beginning
            self._file.seek(0)
            self._rest = b""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return lines

    def _is_another(self) -> bool:
        """Whether the path has another file now; none at all is one that is still to be written."""
        with suppress(OSError):
            return self._file is None or not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        return False

    def _open(self) -> None:
        if self._file:
            self._file.close()
        self._file = None
        with suppress(OSError):  # there is none yet, or it was renamed this moment
            self._file = self._path.open("rb")
