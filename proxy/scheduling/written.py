"""Token ids → texts as they are sent; and what is sent behind a short one."""

import asyncio
from collections.abc import Sequence

import orjson

from proxy.scheduling.entries import QueuedText, TokenizedText
from proxy.types import Ids

# llama.cpp's kernels round differently in a batch of fewer (measured on a CPU): a shorter exclusive text gets fillers.
MIN_EXCLUSIVE_TOKENS = 64
LARGE_TOKENS = 50_000  # tokens from which writing the ids is worth a thread: about 2 ms of the loop


async def tokenized(inputs: Sequence[Ids], *, exclusive: bool) -> list[TokenizedText]:
    """Each text's token ids as JSON."""
    if sum(map(len, inputs)) < LARGE_TOKENS:
        return _tokenized(inputs, exclusive)
    return await asyncio.to_thread(_tokenized, inputs, exclusive)


def fillers_of(texts: Sequence[QueuedText]) -> list[bytes]:
    """What is sent behind a short exclusive text, so that the batch is computed like any other."""
    first = texts[0]
    if first.exclusive and not first.image_tokens and first.tokens < MIN_EXCLUSIVE_TOKENS:
        return [b"[" + b",".join([first.ids.strip(b"[] ").split(b",")[0]] * MIN_EXCLUSIVE_TOKENS) + b"]"]
    return []


def _tokenized(inputs: Sequence[Ids], exclusive: bool) -> list[TokenizedText]:
    # The space makes another key of it: an exclusive text is never answered from a shared batch.
    end = b" " if exclusive else b""
    # Copied, as what orjson gives holds 4 KiB however short it is (measured), and a queue holds thousands of these.
    ids_of = (b"".join((orjson.dumps(ids, option=orjson.OPT_SERIALIZE_NUMPY), end)) for ids in inputs)
    return [TokenizedText(written, len(ids), exclusive) for written, ids in zip(ids_of, inputs, strict=True)]
