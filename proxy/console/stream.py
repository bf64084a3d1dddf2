"""The console's stream of server-sent events: the state each second, requests and log lines as they come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import orjson

from proxy.console.console import Console
from proxy.console.logs import opened_log
from proxy.console.watcher import Watcher

TICK_S = 1.0


async def events(
    console: Console, watcher: Watcher, *, log_of: str | None, stopping: asyncio.Event
) -> AsyncIterator[bytes]:
    """The events of one watcher, until the server stops; the first ones have all that is kept.

    `state`: the document of `/console/state`. `requests`: a list of RequestRecords. `log`: a list of lines. Raises
    NotFound for a log that does not exist.
    """
    seen = 0
    async with AsyncExitStack() as stack:
        tail = None
        if log_of is not None:
            tail = await stack.enter_async_context(opened_log(await console.state.report(), log_of))
        while not stopping.is_set():
            yield _event("state", await console.document(watcher))
            records, seen = console.requests.since(seen, watcher.shown_client), console.requests.count
            if records:
                yield _event("requests", records)
            if tail and (lines := await tail.lines()):
                yield _event("log", lines)
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await stopping.wait()


def _event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
