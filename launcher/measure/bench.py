"""`trillama bench`: how fast a server is, by text length and number of clients, and whether it is right."""

import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice

import aiohttp
import numpy as np
import orjson

from launcher.arrays import F32
from launcher.fleet.temporary import refusal_class, refusal_reason
from launcher.measure.loadgen import LENGTHS, RequestFailed, Summary, Texts, closed_loop, cut, summary, text, texts

CONCURRENCY = (1, 8, 32)
_PROBES = 8  # texts sent at each number of clients: other requests must not change their vectors
_SAME = 0.9999
MAX_OVERRUN = 4  # times a cell's time until the requests in flight are answered; slower cells are left out
_WORDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One kind of text at one number of clients. `summary` None: left out, it would take about `needs_s`."""

    kind: str
    clients: int
    tokens_per_text: float
    summary: Summary | None
    needs_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All cells; `worst_cosine` is the least between two vectors of one text, requested beside different others."""

    cells: tuple[Cell, ...]
    worst_cosine: float
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent: for how many seconds per cell, from which seed, and the length of a word to the model."""

    seconds: float
    seed: int
    tokens_per_word: float = 1.0


@dataclass(slots=True)
class BenchClient:
    """Sends requests to one server, and keeps the first vector of each text in `watched`."""

    session: aiohttp.ClientSession
    url: str
    task: str | None
    watched: set[str] = field(default_factory=set)
    first: dict[str, F32] = field(default_factory=dict)
    worst: float = 1.0
    unfinite: int = 0
    failed: set[str] = field(default_factory=set)

    async def ask(self, sent: Texts) -> int:
        """Send one request; the tokens that the server counted. Raises RequestFailed."""
        body = {"input": sent, "task": self.task, "embedding_type": "base64", "truncate": True}
        try:
            async with self.session.post(f"{self.url}/v1/embeddings", data=orjson.dumps(body)) as response:
                content = await response.read()
        except aiohttp.ClientError as error:
            raise RequestFailed(f"{self.url} broke off: {error}") from error
        if response.status != 200:
            raise RequestFailed(f"status {response.status}: {refusal_reason(content)}", response.status)
        answer = orjson.loads(content)
        for one, row in zip(sent, answer["data"], strict=True):
            self._check(one, np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4"))
        tokens: int = answer["usage"]["total_tokens"]
        return tokens

    def _check(self, text: str, vector: F32) -> None:
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or not length:
            self.unfinite += 1
        elif text in self.watched:
            before = self.first.setdefault(text, vector / length)
            self.worst = min(self.worst, float(before @ vector) / length)


@asynccontextmanager
async def connected(url: str, task: str | None, headers: Mapping[str, str]) -> AsyncIterator[BenchClient]:
    """A client for the block, with one connection per request in flight."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"Content-Type": "application/json", **headers},
    ) as session:
        yield BenchClient(session, url, task)


async def measure(client: BenchClient, load: Load, report: Callable[[str], None]) -> Findings:
    """Measure every kind of text at every number of clients. Raises LauncherError if the server refuses."""
    try:
        load = replace(load, tokens_per_word=await _tokens_per_word(client))
    except RequestFailed as error:
        raise refusal_class(error.status)(f"the server cannot be measured: {error}") from error
    cells: list[Cell] = []
    for kind in LENGTHS:
        speed = 0.0
        for clients in CONCURRENCY:
            report(f"{kind}, {clients} at once")
            cells.append(await _cell(client, load, kind, clients, speed))
            speed = max(speed, cells[-1].summary.tokens_per_s) if cells[-1].summary else speed
    return Findings(cells=tuple(cells), worst_cosine=client.worst, faults=_faults(client))


async def _tokens_per_word(client: BenchClient) -> float:
    """The length of a word in tokens: vocabularies differ, and to the demo models a token is a byte."""
    random = np.random.default_rng(0)
    some, more = [await client.ask([text(random, count)]) for count in (_WORDS, 2 * _WORDS)]
    return max(0.25, (more - some) / _WORDS)


async def _cell(client: BenchClient, load: Load, kind: str, clients: int, speed: float) -> Cell:
    """Measure one cell; `speed` is the best so far in tokens per second, 0 if there is none."""
    tokens = _mean_tokens(kind)
    needs_s = clients * tokens / speed if speed else 0.0
    if needs_s > MAX_OVERRUN * load.seconds:
        return Cell(kind=kind, clients=clients, tokens_per_text=tokens, summary=None, needs_s=needs_s)
    probes = list(islice(texts(np.random.default_rng(load.seed), kind, load.tokens_per_word), _PROBES))
    client.watched |= set(probes)
    rest = texts(np.random.default_rng([load.seed, clients]), kind, load.tokens_per_word)
    found = await closed_loop(client.ask, cut(chain(probes, rest), 1), clients=clients, seconds=load.seconds)
    client.failed |= {one.failed for one in found if one.failed}
    done = sum(not one.failed for one in found)
    mean = sum(one.tokens for one in found) / done if done else 0.0
    return Cell(kind=kind, clients=clients, tokens_per_text=mean, summary=summary(found))


def _mean_tokens(kind: str) -> float:
    low, high = LENGTHS[kind]
    return float((high - low) / np.log(high / low)) if low < high else float(low)


def _faults(client: BenchClient) -> tuple[str, ...]:
    faults = [f"a request failed: {one}" for one in sorted(client.failed)]
    if client.unfinite:
        faults.append(f"{client.unfinite} vectors were zero or not finite: see `trillama status` and the logs")
    if client.worst < _SAME:
        faults.append(
            f"a text's vector depends on other requests: cosine {client.worst:.5f}, expected {_SAME}; "
            "run `trillama doctor`"
        )
    return tuple(faults)
