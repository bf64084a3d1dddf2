"""The private folder where our sockets live, gone with us however we end."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from launcher.errors import ConfigError

LONGEST_PATH = 107  # bytes of a UNIX socket's path: sun_path of unix(7), less its zero
LONGEST_NAME = 32  # bytes of a socket's name, the longest of ours and room for another family's

# Waits for the end of its standard input, which comes when we close it or are killed, and removes the folder.
SWEEP = 'trap "" INT TERM HUP; while read -r _; do :; done; rm -rf -- "$1"'


@asynccontextmanager
async def private_folder(base: Path) -> AsyncIterator[Path]:
    """A new folder below `base`, mode 0700, that only this user can enter; removed after the block.

    A small shell outlives us to remove it even after a SIGKILL: llama-server leaves its socket file behind. Raises
    ConfigError where the path is too long for sockets.
    """
    if (longest := LONGEST_PATH - LONGEST_NAME - len("/trillama-xxxxxxxx/")) < len(os.fsencode(base)):
        raise ConfigError(f"{base} is too long a path for sockets: set runtime_dir to one of at most {longest} bytes")
    base.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="trillama-", dir=base))
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
