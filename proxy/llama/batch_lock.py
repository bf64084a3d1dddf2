"""A file lock that two proxies share during a handover, so that a backend has one batch in flight."""

import asyncio
import fcntl
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_POLL_S = 0.002  # only while another process has it


class BatchLock:
    """Processes get it in turn; one that ends releases it. Takes a few microseconds while no other process has it.

    There are two files: the process that has locked the second one is the next to lock the first.
    """

    def __init__(self, path: Path) -> None:
        self._held = path.open("wb")
        self._next = path.with_suffix(".next").open("wb")
        self._own = asyncio.Lock()  # a process may lock the same file again while it has it

    def close(self) -> None:
        self._held.close()
        self._next.close()

    async def __aenter__(self) -> Self:
        await self._own.acquire()
        try:
            await _locked(self._next)
            try:
                await _locked(self._held)
            finally:
                fcntl.flock(self._next, fcntl.LOCK_UN)
        except BaseException:  # cancelled, too
            self._own.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self._held, fcntl.LOCK_UN)
        self._own.release()


async def _locked(file: BinaryIO) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(_POLL_S)  # not in a thread: a waiting thread cannot be cancelled
        else:
            return
