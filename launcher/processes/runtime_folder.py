"""The private folder with our sockets, removed when we end, in whatever way."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from launcher.errors import ConfigError
from launcher.settings.folders import LONGEST_BASE, fits_sockets, write_error

CONTROL_SOCKET = "control.sock"  # the launcher's own

# Removes the folder at the end of its standard input, which comes when we close it or are killed.
SWEEP = 'trap "" INT TERM HUP; while read -r _; do :; done; rm -rf -- "$1"'


@asynccontextmanager
async def private_folder(base: Path) -> AsyncIterator[Path]:
    """A new folder below `base`, mode 0700, that only this user can enter; removed after the block.

    A small shell outlives us and removes it even after a SIGKILL, as llama-server leaves its socket file behind. Raises
    ConfigError if the path is too long for sockets or not writable, DiskError if the disk is full.
    """
    if not fits_sockets(base):
        raise ConfigError(
            f"{base} is too long a path for sockets: set runtime_dir to one of at most {LONGEST_BASE} bytes"
        )
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="trillama-", dir=base))
    except OSError as error:
        raise write_error(error, base, "runtime_dir") from error
    try:
        sweeper = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", SWEEP, "trillama-sweeper", str(folder)),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except BaseException:  # also a cancellation: no sweeper removes the folder
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        await sweeper.communicate(b"")  # closes its standard input
