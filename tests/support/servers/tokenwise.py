"""A server of multi-vectors: the proxy before two real llama.cpp, one that pools and one that gives tokens' states."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from launcher.multivector import projector
from proxy.contract.family import Family
from proxy.types import Ids, Matrix
from tests.support.engines.engine import LlamaServer, llama_server
from tests.support.servers.stack import BACKENDS, BATCH_TOKENS, Stack, family_of, proxy, small_family


@dataclass(frozen=True, slots=True)
class EngineStates:
    """The states as llama.cpp gives them, read in the plainest way."""

    engine: LlamaServer

    async def states(self, ids: Ids) -> Matrix:
        body = {"content": list(map(int, ids)), "embd_normalize": -1}
        return np.array(orjson.loads(await self.engine.post("/embedding", body))[0]["embedding"], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Served:
    """The server, its configuration and projector, and its engines; `other` are the settings of another model's."""

    stack: Stack
    config: Mapping[str, object]
    projector: projector.Projector
    pooled: LlamaServer
    source: EngineStates
    other: Mapping[str, object]


def random_projector(family: Family, seed: int = 0) -> projector.Projector:
    """One of the family's shape."""
    assert family.multivector
    rows, rng = family.multivector.dimensions, np.random.default_rng(seed)
    weights = {name: rng.standard_normal((rows, family.dimensions), dtype=np.float32) for name in BACKENDS}
    return projector.Projector(weights, rng.standard_normal(rows, dtype=np.float32), {"family": family.name})


@asynccontextmanager
async def serving_tokenwise(folder: Path) -> AsyncIterator[Served]:
    """All tasks, each with its own projection, on one small model."""
    family, models = small_family(folder)
    file = folder / "projector.npz"
    made = random_projector(family_of(family))
    projector.save_projector(made, file)
    async with AsyncExitStack() as exits:
        model = models["retrieval"]
        pooled = await exits.enter_async_context(llama_server(model))
        other = await exits.enter_async_context(llama_server(models["code"]))
        token_level = await exits.enter_async_context(llama_server(model, slots=1, pooling="none"))
        config = {
            "family": str(family),
            "max_input_tokens": BATCH_TOKENS,
            "multivector_file": str(file),
            "backends": {name: _settings(pooled, model) for name in BACKENDS},
            "token_backends": {name: {**_settings(token_level, model), "slots": 1} for name in BACKENDS},
        }
        url = await exits.enter_async_context(proxy(config))
        stack = Stack(url=url, models=models, engines={})
        yield Served(stack, config, made, pooled, EngineStates(token_level), _settings(other, models["code"]))


def _settings(engine: LlamaServer, model: Path) -> dict[str, object]:
    return {"url": engine.url, "slots": 16, "batch_tokens": BATCH_TOKENS, "model_file": str(model)}


def task_prefixes(family: Family) -> Mapping[str, tuple[str, str]]:
    """Backend and prefix of each task."""
    return {name: (row.backend, row.prefix) for name, row in family.tasks.items()}
