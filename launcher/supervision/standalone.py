"""A llama-server for one purpose: started on a model file, asked for vectors, ended with its block."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import orjson

from launcher.arrays import F32
from launcher.engine.argv import ServerSpec
from launcher.engine.discovery import Engine
from launcher.errors import ChildError, WrongAnswer
from launcher.host.cores import engine_threads
from launcher.images.prompt import media_marker
from launcher.processes.child_log import ChildLog
from launcher.processes.runtime_folder import private_folder
from launcher.settings.config import FlashAttention, SupervisionSettings
from launcher.settings.folders import LOGS, make_folder
from launcher.supervision.server_run import started as start
from proxy.contract.family import VectorRules

_TIMEOUT = aiohttp.ClientTimeout(total=600)  # for a full batch on the slowest host that is of any use


@dataclass(frozen=True, slots=True, kw_only=True)
class Standalone:
    """How a model is run: everything but its file and its socket. `log` is the name of its log file.

    `rules` and `lora` are the family's: without them its vectors would be others. `mmproj` is the vision encoder of one
    that takes images; `by_token`: it returns the state of every token.
    """

    log: str
    engine: Engine
    policy: SupervisionSettings
    runtime: Path
    slots: int
    batch_tokens: int
    gpu_layers: int
    threads: int | None
    flash_attention: FlashAttention = "auto"
    devices: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] = ()
    rules: VectorRules = field(default_factory=VectorRules)
    lora: Path | None = None
    mmproj: Path | None = None
    by_token: bool = False


@dataclass(frozen=True, slots=True)
class StandaloneEmbedder:
    """A llama-server that is up; it takes one request at a time."""

    name: str
    session: aiohttp.ClientSession

    async def token_ids(self, text: str) -> list[int]:
        """The ids that the engine computes with: special tokens are added and parsed. Raises ChildError."""
        body = await self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        ids: list[int] = orjson.loads(body)["tokens"]
        return ids

    async def vectors(self, ids: Sequence[Sequence[int]]) -> F32:
        """(n, dimensions), rows of unit length, in the order of `ids`, which must fit one batch. Raises ChildError."""
        rows = await self.raw_vectors(ids)
        lengths: F32 = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / lengths

    async def raw_vectors(self, ids: Sequence[Sequence[int]]) -> F32:
        """As `vectors`, but not normalised: each number is the engine's own to the last bit."""
        body = await self._post("/v1/embeddings", {"input": ids, "embd_normalize": -1})
        found = sorted(orjson.loads(body)["data"], key=lambda row: int(row["index"]))
        rows: F32 = np.array([row["embedding"] for row in found], dtype=np.float32)  # NaN comes as null (trap T8)
        lengths = np.linalg.norm(rows, axis=1)
        if len(rows) != len(ids) or not np.isfinite(lengths).all() or not lengths.all():
            raise WrongAnswer(f"{self.name}: its vectors are zero or not finite: the file or the engine is damaged")
        return rows

    async def raw_rows(self, inputs: Sequence[object]) -> list[F32]:
        """The rows of each input, its vector or the state of each token, not normalised. Raises ChildError.

        An input is token ids, or what `image_input` returns.
        """
        body = await self._post("/embeddings", {"input": inputs, "embd_normalize": -1})
        found = sorted(orjson.loads(body), key=lambda one: int(one["index"]))
        return [np.array(one["embedding"], dtype=np.float32) for one in found]

    async def _post(self, path: str, body: object) -> bytes:
        headers = {"Content-Type": "application/json"}
        async with self.session.post(path, data=orjson.dumps(body), headers=headers) as response:
            answer = await response.read()
        if response.status != 200:
            reason = answer[:300].decode(errors="replace")
            raise ChildError(f"{self.name}: llama-server refused {path} with {response.status}: {reason}")
        return answer


@asynccontextmanager
async def standalone(run: Standalone, name: str, model: Path) -> AsyncIterator[StandaloneEmbedder]:
    """Run a llama-server on that file for the block. Raises StartError, or ChildExited if it ends within the block."""
    async with private_folder(run.runtime) as folder:
        log, placement = ChildLog(make_folder(LOGS) / run.log), _placement(run, name, model, folder / "solo.sock")
        async with start(run.engine, placement, run.policy, log, _Unobserved()) as child:
            # A new connection per request: llama-server closes one after 5 s or 100 requests, whatever is in flight.
            connector = aiohttp.UnixConnector(str(placement.socket), force_close=True)
            session = aiohttp.ClientSession("http://llama-server", connector=connector, timeout=_TIMEOUT)
            try:
                async with session:
                    yield StandaloneEmbedder(name, session)
            except (aiohttp.ClientError, TimeoutError) as error:
                raise await child.broke_off(f"on {model}") from error


class _Unobserved:
    """The observer of a run whose progress nobody follows."""

    def starting(self, pid: int) -> None: ...

    def loaded(self, part: float) -> None: ...

    def ready(self) -> None: ...


def _placement(run: Standalone, name: str, model: Path, socket: Path) -> ServerSpec:
    return ServerSpec(
        name=name,
        model=model,
        socket=socket,
        slots=run.slots,
        batch_tokens=run.batch_tokens,
        gpu_layers=run.gpu_layers,
        threads=run.threads or engine_threads(),
        flash_attention=run.flash_attention,
        devices=run.devices,
        tensor_split=run.tensor_split,
        pooling="none" if run.by_token else run.rules.pooling,
        rope_scaling=run.rules.rope_scaling,
        lora=run.lora,
        mmproj=run.mmproj,
        media_marker=media_marker() if run.mmproj else "",
    )
