"""Free disk space, sizes for people to read, and atomic writes."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """Bytes free for this user on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free


def amount(size: int) -> str:
    """A number of bytes for people to read."""
    if size >= 2**30 or not size:
        return f"{size / 2**30:.2f} GiB"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size} bytes"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file in the block, which is renamed to `path` at its end; if the block fails, nothing is left behind.

    For what can be made again: what must outlive a power cut is written by `proxy.bulk.durable`. Raises OSError, which
    always names a file.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.rename(path)
    except BaseException as error:  # also when cancelled
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a write does not know its file's name
            error.filename = str(path)
        raise
