"""What a disk can still take, in numbers and in words; and files that are whole, or not there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """What is free for this user where the folder is, or is to be."""
    return shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free


def amount(size: int) -> str:
    """A number of bytes for people."""
    if size >= 2**30 or not size:
        return f"{size / 2**30:.2f} GiB"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size} bytes"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A file to be written in the block, which becomes `path` when it is whole; nothing stays if it is not.

    Raises OSError, which always names a file.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.rename(path)
    except BaseException as error:  # cancelled, too
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a write does not know where
            error.filename = str(path)
        raise
