"""The whole proxy side as a user has it: real llama-servers on tiny models, and the proxy as a process in front."""

import asyncio
import io
import os
import socket
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import orjson
import tomli_w

from launcher.images.prompt import media_marker
from launcher.processes.child import last_lines, running
from launcher.supervision.probes import backends_ready
from proxy.contract.family import Family
from proxy.contract.settings import ProxySettings
from proxy.contract.settings_file import read_toml, validated_settings
from tests.support.engines.engine import LlamaServer, llama_server
from tests.support.models.tiny_models import write_model

CONFIGS = Path(__file__).parents[3] / "configs"
FAMILY_FILE = CONFIGS / "families" / "jina-embeddings-v4.toml"
BACKENDS = ("retrieval", "code", "text-matching")
BATCH_TOKENS = 1024  # half the default: the longest texts take a quarter of the time
READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP response; `json` fails for a body that is not JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        body = orjson.loads(self.body)
        assert isinstance(body, dict)
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running proxy, the engines behind it and their files; `by_token` are those that do not pool."""

    url: str
    models: Mapping[str, Path]
    engines: Mapping[str, LlamaServer]
    by_token: Mapping[str, LlamaServer] = field(default_factory=dict)

    async def post(self, body: object, path: str = "/v1/embeddings", **headers: str) -> Answer:
        """POST `body` as JSON (bytes as they are)."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self.request("POST", path, data, {"Content-Type": "application/json", **headers})

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, None, headers)

    async def request(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]) -> Answer:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=data and io.BytesIO(data), headers=headers) as response,
        ):
            return Answer(status=response.status, headers=response.headers.copy(), body=await response.read())


async def raw_status(url: str, headers: bytes, body: bytes = b"") -> int:
    """The status of a POST of bytes that no client library would send."""
    return int((await raw_answer(url, headers, body)).split()[1])


async def raw_answer(url: str, headers: bytes, body: bytes = b"") -> bytes:
    """The whole response to such a POST."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers)
    writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def family_of(path: Path) -> Family:
    """The proxy's part of a family file."""
    return validated_settings(Family, read_toml(path), path)


def write_models(folder: Path) -> dict[str, Path]:
    """One random model per backend, of the family's full size: 2048 dimensions."""
    return {
        name: write_model(
            folder / f"{name}.gguf", seed=seed, layers=1, n_embd=2048, heads=16, kv_heads=2, n_ff=256, dtype="F16"
        )
        for seed, name in enumerate(BACKENDS)
    }


def small_family(folder: Path) -> tuple[Path, dict[str, Path]]:
    """The family with 64 dimensions, and its models: a hundred times faster where only timing matters."""
    family = tomllib.loads(FAMILY_FILE.read_text(encoding="utf-8"))
    file = folder / "small.toml"
    file.write_text(tomli_w.dumps({**family, "dimensions": 64, "trained_dimensions": [64]}), encoding="utf-8")
    return file, {name: write_model(folder / f"small-{name}.gguf", seed=seed) for seed, name in enumerate(BACKENDS)}


def small_host(folder: Path) -> Path:
    """A host's file that serves the small family; two of its models start on demand."""
    family, models = small_family(folder)
    config = {
        "family": str(family),
        "port": unused_port(),
        "max_input_tokens": BATCH_TOKENS,
        "models": {"files": {name: str(path) for name, path in models.items()}},
        "engine": {"gpu_layers": 0, "threads": 2},
        "backends": {name: {"mode": "on-demand"} for name in BACKENDS[1:]},
    }
    file = folder / "host.toml"
    file.write_text(tomli_w.dumps(config), encoding="utf-8")
    return file


@asynccontextmanager
async def stack(
    engine: str,
    models: Mapping[str, Path],
    *,
    family: Path = FAMILY_FILE,
    by_token: Sequence[str] = (),
    batch_tokens: int = BATCH_TOKENS,
    unready: Collection[str] = (),
    mmproj: Path | None = None,
    **settings: object,
) -> AsyncIterator[Stack]:
    """Serve `models` by engines of that kind, with a proxy whose config has `settings` beside the required ones.

    The models in `by_token` are served a second time, by an engine that gives the state of every token. The backends in
    `unready` never become ready. With `mmproj` all of them take images.
    """
    start = partial(llama_server, engine=engine, batch_tokens=batch_tokens, mmproj=mmproj)
    pooling = family_of(family).weights.pooling
    images = {"images": {"marker": media_marker(), "mmproj_file": str(mmproj)}} if mmproj else {}
    async with AsyncExitStack() as exits:
        enter = exits.enter_async_context
        engines = {name: await enter(start(model, pooling=pooling)) for name, model in models.items()}
        second = {name: await enter(start(models[name], slots=1, pooling="none")) for name in by_token}
        backends: dict[str, dict[str, object]] = {
            name: {"url": one.url, "slots": 16, "batch_tokens": batch_tokens, "model_file": str(models[name]), **images}
            for name, one in engines.items()
        }
        config = {"family": str(family), "max_input_tokens": batch_tokens, "backends": backends, **settings}
        if second:
            config["token_backends"] = {
                name: {**backends[name], "url": one.url, "slots": 1} for name, one in second.items()
            }
        url = await exits.enter_async_context(proxy(config, unready=unready))
        yield Stack(url=url, models=models, engines=engines, by_token=second)


@asynccontextmanager
async def proxy(
    config: Mapping[str, object], *, wait: bool = True, unready: Collection[str] = (), output: Path | None = None
) -> AsyncIterator[str]:
    """The proxy as a process for the block; yields its URL, if it is to `wait` when all but `unready` are ready.

    What it logs is in the file `output`.
    """
    with tempfile.TemporaryDirectory(prefix="trillama-") as folder:
        file, output, port = Path(folder, "proxy.toml"), output or Path(folder, "log"), unused_port()
        ProxySettings.model_validate({**config, "port": port})
        file.write_text(tomli_w.dumps({**config, "port": port}), encoding="utf-8")
        argv = (sys.executable, "-P", "-m", "proxy", "--config", str(file))
        async with running(argv, env=os.environ, grace_s=10, output=output) as process:
            url = f"http://127.0.0.1:{port}"
            await _until(process, url, output, unready if wait else None)
            yield url


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def _until(process: asyncio.subprocess.Process, url: str, output: Path, unready: Collection[str] | None) -> None:
    """Wait until all backends but these are ready; with None until it answers."""

    def done(states: Mapping[str, bool]) -> bool:
        return unready is None or all(ready or name in unready for name, ready in states.items())

    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while (states := await backends_ready(url)) is None or not done(states):
                assert process.returncode is None, f"the proxy ended: {last_lines(output, 20)}"
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"the proxy is not ready after {READY_TIMEOUT_S} s: {last_lines(output, 20)}") from None
