"""The public side of a running proxy: which connections it takes, and how it leaves them to another."""

import asyncio
import socket
from contextlib import suppress

from aiohttp import web

from proxy.edge import middleware, open_files

LINGER_S = 0.5


class Server:
    """Serves `app`, which `runner` runs, on a listening socket that other proxies may share.

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
        self._leaving, self._left = asyncio.Event(), asyncio.Event()

    async def accept(self) -> None:
        """Take connections from now on."""
        if self._site is None:
            backlog = open_files.room(open_files.limit()).backlog
            self._site = web.SockSite(self._runner, self._listener, backlog=backlog)
            await self._site.start()

    async def finish(self) -> None:
        """Take no more connections, answer what has come on those there are, and stop; returns when no more comes."""
        self._leaving.set()
        await self._left.wait()

    async def finish_when_told(self) -> None:
        """Do what `finish` says, once it was said."""
        await self._leaving.wait()
        await self.leave()
        if server := self._runner.server:
            server.pre_shutdown()  # ends those without a request; `shutdown` closes them, the others after their answer
            self._left.set()
            await server.shutdown(None)
        self._stop.set()

    async def leave(self) -> None:
        """Take no more connections, and say so in the answers to come. Those taken last are heard out: aiohttp would
        close them before their request arrives.
        """
        site, self._site = self._site, None
        if site:
            await site.stop()  # others may hold the socket: from here on connections wait in the kernel, or go to them
        self._app[middleware.STOPPING].set()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await asyncio.sleep(0.02)  # one accepted this moment is not among the connections yet
                while self._runner.server and self._runner.server.connections:  # noqa: ASYNC110 # as above
                    await asyncio.sleep(0.01)
