"""The log of a child's output: one file per backend, bounded in size, with the files of earlier runs beside it."""

import asyncio
import logging
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

FILE_BYTES = 4 * 2**20  # llama-server writes errors only; a child that floods its log must not fill the disk
EARLIER_FILES = 5
LONGEST_LINE = 8192  # bytes; a longer one is cut into several
LAST_LINES = 20
END_S = 1.0  # a process that outlived the child may still hold its pipe open


class ChildLog:
    """The log of one backend: `path` holds this run's lines, `path`.1 those of the run before, up to EARLIER_FILES.

    A run that writes more than FILE_BYTES continues in a new file. All are private: a line may quote a user's text.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tail: deque[str] = deque(maxlen=LAST_LINES)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of this run."""
        return tuple(self._tail)

    @property
    def telling(self) -> str:
        """The line that best explains why this run ended; empty if it wrote none."""
        return telling_line(self._tail)

    @asynccontextmanager
    async def pipe(self) -> AsyncIterator[int]:
        """The writing end of a pipe for a new run's output; its lines are kept until the block ends.

        The descriptor belongs to the caller, who closes it once the child has it.
        """
        self._tail.clear()
        file = _File(self.path, maxBytes=FILE_BYTES, backupCount=EARLIER_FILES, encoding="utf-8", delay=True)
        with suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for one in self.path.parent.glob(f"{self.path.name}*"):
                if one.is_file():  # written by a version that let others read them
                    one.chmod(0o600)
            if self.path.stat().st_size:
                file.doRollover()
        reader, writer = os.pipe()
        self._lines = _Lines(self, file)
        open_reader = os.fdopen(reader, "rb")
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self._lines, open_reader)
        try:
            yield writer
            await self.complete()
        finally:
            transport.close()
            with suppress(OSError):
                file.close()

    async def complete(self) -> None:
        """Wait, END_S at most, until the last line of a run that has ended is here."""
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await self._lines.ended.wait()

    def keep(self, line: str, file: logging.Handler) -> None:
        if line.strip():
            self._tail.append(line)
        file.handle(logging.makeLogRecord({"msg": line}))


def telling_line(lines: Sequence[str]) -> str:
    """The first of a run's last lines that reports a failure: later ones are consequences of it. Else the last line."""
    errors = (line for line in lines if re.search(r"error|fail|cannot|couldn't", line, re.IGNORECASE))
    return next(errors, lines[-1] if lines else "").strip()


class _File(RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=_opened)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 # logging's signature
        """Ignore it: a full disk loses lines of a log, but must not disturb the child or the other backends."""


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _Lines(asyncio.Protocol):
    """Cuts what arrives in a pipe into lines."""

    def __init__(self, log: ChildLog, file: logging.Handler) -> None:
        self.ended = asyncio.Event()
        self._log, self._file, self._rest = log, file, b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        self._keep(lines)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # the pipe's end is the end of the run
        self._keep([self._rest] if self._rest else [])
        self.ended.set()

    def _keep(self, lines: list[bytes]) -> None:
        for line in lines:
            self._log.keep(line.decode(errors="replace"), self._file)
