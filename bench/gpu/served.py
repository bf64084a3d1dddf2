"""`trillama serve` on the models of a phase."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import numpy.typing as npt

from bench.gpu.machine import BenchMachine
from bench.gpu.models import Sizes
from bench.servers.contenders import Contender
from proxy.embedding.chunk_means import F64
from tests.support.engines.engine import LlamaServer
from tests.support.servers.serve import Serve, trillama_serve
from tests.support.servers.stack import BACKENDS

TASKS: Mapping[str, tuple[str, str]] = {  # task → backend, prefix; written down again, so that a wrong table shows
    "retrieval.query": ("retrieval", "Query: "),
    "retrieval.passage": ("retrieval", "Passage: "),
    "code.query": ("code", "Query: "),
    "code.passage": ("code", "Passage: "),
    "text-matching": ("text-matching", "Query: "),
}


@dataclass(frozen=True, slots=True)
class Serving:
    """A running `trillama serve`, and a client of it."""

    serve: Serve
    client: Contender

    def engine(self, backend: str) -> LlamaServer:
        """The llama-server of a backend, asked directly. Raises ValueError while there is none, or two."""
        (socket,) = self.serve.runtime.glob(f"trillama-*/{backend}.sock")
        return LlamaServer(socket, self.serve.child(f"/{backend}.sock").pid)


@asynccontextmanager
async def trillama_serving(
    machine: BenchMachine, files: Mapping[str, Path], sizes: Sizes, *, tokens: int, **more: object
) -> AsyncIterator[Serving]:
    """Serve those files, texts of up to `tokens`; `more` are other tables of the host's file."""
    config: dict[str, object] = {
        "family": str(machine.family(sizes)),
        "max_input_tokens": tokens,
        "models": {"files": {name: str(path) for name, path in files.items()}},
        "engine": machine.engine_settings(),
        "proxy": {"log_level": "warning"},
        **more,
    }
    timeout = aiohttp.ClientTimeout(total=300)
    async with trillama_serve(config) as serve, aiohttp.ClientSession(timeout=timeout) as session:
        yield Serving(
            serve,
            Contender(name="trillama", url=serve.url, session=session, pid=serve.child("proxy").pid, prefix=""),
        )


def three(machine: BenchMachine, sizes: Sizes, quantization: str, *, alike: bool = False) -> dict[str, Path]:
    """A file for each backend: of other weights, unless they may be `alike`."""
    return {name: machine.model(sizes, quantization, 0 if alike else seed) for seed, name in enumerate(BACKENDS)}


def cosines(ones: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> F64:
    """Of equal rows, whatever their lengths; a vector that is not finite or zero has -1."""
    one, other = np.asarray(ones, np.float64), np.asarray(others, np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.einsum("ij,ij->i", one, other) / lengths
    return np.where(np.isfinite(found), found, -1.0)
