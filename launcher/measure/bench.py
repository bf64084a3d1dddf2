"""`trillama bench`: how fast a server is for texts of each length, by how many ask at once; and is it right."""

import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice

import aiohttp
import numpy as np
import orjson

from launcher.errors import LauncherError
from launcher.measure.loadgen import LENGTHS, RequestFailed, Summary, Texts, closed_loop, cut, summary, text, texts
from launcher.measure.similarity import F32

CONCURRENCY = (1, 8, 32)
PROBES = 8  # texts that each number of clients sends: their vectors must be the same whoever else asks
SAME = 0.9999
PATIENCE = 4  # times the time for a cell, until those who have begun have their answers; what takes longer is left out
WORDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One kind of text at one number of clients. `summary` None: not measured, it would take about `needs_s`."""

    kind: str
    clients: int
    tokens_per_text: float
    summary: Summary | None
    needs_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All cells; `worst_cosine` is between vectors of one text that were asked for beside others and alone."""

    cells: tuple[Cell, ...]
    worst_cosine: float
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much of what is sent: seconds for each cell, the texts' seed, and how long a word is to the model."""

    seconds: float
    seed: int
    tokens_per_word: float = 1.0


@dataclass(slots=True)
class BenchClient:
    """Asks one server, and remembers the vectors of the first time that it saw a text of `watched`."""

    session: aiohttp.ClientSession
    url: str
    task: str | None
    watched: set[str] = field(default_factory=set)
    first: dict[str, F32] = field(default_factory=dict)
    worst: float = 1.0
    unfinite: int = 0
    failed: set[str] = field(default_factory=set)

    async def ask(self, asked: Texts) -> int:
        """The tokens that the server counted. Raises RequestFailed."""
        body = {"input": asked, "task": self.task, "embedding_type": "base64", "truncate": True}
        try:
            async with self.session.post(f"{self.url}/v1/embeddings", data=orjson.dumps(body)) as response:
                content = await response.read()
        except aiohttp.ClientError as error:
            raise RequestFailed(f"{self.url} broke off: {error}") from error
        if response.status != 200:
            raise RequestFailed(f"status {response.status}: {content[:200].decode(errors='replace')}")
        answer = orjson.loads(content)
        for one, row in zip(asked, answer["data"], strict=True):
            self._look(one, np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4"))
        tokens: int = answer["usage"]["total_tokens"]
        return tokens

    def _look(self, asked: str, vector: F32) -> None:
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or not length:
            self.unfinite += 1
        elif asked in self.watched:
            before = self.first.setdefault(asked, vector / length)
            self.worst = min(self.worst, float(before @ vector) / length)


@asynccontextmanager
async def client(url: str, task: str | None, headers: Mapping[str, str]) -> AsyncIterator[BenchClient]:
    """A client for the block; it opens as many connections as it has requests on their way."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"Content-Type": "application/json", **headers},
    ) as session:
        yield BenchClient(session, url, task)


async def measure(asking: BenchClient, load: Load, report: Callable[[str], None]) -> Findings:
    """Every kind of text by every number of clients. Raises LauncherError if the server refuses."""
    try:
        load = replace(load, tokens_per_word=await _tokens_per_word(asking))
    except RequestFailed as error:
        raise LauncherError(f"the server cannot be measured: {error}") from error
    cells: list[Cell] = []
    for kind in LENGTHS:
        speed = 0.0
        for clients in CONCURRENCY:
            report(f"{kind}, {clients} at once")
            cells.append(await _cell(asking, load, kind, clients, speed))
            speed = max(speed, cells[-1].summary.tokens_per_s) if cells[-1].summary else speed
    return Findings(cells=tuple(cells), worst_cosine=asking.worst, faults=_faults(asking))


async def _tokens_per_word(asking: BenchClient) -> float:
    """Vocabularies differ; to the demo models a token is a byte."""
    random = np.random.default_rng(0)
    some, more = [await asking.ask([text(random, count)]) for count in (WORDS, 2 * WORDS)]
    return max(0.25, (more - some) / WORDS)


async def _cell(asking: BenchClient, load: Load, kind: str, clients: int, speed: float) -> Cell:
    """`speed` is the best so far in tokens per second, 0 if there is none."""
    tokens = _mean_tokens(kind)
    needs_s = clients * tokens / speed if speed else 0.0
    if needs_s > PATIENCE * load.seconds:
        return Cell(kind=kind, clients=clients, tokens_per_text=tokens, summary=None, needs_s=needs_s)
    probes = list(islice(texts(np.random.default_rng(load.seed), kind, load.tokens_per_word), PROBES))
    asking.watched |= set(probes)
    rest = texts(np.random.default_rng([load.seed, clients]), kind, load.tokens_per_word)
    found = await closed_loop(asking.ask, cut(chain(probes, rest), 1), clients=clients, seconds=load.seconds)
    asking.failed |= {one.failed for one in found if one.failed}
    done = sum(not one.failed for one in found)
    mean = sum(one.tokens for one in found) / done if done else 0.0
    return Cell(kind=kind, clients=clients, tokens_per_text=mean, summary=summary(found))


def _mean_tokens(kind: str) -> float:
    low, high = LENGTHS[kind]
    return float((high - low) / np.log(high / low)) if low < high else float(low)


def _faults(asking: BenchClient) -> tuple[str, ...]:
    faults = [f"a request failed: {one}" for one in sorted(asking.failed)]
    if asking.unfinite:
        faults.append(f"{asking.unfinite} vectors were zero or not finite: see `trillama status` and the logs")
    if asking.worst < SAME:
        faults.append(
            f"a text's vector depends on who else asks: cosine {asking.worst:.5f}, and {SAME} is expected; "
            "run `trillama doctor`"
        )
    return tuple(faults)
