"""The launcher's admin API, on a UNIX socket: the status of the queues, pausing one, handing over to another proxy.

`lanes` in these paths are the backends' queues. The paths keep their first names, because a launcher that runs while
its files are updated starts the new proxy.

- `GET /lanes`: a BackendLoad for each backend.
- `POST /lanes/{name}/hold`: send it nothing more; responds once nothing is in flight there. Requests for it wait. The
  body, a text, is the reason given to those that time out.
- `POST /lanes/{name}/release`: resume.
- `POST /accept`: start accepting connections, if it was started with `--take-over`.
- `POST /finish`: accept no more connections, answer all requests received, and end.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from aiohttp import web

from proxy.edge.acceptor import Acceptor
from proxy.models.served_model import ServedModel


@asynccontextmanager
async def admin_server(
    socket: Path | None, models: Mapping[str, ServedModel], acceptor: Acceptor
) -> AsyncIterator[None]:
    """Serve the admin API on the socket for the duration of the block; without a socket, do nothing."""
    if socket is None:
        yield
        return
    runner = web.AppRunner(_application(models, acceptor), access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        socket.unlink(missing_ok=True)  # left by an earlier proxy
        await web.UnixSite(runner, str(socket)).start()
        yield
    finally:
        await runner.cleanup()


def _application(models: Mapping[str, ServedModel], acceptor: Acceptor) -> web.Application:
    def named(request: web.Request) -> ServedModel:
        name = request.match_info["name"]
        if name not in models:
            raise web.HTTPNotFound(text=f"there is no backend {name}")
        return models[name]

    async def lanes(_: web.Request) -> web.Response:
        body = orjson.dumps({name: model.report() for name, model in models.items()})
        return web.Response(body=body, content_type="application/json")

    async def hold(request: web.Request) -> web.Response:
        await named(request).pause(await request.text())
        return web.Response()

    async def release(request: web.Request) -> web.Response:
        named(request).resume()
        return web.Response()

    async def accept(_: web.Request) -> web.Response:
        await acceptor.accept()
        return web.Response()

    async def finish(_: web.Request) -> web.Response:
        await acceptor.finish()
        return web.Response()

    app = web.Application()
    app.add_routes(
        [
            web.get("/lanes", lanes),
            web.post("/lanes/{name}/hold", hold),
            web.post("/lanes/{name}/release", release),
            web.post("/accept", accept),
            web.post("/finish", finish),
        ]
    )
    return app
