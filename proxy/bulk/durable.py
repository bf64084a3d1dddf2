"""Files that are there completely or not at all, also after kill -9 and after a power cut."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".tmp"  # at the end of the name of a file that is being written


def write_durably(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write` with a file whose content then is at `path`, in place of what was there. Raises OSError."""
    with durable_file(path) as file:
        write(file)


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears at `path` when the block ends; if it raises, what was at `path` stays."""
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")  # hidden: readers of the folder skip it
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in the folder durable: a renamed file has its new name after a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
