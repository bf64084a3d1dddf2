"""A node without models, as a process: its GPU is a sleep for each text, its vectors follow from the texts alone.

`python -m tests.support.nodes.stub_node --port 0 --ready-file FILE` speaks what a Front asks of a node:
`POST /v1/embeddings` in Jina's form, `/ready` and `/v1/models`, with the headers of a real node. Texts are computed one
after another, as a GPU does. A text that begins with POISON is a 422, one that begins with LONG a 400.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
from aiohttp import web

from proxy.contract.family import Family
from proxy.contract.settings_file import read_toml, validated_settings
from proxy.embedding.tasks import Route, TaskTable
from proxy.types import Matrix
from tests.support.nodes.stub_refusals import Refusal, all_refused, fault_of, refused

CONFIGS = Path(__file__).parents[3] / "configs"
FAMILY_FILE = CONFIGS / "families" / "jina-embeddings-v4.toml"
BODY_BYTES = 64 * 2**20


@dataclass(slots=True)
class StubNode:
    """What one stub serves, and its queue. `gpu_ms` a text; beyond `queue_tokens` it answers 429."""

    family: Family
    gpu_ms: float = 2.0
    queue_tokens: int = 2**22
    quantization: str = "Q8_0"
    api_key: str = ""
    images: bool = False  # whether `/ready` says that it takes them
    served: int = 0
    waiting: int = 0
    gpu: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def table(self) -> TaskTable:
        return TaskTable(self.family)

    @property
    def backends(self) -> list[str]:
        return list(dict.fromkeys(row.backend for row in self.family.tasks.values()))

    @property
    def load_headers(self) -> dict[str, str]:
        per_s = 0 if not self.gpu_ms else 1000 / self.gpu_ms * 10
        return {"X-Queue-Tokens": str(self.waiting), "X-Tokens-Per-Second": f"{per_s:.1f}"}

    def space(self, backend: str) -> str:
        return _digest(f"{self.family.name} {backend} {self.quantization}")

    def spaces(self) -> dict[str, dict[str, str]]:
        return {
            name: {
                "space": self.space(name),
                "quantization": self.quantization,
                **({"images": self.space(f"{name} images")} if self.images else {}),
            }
            for name in self.backends
        }

    def application(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES)
        app.router.add_post("/v1/embeddings", self.embed)
        app.router.add_get("/ready", self.ready)
        app.router.add_get("/v1/models", self.models)
        return app

    async def ready(self, _: web.Request) -> web.Response:
        spaces = self.spaces()
        body = {"status": "ready", "backends": dict.fromkeys(self.backends, "ready"), "spaces": spaces}
        headers = {"X-Trillama-Spaces": _digest(json.dumps(spaces, sort_keys=True)), **self.load_headers}
        return web.json_response(body, headers=headers)

    async def models(self, _: web.Request) -> web.Response:
        rows = [self._model(name, row) for name, row in self.table.tasks.items()]
        return web.json_response({"object": "list", "data": rows})

    async def embed(self, request: web.Request) -> web.Response:
        if self.api_key and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return refused(401, "AUTH_INVALID_API_KEY", "the API key is not one of those that this server accepts")
        body = orjson.loads(await request.read())
        texts = [one if isinstance(one, str) else json.dumps(one) for one in body["input"]]
        failed = {index: fault for index, text in enumerate(texts) if (fault := fault_of(index, text))}
        if failed and (len(failed) == len(texts) or body.get("on_error") != "partial"):
            return all_refused(list(failed.values()), listed=body.get("on_error") != "partial")
        tokens = sum(tokens_of(text) for index, text in enumerate(texts) if index not in failed)
        if self.waiting and self.waiting + tokens > self.queue_tokens:
            refusal = refused(429, "QUEUE_FULL", f"{self.waiting} tokens are waiting")
            refusal.headers.update({"Retry-After": "3", **self.load_headers})
            return refusal
        await self._compute(len(texts), tokens)
        row = self.table.route(None, body.get("task"))
        length = body.get("dimensions") or self.family.dimensions
        rows = {
            index: vector_of(text, row.prefix, self.family.dimensions)[:length]
            for index, text in enumerate(texts)
            if index not in failed
        }
        answer = self._answer(rows, failed, tokens, str(body.get("embedding_type")))
        headers = {**self._headers(row), **self.load_headers}
        return web.Response(body=orjson.dumps(answer), content_type="application/json", headers=headers)

    async def _compute(self, texts: int, tokens: int) -> None:
        self.waiting += tokens
        try:
            async with self.gpu:
                await asyncio.sleep(texts * self.gpu_ms / 1000)
        finally:
            self.waiting -= tokens
        self.served += texts

    def _answer(
        self, rows: Mapping[int, Matrix], failed: Mapping[int, Refusal], tokens: int, encoding: str
    ) -> dict[str, object]:
        def written(row: Matrix) -> object:
            return base64.b64encode(row.tobytes()).decode() if encoding == "base64" else row.tolist()

        return {
            "model": self.family.name,
            "object": "list",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "data": [
                {"object": "embedding", "index": index, "embedding": written(rows[index])}
                if index in rows
                else {
                    "object": "embedding",
                    "index": index,
                    "error": {"code": failed[index].code, "message": failed[index].whole},
                }
                for index in range(len(rows) + len(failed))
            ],
        }

    def _provenance(self, backend: str) -> dict[str, object]:
        return {
            "digest": f"sha256:{_digest(backend + self.quantization)}",
            "quantization": self.quantization,
            "engine": "stub",
            "space": self.space(backend),
            "pooling": "mean",
            "lora": None,
            "size": {"parameters": 1, "bytes": 1},
        }

    def _model(self, name: str, row: Route) -> dict[str, object]:
        return {
            "id": f"{self.family.name}:{name}",
            "object": "model",
            "created": int(time.time()),
            "owned_by": self.family.owned_by,
            "context_length": self.family.max_input_tokens,
            "task": name,
            "provenance": self._provenance(row.backend),
        }

    def _headers(self, row: Route) -> dict[str, str]:
        made = self._provenance(row.backend)
        return {
            "X-Trillama-Model": self.family.name,
            "X-Trillama-Task": row.task,
            "X-Trillama-Prefix": json.dumps(row.prefix),
            "X-Trillama-Model-Digest": str(made["digest"]),
            "X-Trillama-Quantization": self.quantization,
            "X-Trillama-Engine": "stub",
            "X-Trillama-Pooling": "mean",
            "X-Trillama-Vector-Space": self.space(row.backend),
        }


def vector_of(text: str, prefix: str, dimensions: int) -> Matrix:
    """The stub's vector of a text: of length 1, and another for each prefix and text."""
    seed = hashlib.blake2b(f"{prefix}\0{text}".encode(), digest_size=8).digest()
    row = np.random.default_rng(int.from_bytes(seed)).standard_normal(dimensions).astype(np.float32)
    return np.asarray(row / np.linalg.norm(row), dtype=np.float32)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tokens_of(text: str) -> int:
    return len(text) // 4 + 3


