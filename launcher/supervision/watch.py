"""Is it alive? A process that ended, or that stopped answering."""

import asyncio
from collections.abc import Awaitable, Callable

from launcher.settings.config import SupervisionSettings

Probe = Callable[[], Awaitable[bool]]


async def watch(
    process: asyncio.subprocess.Process, probe: Probe, policy: Callable[[], SupervisionSettings]
) -> int | None:
    """The exit code when it ends; None when it lives but missed `max_misses` probes in a row.

    Until it has answered once it is starting, which may take `stall_s`. The policy is read for each look: a
    reload may change it while the process runs.
    """
    misses, up = 0, False
    while True:
        now = policy()
        try:
            async with asyncio.timeout(now.probe_interval_s):
                return await process.wait()
        except TimeoutError:
            answered = await probe()
        misses, up = 0 if answered else misses + 1, up or answered
        if misses >= (now.max_misses if up else max(now.max_misses, int(now.stall_s / now.probe_interval_s))):
            return None
