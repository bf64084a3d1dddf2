"""Nodes with faults on demand, in the process of the test and on real sockets, and a Front's service before them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from proxy.contract.family import Family
from proxy.contract.front import FrontSettings
from proxy.front.service import FrontService, front_service
from tests.support.nodes.stub_node import StubNode
from tests.support.servers.stack import FAMILY_FILE, family_of

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
FAMILY: Family = family_of(FAMILY_FILE).model_copy(update={"dimensions": 16})


@dataclass(slots=True)
class ScriptedNode:
    """A stub whose next pieces get the `faults` first. `pieces` are the bodies, `headers` the heads that it got."""

    stub: StubNode
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    pieces: list[dict[str, object]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    backends: dict[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> int:
        """How many inputs it was sent."""
        return sum(len(inputs) for piece in self.pieces if isinstance(inputs := piece["input"], list))

    @web.middleware
    async def answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path == "/ready" and self.backends:
            return web.json_response({"backends": self.backends}, status=503)
        if request.method != "POST":
            return await handler(request)
        self.pieces.append(orjson.loads(await request.read()))
        self.headers.append(request.headers.copy())
        fault = self.faults.pop(0) if self.faults else self.always
        return await (fault or handler)(request)


def status(code: int, name: str = "SOME_ERROR", **headers: str) -> Fault:
    """An error of that status, with our error body."""

    async def fault(_: web.Request) -> web.StreamResponse:
        body = {"detail": f"status {code}", "code": name, "error": {"param": None}}
        return web.json_response(body, status=code, headers={key.replace("_", "-"): to for key, to in headers.items()})

    return fault


def body(content: bytes) -> Fault:
    """A 200 with that content."""

    async def fault(_: web.Request) -> web.StreamResponse:
        return web.Response(body=content, content_type="application/json")

    return fault


async def breaks(request: web.Request) -> web.StreamResponse:
    """The connection breaks in the middle of an answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"{")
    assert request.transport
    request.transport.abort()
    return response


async def hangs(_: web.Request) -> web.StreamResponse:
    """No answer ever comes."""
    return await asyncio.Future()


@asynccontextmanager
async def scripted_nodes(*names: str, **options: float) -> AsyncIterator[dict[str, ScriptedNode]]:
    """Nodes of those names, which compute at once."""
    async with AsyncExitStack() as exits:
        nodes = {name: ScriptedNode(StubNode(family=FAMILY, gpu_ms=options.get("gpu_ms", 0))) for name in names}
        for node in nodes.values():
            app = node.stub.application()
            app.middlewares.append(node.answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
            await runner.setup()
            exits.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            node.url = f"http://{host}:{port}"
        yield nodes


@asynccontextmanager
async def fronted(nodes: Mapping[str, ScriptedNode], **settings: object) -> AsyncIterator[FrontService]:
    """A Front's service before those nodes, all of which it has asked how they are."""
    given = {"family": "unused", "nodes": {name: node.url for name, node in nodes.items()}, **settings}
    async with front_service(FrontSettings.model_validate(given), FAMILY) as service:
        async with asyncio.timeout(60):
            while any("not asked yet" in state for state in service.nodes.states().values()):
                await asyncio.sleep(0)
        yield service


async def until(condition: Callable[[], bool]) -> None:
    """Wait until that is so."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)
