"""The logs of the backends' processes, which the launcher writes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.contract.admin import LauncherReport
from proxy.contract.log_follower import Follower
from proxy.errors import NotFound
from proxy.quoting import quoted

EARLIER_BYTES = 64 * 2**10  # of what was written before somebody looked
MAX_LOG_LINES = 500  # at a time: the latest of what was added


class LogTail:
    """What one watcher reads of one log."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    async def lines(self) -> list[str]:
        """The lines added since the last call; at first the last ones there are."""
        return (await asyncio.to_thread(self._follower.lines))[-MAX_LOG_LINES:]


@asynccontextmanager
async def opened_log(report: LauncherReport | None, name: str) -> AsyncIterator[LogTail]:
    """The log of that backend. Raises NotFound if there is none."""
    if report is None or name not in {one.name for one in report.backends}:
        raise NotFound(f"there is no log of {quoted(name)}")
    path = Path(report.logs, f"{name}.log")
    with await asyncio.to_thread(Follower, path, EARLIER_BYTES) as follower:
        yield LogTail(follower)
