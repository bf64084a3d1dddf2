"""A stand-in for a whole server of Jina's API: vectors from the text's hash, and faults on demand.

As a program, for benches: python -m tests.support.servers.embeddings_stub PORT SECONDS_PER_TEXT
"""

import asyncio
import base64
import hashlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import orjson
from aiohttp import web
from numpy.typing import NDArray

TOKENS = 10  # of each text
Texts = Sequence[str]
Fault = Callable[[Texts], web.Response | None]


def vector_of(text: str, dimensions: int) -> NDArray[np.float32]:
    """The vector of that text: always the same, of length 1."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
    vector = np.random.default_rng(seed).standard_normal(dimensions, dtype=np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def cheap_vectors(texts: Texts, dimensions: int) -> NDArray[np.float32]:
    """A vector of each text's hash, without a generator each: for benches."""
    hashes = b"".join(hashlib.blake2b(text.encode(), digest_size=32).digest() for text in texts)
    few = np.frombuffer(hashes, dtype=np.uint8).reshape(len(texts), 32).astype(np.float32) + 1
    return np.tile(few, (1, -(-dimensions // 32)))[:, :dimensions]


def refused(status: int, **headers: str) -> web.Response:
    return web.json_response({"detail": f"it is a {status}", "code": f"code_{status}"}, status=status, headers=headers)


@dataclass(slots=True)
class EmbeddingsStub:
    """`fault` answers a call in place of vectors. `bad`: a text that fails by itself, with 422.

    `asked` counts each text that was answered with a vector.
    """

    dimensions: int = 8
    space: str = "space-1"
    seconds_per_text: float = 0.0
    cheap: bool = False
    fault: Fault = lambda _: None
    bad: Callable[[str], bool] = lambda _: False
    count_status: int = 404  # of a request to count tokens
    lanes: set[str | None] = field(default_factory=set)  # that calls asked for
    asked: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""
    _gpu: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def embed(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        texts: list[str] = body["input"]
        self.calls += 1
        self.lanes.add(request.headers.get("X-Trillama-Lane"))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if fault := self.fault(texts):
                return fault
            if self.seconds_per_text:
                async with self._gpu:
                    await asyncio.sleep(self.seconds_per_text * len(texts))
            return self._answer(texts, body.get("dimensions") or self.dimensions, request.headers.get("Accept", ""))
        finally:
            self.in_flight -= 1

    async def ready(self, _: web.Request) -> web.Response:
        return web.json_response({"backends": {}})

    async def count(self, _: web.Request) -> web.Response:
        return refused(self.count_status)

    def _answer(self, texts: list[str], dimensions: int, accept: str) -> web.Response:
        raw = accept.startswith("application/octet-stream")
        bad = [text for text in texts if self.bad(text)]
        if bad and (raw or len(bad) == len(texts)):
            return refused(422)
        self.asked.update(text for text in texts if text not in bad)
        headers = {
            "X-Trillama-Vector-Space": self.space,
            "X-Trillama-Model": "stub",
            "X-Trillama-Prefix": '"Passage: "',
        }
        if raw:
            shape = {"X-Embedding-Shape": f"{len(texts)},{dimensions}", "X-Usage-Tokens": str(TOKENS * len(texts))}
            if self.cheap:
                content = cheap_vectors(texts, dimensions).tobytes()
            else:
                content = b"".join(vector_of(text, dimensions).tobytes() for text in texts)
            return web.Response(body=content, content_type="application/octet-stream", headers={**headers, **shape})
        rows = [
            {"index": index, "error": {"code": "poisoned", "message": f"input {index} has fallen ill"}}
            if text in bad
            else {"index": index, "embedding": base64.b64encode(vector_of(text, dimensions).tobytes()).decode()}
            for index, text in enumerate(texts)
        ]
        usage = {"total_tokens": TOKENS * len(texts)}
        return web.json_response({"model": "stub", "data": rows, "usage": usage}, headers=headers)


@asynccontextmanager
async def embeddings_stub(stub: EmbeddingsStub, port: int = 0) -> AsyncIterator[EmbeddingsStub]:
    """Serve it on loopback for the block."""
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/embeddings", stub.embed)
    app.router.add_post("/v1/embeddings/count_tokens", stub.count)
    app.router.add_get("/ready", stub.ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    stub.url = site.name if port else f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stub
    finally:
        await runner.cleanup()


async def _serve(port: int, seconds_per_text: float) -> None:
    async with embeddings_stub(EmbeddingsStub(dimensions=2048, seconds_per_text=seconds_per_text, cheap=True), port):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
