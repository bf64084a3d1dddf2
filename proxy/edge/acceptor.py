"""When the proxy accepts connections on its listening socket, and how it hands over to another proxy."""

import asyncio
import socket
from contextlib import suppress

from aiohttp import web

from proxy.process import open_files
from proxy.telemetry.observe import STOPPING

_LINGER_S = 0.5


class Acceptor:
    """Accepts connections for `app`, which `runner` runs, on a listening socket that other proxies may share.

    `stop` is set when it has finished.
    """

    def __init__(
        self, app: web.Application, runner: web.ServerRunner, listener: socket.socket, *, stop: asyncio.Event
    ) -> None:
        self._app = app
        self._runner = runner
        self._listener = listener
        self._site: web.SockSite | None = None
        self._stop = stop
        self._finish_asked, self._finished = asyncio.Event(), asyncio.Event()

    async def accept(self) -> None:
        """Start accepting connections."""
        if self._site is None:
            accepts = open_files.room(open_files.limit()).accepts
            self._site = web.SockSite(self._runner, self._listener, backlog=accepts)  # asyncio accepts as many at once
            await self._site.start()
            self._listener.listen(open_files.BACKLOG)

    async def finish(self) -> None:
        """Accept no more connections, answer the requests received, and stop; returns once no more are received."""
        self._finish_asked.set()
        await self._finished.wait()

    async def finish_when_asked(self) -> None:
        """Carry out `finish` once it is called."""
        await self._finish_asked.wait()
        await self.stop_accepting()
        if server := self._runner.server:
            server.pre_shutdown()  # closes idle connections; `shutdown` closes the others after their response
            self._finished.set()
            await server.shutdown(None)
        self._stop.set()

    async def stop_accepting(self) -> None:
        """Accept no more connections, and send `Connection: close` from now on.

        Waits _LINGER_S for requests on the connections accepted last: aiohttp would close them before those arrive.
        """
        site, self._site = self._site, None
        if site:
            await site.stop()  # other proxies may share the socket: new connections wait in the kernel or reach them
        self._app[STOPPING].set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await asyncio.sleep(0.02)  # a connection accepted just now is not in the list yet
                while self._runner.server and self._runner.server.connections:  # noqa: ASYNC110 # as above
                    await asyncio.sleep(0.01)
