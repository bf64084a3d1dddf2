"""A server that images are fetched from, and fetchers that resolve the names of a test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from proxy.contract.images import ImageOptions
from proxy.images.fetching import Fetcher, fetching
from tests.support.requests.pictures import png

PICTURE = png()

ANSWERED: Mapping[str, Callable[[], web.Response]] = {
    "/404": lambda: web.Response(status=404, text="secret of the host"),
    "/gzip": lambda: web.Response(body=PICTURE, headers={"Content-Encoding": "gzip"}),
    "/nowhere": lambda: web.Response(status=302),
    "/x.png": lambda: web.Response(body=PICTURE, headers={"Set-Cookie": "a=b"}),
}


@dataclass(slots=True)
class Target:
    """A server on loopback that counts what reaches it, and answers by path."""

    port: int = 0
    requests: list[web.Request] = field(default_factory=list)
    now: int = 0
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, host: str, path: str = "/x.png") -> str:
        return f"http://{host}:{self.port}{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        match request.path.split("/"):
            case ["", "to", ""]:
                return web.Response(status=302, headers={"Location": request.query["at"]})
            case ["", "again", number]:
                return web.Response(status=307, headers={"Location": f"/again/{int(number) + 1}"})
            case ["", "slow"]:
                return await self._slow()
            case ["", "endless"]:
                return await self._endless(request)
        return ANSWERED.get(request.path, web.Response)()

    async def _slow(self) -> web.StreamResponse:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        return web.Response(body=PICTURE)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"\0" * 65536)


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    made, app = Target(), web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        made.gate.set()
        await runner.cleanup()


@asynccontextmanager
async def fetcher(
    target: Target, names: Mapping[str, Sequence[str]] | None = None, **options: object
) -> AsyncIterator[Fetcher]:
    """A fetcher that resolves these names: each time to the next of the addresses, and then always to the last."""
    asked = dict.fromkeys(names or {}, 0)

    async def lookup(host: str, port: int) -> Sequence[str]:
        if names is None or host not in names:
            raise OSError(f"no such name: {host}")
        at = min(asked[host], len(names[host]) - 1)
        asked[host] += 1
        return names[host][at].split()

    settings = ImageOptions.model_validate({"ports": (target.port,), **options})
    async with fetching(settings, lookup) as made:
        yield made


async def fetched(fetcher: Fetcher, url: str) -> bytes:
    async with fetcher.fetched(url) as file:
        return file


STARTS = {"start.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}
