"""Tokenising in the proxy: much text in a thread, a part at a time, so that the event loop never waits for it."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from proxy.tokens.bpe import Tokenizer
from proxy.types import Ids

PART = 1_000_000  # characters that are worked on at a time: tokenised, about 100 MB while that lasts
LARGE_TEXT = 20_000  # characters from which tokenising is worth a thread: about 5 ms of the loop

T = TypeVar("T")


class Tokenize(Protocol):
    async def __call__(self, texts: Sequence[str]) -> list[Ids]: ...


class LocalTokenizer:
    """The proxy's own tokenizer. Much text goes to a thread, of one request at a time: it takes all cores as it is."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._large = asyncio.Lock()

    async def __call__(self, texts: Sequence[str]) -> list[Ids]:
        if sum(map(len, texts)) < LARGE_TEXT:
            return self._encode(texts)
        async with self._large:
            return await in_parts(self._encode, texts, LARGE_TEXT)

    def _encode(self, texts: Sequence[str]) -> list[Ids]:
        return [np.array(ids, dtype=np.int32) for ids in self._tokenizer.encode(texts)]


async def in_parts(work: Callable[[Sequence[str]], list[T]], texts: Sequence[str], large: int) -> list[T]:
    """What `work` makes of each text; of `large` characters or more in a thread, a part at a time.

    So the loop never waits for it, memory stays bounded, and a request that was cancelled ends with its part.
    """
    if sum(map(len, texts)) < large:
        return work(texts)
    return [one for part in parts(texts, PART) for one in await asyncio.to_thread(work, part)]


def parts(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """The texts in order, in lists of at most `most` characters together, or of one text."""
    part, held = list[str](), 0
    for text in texts:
        if part and held + len(text) > most:
            yield part
            part, held = [], 0
        part.append(text)
        held += len(text)
    if part:
        yield part
