"""Our own output when nobody may read it any more: lines that cannot be written are dropped, and serving continues."""

import errno
import os
from typing import IO, TypeVar, cast

from rich.console import Console

C = TypeVar("C", bound=Console)

GONE = frozenset({errno.EIO, errno.EPIPE, errno.ENXIO})  # a terminal or a reader that does not come back


class LosingStream:
    """A text stream that drops what it cannot write: the disk is full, the terminal is gone, nobody reads the pipe."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return str(getattr(self._stream, "encoding", "utf-8"))

    def _lose(self, error: OSError) -> None:
        """Point a stream that is gone at /dev/null: its buffer would fail again at exit, and change the exit code."""
        if error.errno in GONE:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def losing(console: C) -> C:
    """The same console; from now on it drops what it cannot write."""
    console.file = cast("IO[str]", LosingStream(console.file))  # it has those parts of a stream that are used
    return console
