"""The C allocator, told to give large blocks back."""

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD = -3  # malloc.h of glibc
LARGE = 2**20


def give_back_large() -> None:
    """Have glibc return blocks of LARGE bytes to the system when they are freed.

    Left alone it keeps what it has once seen freed, up to 32 MiB a block: bodies and vectors would leave the process at
    the size of its busiest moment, and twice that in holes (measured: 1.6 GB instead of 0.8 after 48 large answers).
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
