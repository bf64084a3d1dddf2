"""What a disk can still take, in numbers and in words."""

import shutil
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """What is free for this user where the folder is, or is to be."""
    return shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free


def amount(size: int) -> str:
    """A number of bytes for people."""
    if size >= 2**30 or not size:
        return f"{size / 2**30:.2f} GiB"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size} bytes"
