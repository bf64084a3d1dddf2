"""Real llama.cpp on a unix socket, started with the launcher's own command line."""

import asyncio
import io
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import aiohttp
import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel

from launcher.build.patches.lean import FLAG
from launcher.engine import argv as command
from launcher.engine.build_record import why_foreign
from launcher.engine.discovery import Engine, Origin, built_path, probe
from launcher.engine.libgomp import openmp_environment
from launcher.images.prompt import media_marker
from launcher.processes.child import last_lines, running
from launcher.settings.folders import cache_dir
from launcher.supervision.probes import backend_up
from proxy.contract.family import Pooling

KINDS = ("embedded", "native")
READY_TIMEOUT_S = 60.0


class EngineMissing(Exception):
    """There is no engine of that kind on this machine: the test skips."""


class EngineRefused(Exception):
    """The engine answered something else than 200: `args` are the status and the body."""


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """One running server. Each call opens its own connection, so that any event loop may ask."""

    socket: Path
    pid: int

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    async def embed(self, inputs: Sequence[str] | Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """The raw (not normalised) vectors, (n, dimensions), in input order. Raises EngineRefused."""
        body = await self.post("/v1/embeddings", {"input": inputs, "embd_normalize": -1})
        rows = sorted(_Vectors.model_validate_json(body).data, key=lambda row: row.index)
        return np.array([row.embedding for row in rows], dtype=np.float32)

    async def rows(self, inputs: Sequence[object]) -> list[npt.NDArray[np.float32]]:
        """Each input's raw rows: one vector, or with pooling none the state of each token. Raises EngineRefused."""
        body = await self.post("/embeddings", {"input": inputs, "embd_normalize": -1})
        found = sorted(orjson.loads(body), key=lambda one: int(one["index"]))
        return [np.array(one["embedding"], np.float32) for one in found]

    async def tokenize(self, text: str) -> list[int]:
        """The ids the engine computes with: special tokens are added and parsed. Raises EngineRefused."""
        body = await self.post("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        return _Tokens.model_validate_json(body).tokens

    async def post(self, path: str, body: object) -> bytes:
        """The answer's body. Raises EngineRefused unless the status is 200."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.post(f"http://llama-server{path}", data=io.BytesIO(orjson.dumps(body))) as response,
        ):
            answer = await response.read()
        if response.status != 200:
            raise EngineRefused(response.status, answer.decode())
        return answer


@asynccontextmanager
async def llama_server(
    model: Path,
    *,
    engine: str = "embedded",
    slots: int = 16,
    batch_tokens: int = 2048,
    socket: Path | None = None,
    lean: bool = True,
    pooling: Pooling | Literal["none"] = "mean",
    extra_flags: tuple[str, ...] = (),
    mmproj: Path | None = None,
) -> AsyncIterator[LlamaServer]:
    """Serve `model` for the block. Raises EngineMissing; fails with the engine's last lines if it does not come up.

    Without `lean` it computes the logits of embeddings even if it knows how to leave them out.
    """
    found = await found_engine(engine)
    if not lean:
        found = replace(found, flags=found.flags - {FLAG})
    with tempfile.TemporaryDirectory(prefix="trillama-") as folder:  # a short path: a socket's has at most 107 bytes
        socket, output = socket or Path(folder, "e.sock"), Path(folder, "log")
        placement = command.ServerSpec(
            name="test",
            model=model,
            socket=socket,
            slots=slots,
            batch_tokens=batch_tokens,
            gpu_layers=0,
            threads=2,
            extra_flags=extra_flags,
            pooling=pooling,
            mmproj=mmproj,
            media_marker=media_marker(),
        )
        argv, env = command.argv(found, placement), {**found.env, **command.media_environment(placement)}
        async with running(argv, env=env, grace_s=2.0, output=output) as process:
            await _ready(process, socket, output)
            yield LlamaServer(socket, process.pid)


def native_binary() -> Path:
    """$TRILLAMA_TEST_LLAMA_SERVER, else what `trillama engine build` made for this processor. Raises EngineMissing."""
    binary = Path(os.environ.get("TRILLAMA_TEST_LLAMA_SERVER", built_path()))
    if not binary.is_file():
        raise EngineMissing(f"no llama-server at {binary}; set TRILLAMA_TEST_LLAMA_SERVER")
    if foreign := why_foreign(binary):
        raise EngineMissing(foreign)
    return binary


_found: dict[str, Engine] = {}


async def found_engine(kind: str) -> Engine:
    """The engine of that kind, asked for its flags once per test run: that takes ten times as long as a start.

    Raises EngineMissing.
    """
    if kind not in _found:
        env = command.environment(os.environ)
        if kind == "native":
            _found[kind] = await probe((str(native_binary()),), Origin.CONFIGURED, env)
        else:
            argv = (sys.executable, "-P", "-m", "launcher.engine.embedded")
            _found[kind] = await probe(argv, Origin.EMBEDDED, openmp_environment(env, cache_dir() / "lib"))
    return _found[kind]


async def _ready(process: asyncio.subprocess.Process, socket: Path, output: Path) -> None:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while not await backend_up(socket):
                assert process.returncode is None, f"the engine ended: {last_lines(output, 20)}"
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"the engine is not up after {READY_TIMEOUT_S} s: {last_lines(output, 20)}") from None


class _Row(BaseModel):
    index: int
    embedding: list[float]


class _Vectors(BaseModel):
    data: list[_Row]


class _Tokens(BaseModel):
    tokens: list[int]
