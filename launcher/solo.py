"""One llama-server for one purpose: started on a file, asked for vectors, and gone with its block."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import orjson
import psutil

from launcher import command, health
from launcher.agreement import F32
from launcher.backend import POLL_S
from launcher.child import last_lines, running
from launcher.command import Placement
from launcher.config import SupervisionSettings
from launcher.engine import Engine
from launcher.errors import ChildError, ChildExited, StartError, WrongAnswer
from launcher.runtime import private_folder

TIMEOUT = aiohttp.ClientTimeout(total=600)  # a whole batch on the slowest host that is of any use


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a model is run: everything but its file and its socket."""

    engine: Engine
    policy: SupervisionSettings
    runtime: Path
    slots: int
    batch_tokens: int
    gpu_layers: int
    threads: int | None


@dataclass(frozen=True, slots=True)
class Embedder:
    """A llama-server that is up; one call at a time."""

    name: str
    session: aiohttp.ClientSession

    async def token_ids(self, text: str) -> list[int]:
        """The ids the engine computes with: special tokens are added and parsed. Raises ChildError."""
        body = await self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        ids: list[int] = orjson.loads(body)["tokens"]
        return ids

    async def vectors(self, ids: Sequence[Sequence[int]]) -> F32:
        """(n, dimensions), rows of unit length, in the order of `ids`, which must fit one batch. Raises ChildError."""
        body = await self._post("/v1/embeddings", {"input": ids, "embd_normalize": -1})
        found = sorted(orjson.loads(body)["data"], key=lambda row: int(row["index"]))
        rows: F32 = np.array([row["embedding"] for row in found], dtype=np.float32)  # NaN comes as null (trap T8)
        lengths: F32 = np.linalg.norm(rows, axis=1, keepdims=True)
        if len(rows) != len(ids) or not np.isfinite(lengths).all() or not lengths.all():
            raise WrongAnswer(f"{self.name}: its vectors are zero or not finite: the file or the engine is damaged")
        return rows / lengths

    async def _post(self, path: str, asked: object) -> bytes:
        headers = {"Content-Type": "application/json"}
        async with self.session.post(path, data=orjson.dumps(asked), headers=headers) as response:
            answer = await response.read()
        if response.status != 200:
            said = answer[:300].decode(errors="replace")
            raise ChildError(f"{self.name}: llama-server refused {path} with {response.status}: {said}")
        return answer


@asynccontextmanager
async def started(run: Run, name: str, model: Path) -> AsyncIterator[Embedder]:
    """A llama-server on that file for the block. Raises StartError, or ChildExited if it ends within the block."""
    async with private_folder(run.runtime) as folder:
        log, placement = folder / "log", _placement(run, name, model, folder / "solo.sock")
        argv, env = command.argv(run.engine, placement), command.environment(run.engine.env)
        async with running(argv, env=env, grace_s=run.policy.grace_s, output=log) as process:
            await _until_up(process, placement, log, run.policy.stall_s)
            # A new connection for each call: llama-server closes one after 5 s or 100 calls, whatever is on its way.
            connector = aiohttp.UnixConnector(str(placement.socket), force_close=True)
            session = aiohttp.ClientSession("http://llama-server", connector=connector, timeout=TIMEOUT)
            try:
                async with session:
                    yield Embedder(name, session)
            except (aiohttp.ClientError, TimeoutError) as error:
                why = last_lines(log) or type(error).__name__
                raise ChildExited(f"{name}: llama-server broke off on {model}; its last lines:\n{why}") from error


def _placement(run: Run, name: str, model: Path, socket: Path) -> Placement:
    return Placement(
        name=name,
        model=model,
        socket=socket,
        slots=run.slots,
        batch_tokens=run.batch_tokens,
        gpu_layers=run.gpu_layers,
        threads=run.threads,
    )


async def _until_up(process: asyncio.subprocess.Process, placement: Placement, log: Path, stall_s: float) -> None:
    """Wait for /health 200 for as long as the model's bytes still come into memory, as `Backend` does."""
    progress, loaded = time.monotonic(), 0
    while not await health.backend_up(placement.socket):
        fault = f"exited with {process.returncode}" if process.returncode is not None else ""
        if (now := _resident(process.pid)) > loaded:
            progress, loaded = time.monotonic(), now
        if time.monotonic() - progress > stall_s:
            fault = fault or f"made no progress for {stall_s:g} s"
        if fault:
            lines = last_lines(log)
            raise StartError(f"{placement.name}: llama-server {fault} on {placement.model}; its last lines:\n{lines}")
        await asyncio.sleep(POLL_S)


def _resident(pid: int) -> int:
    """Bytes in memory, in steps of a MiB: a process that waits moves by less."""
    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss) >> 20
    return 0
