"""The admin API on a UNIX socket: the queues of a proxy or the nodes of a Front, and handing over to another process.

`lanes` in these paths are the backends' queues. The paths keep their first names, because a launcher that runs while
its files are updated starts the new proxy.

- `GET /lanes`: a BackendLoad for each backend.
- `POST /lanes/{name}/hold`: send it nothing more; responds once nothing is in flight there. Requests for it wait. The
  body, a text, is the reason given to those that time out.
- `POST /lanes/{name}/release`: resume.
- `PUT /nodes`, `GET /nodes`: of a Front; see `proxy.contract.front`.
- `POST /accept`: start accepting connections, if it was started with `--take-over`.
- `POST /finish`: accept no more connections, answer all requests received, and end.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from aiohttp import web
from pydantic import ValidationError

from proxy.contract.front import NODE_LIST
from proxy.edge.acceptor import Acceptor
from proxy.front.fleet import ControlledNodes
from proxy.models.served_model import ServedModel


@asynccontextmanager
async def admin_server(socket: Path | None, routes: Sequence[web.RouteDef], acceptor: Acceptor) -> AsyncIterator[None]:
    """Serve the admin API on the socket for the duration of the block; without a socket, do nothing."""
    if socket is None:
        yield
        return
    app = web.Application()
    app.add_routes([*routes, *_handover_routes(acceptor)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        socket.unlink(missing_ok=True)  # left by an earlier proxy
        await web.UnixSite(runner, str(socket)).start()
        yield
    finally:
        await runner.cleanup()


def lane_routes(models: Mapping[str, ServedModel]) -> list[web.RouteDef]:
    """The status of each backend's queue, and pausing one."""

    def named(request: web.Request) -> ServedModel:
        name = request.match_info["name"]
        if name not in models:
            raise web.HTTPNotFound(text=f"there is no backend {name}")
        return models[name]

    async def lanes(_: web.Request) -> web.Response:
        return _json({name: model.report() for name, model in models.items()})

    async def hold(request: web.Request) -> web.Response:
        await named(request).pause(await request.text())
        return web.Response()

    async def release(request: web.Request) -> web.Response:
        named(request).resume()
        return web.Response()

    return [
        web.get("/lanes", lanes),
        web.post("/lanes/{name}/hold", hold),
        web.post("/lanes/{name}/release", release),
    ]


def node_routes(nodes: ControlledNodes) -> list[web.RouteDef]:
    """The nodes of a Front: their state, and replacing the list."""

    async def reports(_: web.Request) -> web.Response:
        return _json(nodes.reports())

    async def replace(request: web.Request) -> web.Response:
        try:
            nodes.replace(NODE_LIST.validate_json(await request.read()))
        except ValidationError as error:
            raise web.HTTPUnprocessableEntity(text=str(error)) from error
        return web.Response(status=204)

    return [web.get("/nodes", reports), web.put("/nodes", replace)]


def _handover_routes(acceptor: Acceptor) -> list[web.RouteDef]:
    async def accept(_: web.Request) -> web.Response:
        await acceptor.accept()
        return web.Response()

    async def finish(_: web.Request) -> web.Response:
        await acceptor.finish()
        return web.Response()

    return [web.post("/accept", accept), web.post("/finish", finish)]


def _json(body: object) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
