"""What reaches the engines: a way through to real llama-servers that keeps the token ids it saw."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
from aiohttp import web

from tests.support.engines.engine import LlamaServer
from tests.support.engines.forwarding import forwarding
from tests.support.servers.stack import BATCH_TOKENS, FAMILY_FILE, Stack, proxy


@dataclass(frozen=True, slots=True)
class Recorded:
    """A proxy of its own before the engines of another stack, and the inputs each backend was given since `clear`."""

    stack: Stack
    received: Mapping[str, list[list[int]]]

    def clear(self) -> None:
        for inputs in self.received.values():
            inputs.clear()


@asynccontextmanager
async def recorded(served: Stack, model_files: Mapping[str, Path], **settings: object) -> AsyncIterator[Recorded]:
    """A proxy that knows those files, each backend behind a recording way through."""
    received: dict[str, list[list[int]]] = {name: [] for name in served.engines}
    async with AsyncExitStack() as exits:
        backends: dict[str, dict[str, object]] = {}
        for name, engine in served.engines.items():
            url = await exits.enter_async_context(recording(engine, received[name]))
            backends[name] = {"url": url, "batch_tokens": BATCH_TOKENS}
            if name in model_files:
                backends[name]["model_file"] = str(model_files[name])
        config = {"family": str(FAMILY_FILE), "backends": backends, **settings}
        url = await exits.enter_async_context(proxy(config))
        through = Recorded(Stack(url=url, models=served.models, engines=served.engines), received)
        through.clear()  # of what each model had to prove at start
        yield through


@asynccontextmanager
async def recording(engine: LlamaServer, inputs: list[list[int]]) -> AsyncIterator[str]:
    """A way through to `engine` that adds to `inputs` the token ids of each text to embed; yields its URL."""

    async def record(request: web.Request, session: aiohttp.ClientSession) -> web.Response:
        body = await request.read()
        if request.path == "/v1/embeddings":
            inputs.extend(orjson.loads(body)["input"])
        async with session.request(request.method, f"http://engine{request.path}", data=body) as answer:
            return web.Response(body=await answer.read(), status=answer.status)

    async with forwarding(engine, record) as url:
        yield url
