"""A proxy with a stub of a launcher: what an operator sees and may do."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
from aiohttp import web

from tests.support.servers.stack import BACKENDS, BATCH_TOKENS, FAMILY_FILE, Answer, Stack, proxy

ADMIN = {"Authorization": "Bearer boss"}
CLIENT = {"Authorization": "Bearer client"}
TIMEOUT_S = 60


@dataclass(slots=True)
class StubLauncher:
    """A launcher's control socket: two processes, and whatever it is told."""

    logs: Path
    told: list[str] = field(default_factory=list)

    async def report(self, _: web.Request) -> web.Response:
        names = {"retrieval": ("backoff", "llama-server ended with signal 9"), "code": ("ready", "")}
        backends = [process(name, *given) for name, given in names.items()]
        return web.json_response({"version": "0", "logs": str(self.logs), "backends": backends})

    async def tell(self, request: web.Request) -> web.Response:
        self.told.append(request.path)
        refused = request.path == "/reload"
        return web.Response(status=409 if refused else 200, text="another port needs a restart" if refused else "{}")


def process(name: str, state: str, cause: str) -> dict[str, object]:
    """A BackendProcess as JSON."""
    times = {"since": 1.0, "pid": None, "loaded": 1.0, "restarts": 3}
    plan = {"batch_tokens": 1, "slots": 1, "on_demand": False, "devices": ["CUDA0"]}
    memory = {"planned_bytes": {"CUDA0": 2**30}, "resident_bytes": 2**20}
    return {"name": name, "state": state, "cause": cause, "model": f"/{name}.gguf", **times, **plan, **memory}


@dataclass(frozen=True, slots=True)
class Operated:
    """A proxy, perhaps with a launcher; its backends listen nowhere."""

    stack: Stack
    launcher: StubLauncher

    async def post(self, path: str, **headers: str) -> Answer:
        return await self.stack.request("POST", path, b"", headers)

    async def state(self, **headers: str) -> dict[str, object]:
        answer = await self.stack.get("/console/state", **headers)
        assert answer.status == 200, answer.body
        return answer.json


@asynccontextmanager
async def operated_proxy(folder: Path, *, launched: bool = False, **settings: object) -> AsyncIterator[Operated]:
    """Such a proxy for the block, `launched` by the stub or by nobody."""
    launcher, socket = StubLauncher(folder), folder / "control.sock"
    backend = {"url": f"unix://{folder}/no.sock", "slots": 16, "batch_tokens": BATCH_TOKENS}
    config = {"family": str(FAMILY_FILE), "backends": dict.fromkeys(BACKENDS, backend), **settings}
    app = web.Application()
    app.add_routes([web.get("/processes", launcher.report), web.post("/{path:.*}", launcher.tell)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(socket)).start()
        async with proxy({**config, "launcher": str(socket)} if launched else config, wait=False) as url:
            yield Operated(Stack(url=url, models={}, engines={}), launcher)
    finally:
        await runner.cleanup()


async def first_events(stack: Stack, path: str, wanted: set[str], headers: Mapping[str, str]) -> dict[str, object]:
    """The first data of each wanted event."""
    found: dict[str, object] = {}
    async with (
        asyncio.timeout(TIMEOUT_S),
        aiohttp.ClientSession() as session,
        session.get(stack.url + path, headers=headers) as response,
    ):
        assert response.headers["Content-Type"] == "text/event-stream"
        while not wanted <= found.keys():
            name, data = (await response.content.readuntil(b"\n\n")).decode().strip().split("\n")
            found.setdefault(name.removeprefix("event: "), orjson.loads(data.removeprefix("data: ")))
    return found


def rows_of(document: Mapping[str, object], name: str) -> list[dict[str, object]]:
    found = document[name]
    assert isinstance(found, list)
    return found
