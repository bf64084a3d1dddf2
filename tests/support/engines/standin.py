"""Passes requests on to a real llama-server, counts them, and fails on demand in ways that llama.cpp will not."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import aiohttp
import numpy as np
import orjson
from aiohttp import web

from tests.support.engines.engine import LlamaServer, llama_server
from tests.support.engines.forwarding import forwarding
from tests.support.servers.stack import BACKENDS, BATCH_TOKENS, Stack, proxy, small_family

Fault = Enum("Fault", "DIE NAN COARSE")  # COARSE: as if 1/n had been rounded to 10 bits
RESTART_S = 0.3


@dataclass(frozen=True, slots=True)
class Tiny:
    """One quick model and its engine."""

    family: Path
    model: Path
    engine: LlamaServer


@dataclass(slots=True)
class StandIn:
    """`calls` are the token ids of each call's texts. `fault` says what goes wrong with a call of a text.

    While `gate` is not set no call is answered. `wedged`: every vector is NaN.
    """

    url: str = ""
    calls: list[list[list[int]]] = field(default_factory=list)
    fault: Callable[[list[int]], Fault | None] = lambda _: None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    wedged: bool = False
    dead_until: float = 0.0

    async def called(self, times: int) -> None:
        """Wait until it was called so often."""
        async with asyncio.timeout(20):
            while len(self.calls) < times:
                await asyncio.sleep(0.005)

    async def answer(self, request: web.Request, session: aiohttp.ClientSession) -> web.Response:
        loop, body = asyncio.get_running_loop(), await request.read()
        faults: list[Fault | None] = []
        if request.path == "/v1/embeddings":
            inputs = orjson.loads(body)["input"]
            self.calls.append(inputs)
            faults = [Fault.NAN if self.wedged else self.fault(ids) for ids in inputs]
            if Fault.DIE in faults:
                self.dead_until = loop.time() + RESTART_S
            await self.gate.wait()
        if loop.time() < self.dead_until:
            assert request.transport
            request.transport.abort()
        async with session.request(request.method, f"http://engine{request.path}", data=body) as answer:
            content = await answer.read()
        return web.Response(body=_spoilt(content, faults), status=answer.status)


def _spoilt(content: bytes, faults: list[Fault | None]) -> bytes:
    """The answer with wrong values where there is such a fault."""
    factors = {Fault.NAN: np.float32(np.nan), Fault.COARSE: np.float32(1 + 2**-11)}
    if not factors.keys() & set(faults):
        return content
    answer = orjson.loads(content)
    for row in answer["data"]:
        if factor := factors.get(faults[row["index"]] or Fault.DIE):
            vector = np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4")
            row["embedding"] = base64.b64encode((vector * factor).tobytes()).decode()
    return orjson.dumps(answer)


@asynccontextmanager
async def tiny_engine(folder: Path) -> AsyncIterator[Tiny]:
    """An engine of 64 dimensions for the block."""
    family, models = small_family(folder)
    async with llama_server(models["retrieval"]) as engine:
        yield Tiny(family, models["retrieval"], engine)


@asynccontextmanager
async def stand_in(engine: LlamaServer) -> AsyncIterator[StandIn]:
    """One before that engine, which answers everything until it is told otherwise."""
    one = StandIn()
    one.gate.set()
    async with forwarding(engine, one.answer) as one.url:
        try:
            yield one
        finally:
            one.gate.set()


@asynccontextmanager
async def front(url: str, family: Path, model: Path, **settings: object) -> AsyncIterator[Stack]:
    """A proxy all of whose backends are that one server, with that model file."""
    one = {"url": url, "slots": 16, "batch_tokens": BATCH_TOKENS, "model_file": str(model)}
    config = {"family": str(family), "backends": dict.fromkeys(BACKENDS, one), **settings}
    async with proxy(config) as address:
        yield Stack(url=address, models={}, engines={})
