"""Messages to systemd (sd_notify(3)): ready, status, watchdog, stopping. No-ops without systemd."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable


def tell(**facts: str) -> None:
    """Send `NAME=value` lines to $NOTIFY_SOCKET, e.g. `tell(READY="1", STATUS="3 of 3 backends ready")`.

    Nothing is sent without the variable, and nothing is raised if the socket is gone: serving matters more.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address  # an abstract socket is written with @
    message = "\n".join(f"{name}={value}" for name, value in facts.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(message.encode(), name)
        except OSError:
            return


async def feed_watchdog(alive: Callable[[], Awaitable[bool]]) -> None:
    """Feed systemd's watchdog twice per WatchdogSec, but only while `alive` returns True, until cancelled.

    After a False it is called again soon: a proxy that is just restarting must not cost the whole service.
    """
    interval_us = os.environ.get("WATCHDOG_USEC")
    if not interval_us:
        return
    while True:
        fed = await alive()
        if fed:
            tell(WATCHDOG="1")
        await asyncio.sleep(int(interval_us) / (2e6 if fed else 40e6))
