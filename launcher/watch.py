"""Is it alive? A process that ended, or that stopped answering."""

import asyncio
from collections.abc import Awaitable, Callable

from launcher.config import SupervisionSettings

Probe = Callable[[], Awaitable[bool]]


async def watch(process: asyncio.subprocess.Process, probe: Probe, policy: SupervisionSettings) -> int | None:
    """The exit code when it ends; None when it lives but missed `max_misses` probes in a row.

    Until it has answered once it is starting, which may take `stall_s`.
    """
    misses, patience = 0, max(policy.max_misses, int(policy.stall_s / policy.probe_interval_s))
    while misses < patience:
        try:
            async with asyncio.timeout(policy.probe_interval_s):
                return await process.wait()
        except TimeoutError:
            if await probe():
                misses, patience = 0, policy.max_misses
            else:
                misses += 1
    return None