async def serve(node: StubNode, listener: socket.socket, ready_file: Path | None) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(node.application(), access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=1024).start()
        host, port = listener.getsockname()[:2]
        if ready_file:
            made = ready_file.with_name(ready_file.name + ".tmp")
            made.write_text(json.dumps({"url": f"http://{host}:{port}", "pid": os.getpid()}), encoding="utf-8")
            made.rename(ready_file)
        await stop.wait()
    finally:
        await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="stub_node", description="a trillama node whose GPU is a sleep")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ready-file", type=Path, help="written when it listens: JSON with url and pid")
    parser.add_argument("--family", type=Path, default=FAMILY_FILE)
    parser.add_argument("--dimensions", type=int, help="instead of the family's")
    parser.add_argument("--gpu-ms", type=float, default=2.0, help="milliseconds a text")
    parser.add_argument("--queue-tokens", type=int, default=2**22)
    parser.add_argument("--quantization", default="Q8_0", help="another one is another vector space")
    parser.add_argument("--api-key", default="")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    family = validated_settings(Family, read_toml(given.family), given.family)
    if given.dimensions:
        family = family.model_copy(update={"dimensions": given.dimensions})
    node = StubNode(
        family=family,
        gpu_ms=given.gpu_ms,
        queue_tokens=given.queue_tokens,
        quantization=given.quantization,
        api_key=given.api_key,
    )
    with socket.create_server((given.host, given.port), backlog=1024) as listener:
        asyncio.run(serve(node, listener, given.ready_file))


if __name__ == "__main__":
    main()
