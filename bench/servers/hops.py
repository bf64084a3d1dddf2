"""trillama's own engine without trillama: reached directly, or through a server that only forwards.

`python -m bench.servers.hops SOCKET PORT` is that server: just aiohttp and the proxy's own client of llama-server.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
from aiohttp import web

from bench.servers.contenders import PREFIX, Contender, Program, up
from proxy.llama.unix_http import UnixHttpClient
from tests.support.servers.stack import unused_port

_KEEPALIVE_S = 3.0


@asynccontextmanager
async def undressed(ours: Contender) -> AsyncIterator[Contender]:
    """The same llama-server process on its socket: two processes of one engine may differ by a third."""
    connector = aiohttp.UnixConnector(str(ours.engine), keepalive_timeout=_KEEPALIVE_S)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield replace(ours, name="its llama-server", url="http://llama-server", session=session, prefix=PREFIX, body={})


@asynccontextmanager
async def bare(ours: Contender) -> AsyncIterator[Contender]:
    """The same llama-server behind a server that only forwards."""
    argv, port = [sys.executable, "-m", "bench.servers.hops", str(ours.engine)], unused_port()
    program = Program(name="a bare aiohttp server", argv=[*argv, str(port)], port=port, env={**os.environ})
    async with up(program) as contender:
        yield contender


async def _forward(socket: Path, port: int) -> None:
    pipe = UnixHttpClient(str(socket), headers=b"Content-Type: application/json\r\n", keepalive_s=_KEEPALIVE_S)

    async def embeddings(request: web.Request) -> web.Response:
        reply = await pipe.post("/v1/embeddings", await request.read())
        return web.Response(body=reply.content, status=reply.status, content_type="application/json")

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/v1/embeddings", embeddings), web.get("/health", health)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_forward(Path(sys.argv[1]), int(sys.argv[2])))
