"""SIGINT and SIGTERM are a normal end: what runs is cancelled, and cleans up."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import TypeVar

from launcher import notify

T = TypeVar("T")


async def until_signal(session: Coroutine[None, None, T]) -> T | None:
    """What the session returns; None if SIGINT or SIGTERM cancelled it, which is a normal end."""
    task = asyncio.create_task(session)
    stopped = asyncio.Event()

    def stop() -> None:
        notify.tell(STOPPING="1")
        stopped.set()
        task.cancel()

    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
        return None
