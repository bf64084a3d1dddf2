"""Tokenises in the proxy: large texts in a thread, a part at a time, so that the event loop never waits."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from proxy.tokens.gguf_tokenizer import Tokenizer
from proxy.types import Ids

_PART = 1_000_000  # characters processed at a time: tokenising them takes about 100 MB meanwhile
LARGE_TEXT = 5_000  # characters from which tokenising is worth a thread: 1 to 11 ms of the loop

T = TypeVar("T")


class Tokenize(Protocol):
    async def __call__(self, texts: Sequence[str]) -> list[Ids]: ...


class LocalTokenizer:
    """The proxy's own tokenizer. Large texts go to a thread, one request at a time: one uses all cores already."""

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
    """Apply `work` to the texts; if they have `large` characters or more, in a thread, a part at a time.

    So the loop never waits, memory stays bounded, and a cancelled request ends with its current part.
    """
    if sum(map(len, texts)) < large:
        return work(texts)
    return [one for part in parts(texts, _PART) for one in await asyncio.to_thread(work, part)]


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
