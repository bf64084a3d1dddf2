"""The private folder where our sockets live, gone with us however we end."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from launcher.errors import ConfigError
from launcher.settings.folders import LONGEST_BASE, fits_sockets, write_error

# Waits for the end of its standard input, which comes when we close it or are killed, and removes the folder.
SWEEP = 'trap "" INT TERM HUP; while read -r _; do :; done; rm -rf -- "$1"'


@asynccontextmanager
async def private_folder(base: Path) -> AsyncIterator[Path]:
    """A new folder below `base`, mode 0700, that only this user can enter; removed after the block.

    A small shell outlives us to remove it even after a SIGKILL: llama-server leaves its socket file behind. Raises
    ConfigError where the path is too long for sockets or cannot be written, DiskError where the disk is full.
    """
    if not fits_sockets(base):
        most = f"of at most {LONGEST_BASE} bytes"
        raise ConfigError(f"{base} is too long a path for sockets: set runtime_dir to one {most}")
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
    except BaseException:  # cancelled, too
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        await sweeper.communicate(b"")  # closes its standard input
