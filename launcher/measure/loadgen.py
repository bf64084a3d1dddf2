"""Load generator for an embeddings server: reproducible texts from a seed, and the measured latencies.

Closed loop: N clients, each with one request at a time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

import numpy as np
from numpy.random import Generator

# Tokens, from and to. Mixed: as many from 4 to 63 as from 63 to 1000, as most texts are short and some are long.
LENGTHS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"short": (16, 16), "medium": (128, 128), "long": (1000, 1000), "mixed": (4, 1000)}
)

# After a space each is one token, in Qwen's vocabulary and in the tests' small one.
WORDS = ("the", "passage", "that", "say", "dog", "text", "this", "they", "their", "self", "sun", "and", "over", "other")

Texts = Sequence[str]
Ask = Callable[[Texts], Awaitable[int]]  # sends one request, returns the tokens computed; raises RequestFailed


class RequestFailed(Exception):
    """A request that was rejected, broken off or answered wrongly. `args[0]` says how; `status` is HTTP's, if any."""

    def __init__(self, how: str, status: int = 0) -> None:
        super().__init__(how)
        self.status = status


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when it was due and when its answer was complete, in seconds of one clock. `failed`: why."""

    due_s: float
    done_s: float
    texts: int
    tokens: int
    failed: str = ""

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The outcome of many requests. Latencies are of the answered ones, in seconds; 0 if there are none."""

    requests: int
    failed: int
    seconds: float
    tokens_per_s: float
    texts_per_s: float
    p50_s: float
    p99_s: float
    max_s: float


def lengths(random: Generator, kind: str, count: int) -> list[int]:
    """Random token counts for `count` texts of a kind of LENGTHS."""
    low, high = LENGTHS[kind]
    drawn = np.exp(random.uniform(np.log(low), np.log(high + 1), count))
    return [min(high, int(one)) for one in drawn] if low < high else [low] * count


def text(random: Generator, tokens: int, tokens_per_word: float = 1.0) -> str:
    """About `tokens` tokens of words in random order: no two texts are equal, so none shares another's computation."""
    return " ".join(random.choice(WORDS, max(1, round(tokens / tokens_per_word))))


def texts(random: Generator, kind: str, tokens_per_word: float = 1.0) -> Iterator[str]:
    """An endless stream of texts of a kind of LENGTHS."""
    while True:
        yield from (text(random, one, tokens_per_word) for one in lengths(random, kind, 64))


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that at least `percent` % of the values do not exceed; 0 without values."""
    return float(np.percentile(values, percent, method="inverted_cdf")) if values else 0.0


def summary(samples: Sequence[Sample]) -> Summary:
    """Summarise samples; rates count from the first due time to the last answer."""
    good = [one for one in samples if not one.failed]
    seconds = max((one.done_s for one in samples), default=0.0) - min((one.due_s for one in samples), default=0.0)
    latencies = [one.latency_s for one in good]
    return Summary(
        requests=len(samples),
        failed=len(samples) - len(good),
        seconds=seconds,
        tokens_per_s=sum(one.tokens for one in good) / seconds if seconds else 0.0,
        texts_per_s=sum(one.texts for one in good) / seconds if seconds else 0.0,
        p50_s=percentile(latencies, 50),
        p99_s=percentile(latencies, 99),
        max_s=max(latencies, default=0.0),
    )


def cut(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    """Requests of `size` texts each; the last may have fewer."""
    while one := list(islice(texts, size)):
        yield one


async def closed_loop(ask: Ask, requests: Iterator[Texts], *, clients: int, seconds: float = 1e9) -> list[Sample]:
    """`clients` clients send request after request, until none is left or the time to begin one is over."""
    found: list[Sample] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (now := time.perf_counter()) < end and (texts := next(requests, None)) is not None:
            found.append(await timed(ask, texts, now))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
    return found


async def timed(ask: Ask, texts: Texts, due: float) -> Sample:
    """Send one request that was due then, and wait for its answer."""
    tokens, failed = 0, ""
    try:
        tokens = await ask(texts)
    except RequestFailed as error:
        failed = str(error)
    return Sample(due, time.perf_counter(), len(texts), tokens, failed)
