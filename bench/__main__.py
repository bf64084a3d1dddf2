"""`python -m bench`: what the proxy costs over llama-server itself, asked for the same vectors with the same flags.

Both are asked in turn, so that a noisy machine disturbs both; medians and the median of paired ratios are printed.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from tests.engine import KINDS
from tests.proxy.client import vectors_of
from tests.proxy.stack import Stack, stack, write_models

TEXT = "Passage: What do I do if my lightsaber overheats? Let it cool down, then check the crystal. Case {}."
Ask = Callable[[Sequence[str]], Awaitable[bytes]]


async def main() -> None:
    """Print one row per request size."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--engine", choices=KINDS, default="embedded")
    parser.add_argument("--rounds", type=int, default=200, help="paired requests per row")
    arguments = parser.parse_args()
    table = Table("texts per request", "llama-server, ms", "trillama, ms", "added, ms", "ratio")
    with tempfile.TemporaryDirectory() as folder:
        models = write_models(Path(folder))
        async with stack(arguments.engine, models) as served, _asking(served) as (direct, proxied):
            for size, rounds in ((1, arguments.rounds), (64, max(10, arguments.rounds // 5))):
                table.add_row(str(size), *await _compare(direct, proxied, size, rounds))
    Console().print(table)


async def _compare(direct: Ask, proxied: Ask, size: int, rounds: int) -> list[str]:
    pairs = []
    for number in range(rounds):
        texts = [TEXT.format(number * size + index) for index in range(size)]
        first, second = (direct, proxied) if number % 2 else (proxied, direct)
        timed = {ask: await _timed(ask, texts) for ask in (first, second)}
        pairs.append((timed[direct], timed[proxied]))
    warm = pairs[rounds // 10 :]
    alone, through = (statistics.median(column) * 1e3 for column in zip(*warm, strict=True))
    ratio = statistics.median(b / a for a, b in warm)
    return [f"{alone:.2f}", f"{through:.2f}", f"{through - alone:+.2f}", f"{ratio:.3f}"]


async def _timed(ask: Ask, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    await ask(texts)
    return time.perf_counter() - started


class _asking:  # noqa: N801 # a context manager, as a function would be
    """Both ways to the same model, each over one kept-alive connection; checked to give the same vectors."""

    def __init__(self, served: Stack) -> None:
        socket = str(served.engines["retrieval"].socket)
        self._direct = aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket, keepalive_timeout=3))
        self._proxied = aiohttp.ClientSession()
        self._url = f"{served.url}/v1/embeddings"

    async def __aenter__(self) -> tuple[Ask, Ask]:
        alone, through = _normal(await self.direct(["Passage: same"])), _normal(await self.proxied(["same"]))
        assert alone @ through > 0.99999, "the two ways do not give the same vector"
        return self.direct, self.proxied

    async def __aexit__(self, *_: object) -> None:
        await self._direct.close()
        await self._proxied.close()

    async def direct(self, texts: Sequence[str]) -> bytes:
        body = {"input": list(texts), "encoding_format": "base64"}
        return await _post(self._direct, "http://llama-server/v1/embeddings", body)

    async def proxied(self, texts: Sequence[str]) -> bytes:
        body = {"task": "retrieval.passage", "input": [text.removeprefix("Passage: ") for text in texts]}
        return await _post(self._proxied, self._url, {**body, "encoding_format": "base64"})


async def _post(session: aiohttp.ClientSession, url: str, body: object) -> bytes:
    async with session.post(url, data=orjson.dumps(body), headers={"Content-Type": "application/json"}) as answer:
        content = await answer.read()
        assert answer.status == 200, content
        return content


def _normal(body: bytes) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    (vector,) = vectors_of(orjson.loads(body)["data"])
    return np.asarray(vector / np.linalg.norm(vector))


if __name__ == "__main__":
    asyncio.run(main())
