"""The private folder where our sockets live, gone with us however we end."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

# Waits for the end of its standard input, which comes when we close it or are killed, and removes the folder.
SWEEP = 'trap "" INT TERM HUP; while read -r _; do :; done; rm -rf -- "$1"'


@asynccontextmanager
async def private_folder(base: Path) -> AsyncIterator[Path]:
    """A new folder below `base`, mode 0700, that only this user can enter; removed after the block.

    A small shell outlives us to remove it even after a SIGKILL: llama-server leaves its socket file behind.
    """
    base.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="trillama-", dir=base))
    sweeper = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", SWEEP, "trillama-sweeper", str(folder), stdin=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        await sweeper.communicate(b"")  # closes its standard input
