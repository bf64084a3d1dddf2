"""SIGINT, SIGTERM and a hangup of our terminal are a normal end: what runs is cancelled, and cleans up."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import TypeVar

from launcher.systemd import notify

T = TypeVar("T")


async def until_signal(session: Coroutine[None, None, T], *, on_hangup: Callable[[], None] | None = None) -> T | None:
    """The session's result; None if SIGINT or SIGTERM cancelled it, which is a normal end.

    With `on_hangup`, SIGHUP calls it, as it tells services to read their settings again; but if our terminal is gone,
    SIGHUP ends the session too. Without `on_hangup`, SIGHUP keeps its default.
    """
    task = asyncio.create_task(session)
    stopped = asyncio.Event()

    def stop() -> None:
        notify.tell(STOPPING="1")
        stopped.set()
        task.cancel()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop)
    if on_hangup:
        ends = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # nohup ignores it
        loop.add_signal_handler(signal.SIGHUP, lambda: stop() if ends and not _has_terminal() else on_hangup())
    try:
        return await task
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
        return None


async def until_second_signal(
    session: Callable[[asyncio.Event], Coroutine[None, None, T]], on_first: Callable[[], None]
) -> T | None:
    """The session's result. SIGINT or SIGTERM sets its event, a second one cancels it; then the result is None.

    `on_first` is called at the first signal.
    """
    stop = asyncio.Event()
    task = asyncio.create_task(session(stop))
    cancelled = False

    def on_signal() -> None:
        nonlocal cancelled
        if stop.is_set():
            cancelled = True
            task.cancel()
        else:
            stop.set()
            on_first()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, on_signal)
    try:
        return await task
    except asyncio.CancelledError:
        if not cancelled:
            raise
        return None


def _has_terminal() -> bool:
    """Whether we have a controlling terminal; on a hangup the kernel takes it away from all its processes."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
