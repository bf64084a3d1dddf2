"""A server before a real llama-server, through which a test sees or changes what passes."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.support.engines.engine import LlamaServer

BODY_BYTES = 100 * 2**20
Answer = Callable[[web.Request, aiohttp.ClientSession], Awaitable[web.Response]]


@asynccontextmanager
async def forwarding(engine: LlamaServer, answer: Answer) -> AsyncIterator[str]:
    """Answers every request by `answer`, which is given a session with the engine; yields the URL, a UNIX socket's."""
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(engine.socket))) as session:

        async def forward(request: web.Request) -> web.Response:
            return await answer(request, session)

        app = web.Application(client_max_size=BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app)
        await runner.setup()
        with tempfile.TemporaryDirectory(prefix="trillama-") as folder:
            socket = Path(folder, "f.sock")
            await web.UnixSite(runner, str(socket)).start()
            try:
                yield f"unix://{socket}"
            finally:
                await runner.cleanup()
