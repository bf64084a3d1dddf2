"""A server of multi-vectors: our own service and door, and the states of tokens from a second, real llama.cpp."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from aiohttp import web

from launcher import projector
from proxy import handlers, jina, middleware
from proxy.backend import connect
from proxy.config import BackendSettings, Family
from proxy.embedding import Ids, Matrix
from proxy.model import ServedModel
from proxy.opening import Waiting
from proxy.service import EmbedService, Limits
from proxy.tasks import TaskTable
from proxy.token_states import MultiVectors
from tests.engine import LlamaServer, llama_server
from tests.proxy.stack import BACKENDS, BATCH_TOKENS, Stack, family_of, small_family, unused_port


@dataclass(frozen=True, slots=True)
class EngineStates:
    """The token-level backend, as plain as can be: llama.cpp with `--pooling none`."""

    engine: LlamaServer

    async def states(self, ids: Ids) -> Matrix:
        answer = orjson.loads(
            await self.engine.post("/embedding", {"content": list(map(int, ids)), "embd_normalize": -1})
        )
        return np.array(answer[0]["embedding"], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Served:
    """The server, the same texts' tokens and states straight from the engines, and the projector that it has."""

    stack: Stack
    pooled: LlamaServer
    source: EngineStates
    projector: projector.Projector


def random_projector(family: Family, seed: int = 0) -> projector.Projector:
    """One of the family's shape."""
    assert family.multivector
    rows, rng = family.multivector.dimensions, np.random.default_rng(seed)
    weights = {name: rng.standard_normal((rows, family.dimensions), dtype=np.float32) for name in BACKENDS}
    return projector.Projector(weights, rng.standard_normal(rows, dtype=np.float32), {"family": family.name})


@asynccontextmanager
async def serving_tokenwise(folder: Path) -> AsyncIterator[Served]:
    """All tasks, each with its own projection, on one small model."""
    family_file, models = small_family(folder)
    family, file = family_of(family_file), folder / "projector.npz"
    made = random_projector(family)
    projector.keep(made, file)
    model = models["retrieval"]
    async with AsyncExitStack() as exits:
        pooled = await exits.enter_async_context(llama_server(model))
        token_level = await exits.enter_async_context(llama_server(model, extra_flags=("--pooling", "none")))
        source = EngineStates(token_level)
        settings = BackendSettings(url=pooled.url, slots=16, batch_tokens=BATCH_TOKENS, model_file=model)
        backend = await exits.enter_async_context(connect("retrieval", settings))
        waiting = Waiting(tokens=2**22, call_s=60, start_s=60, recovery_s=60)
        one = ServedModel(backend, family, waiting)
        working = asyncio.create_task(one.serve())
        exits.callback(working.cancel)
        service = EmbedService(
            TaskTable(family, BACKENDS),
            dict.fromkeys(BACKENDS, one),
            Limits(items=2048, input_tokens=BATCH_TOKENS, dimensions=family.dimensions, seconds=60),
            MultiVectors(family, file, dict.fromkeys(BACKENDS, source)),
        )
        url = await exits.enter_async_context(_door(service))
        async with asyncio.timeout(60):
            while one.report().reason:
                await asyncio.sleep(0.01)
        yield Served(Stack(url=url, models={}, engines={}), pooled, source, made)


@asynccontextmanager
async def _door(service: EmbedService) -> AsyncIterator[str]:
    app = web.Application(middlewares=(middleware.observe, middleware.answer_errors, middleware.check_key))
    app[middleware.API_KEYS] = ()
    app[middleware.STOPPING] = asyncio.Event()
    app[middleware.REFUSALS] = handlers.REFUSALS
    app[handlers.SERVICE] = service
    app.router.add_post("/v1/embeddings", handlers.door(jina.parse))
    runner, port = web.AppRunner(app), unused_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def task_prefixes(family: Family) -> Mapping[str, tuple[str, str]]:
    """Backend and prefix of each task."""
    return {name: (row.backend, row.prefix) for name, row in family.tasks.items()}
