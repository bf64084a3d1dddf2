"""Texts and a route → the texts that are tokenised, bounded by what can matter within the served length."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from functools import partial
from typing import TypeVar
from unicodedata import is_normalized

from proxy.contract.settings import UnicodeForm
from proxy.errors import InputTooLong, Invalid, invalid
from proxy.tokens.unicode_form import normalized
from proxy.types import Ids

PART = 1_000_000  # characters that are worked on at a time: tokenised, about 100 MB while that lasts
LARGE_TEXT = 20_000  # characters from which tokenising is worth a thread: about 5 ms of the loop
LARGE_FORM = 100_000  # the same for the Unicode form: 0.2 ms, or 20 if all of them are marks

T = TypeVar("T")


async def as_trained(prefix: str, texts: Sequence[str], form: UnicodeForm | None) -> list[str]:
    """Each text as the model was trained to see it: its prefix (kept even for an empty text), in that Unicode form."""
    prefixed = [prefix + text for text in texts]
    small = sum(map(len, prefixed)) < LARGE_FORM
    if form is None or (small and all(map(partial(is_normalized, form), prefixed))):
        return prefixed
    return await in_parts(lambda part: [normalized(text, form) for text in part], prefixed, LARGE_FORM)


async def in_parts(work: Callable[[Sequence[str]], list[T]], texts: Sequence[str], large: int) -> list[T]:
    """What `work` makes of each text; of `large` characters or more in a thread, a part at a time.

    So the loop never waits for it, memory stays bounded, and a request that was cancelled ends with its part.
    """
    if sum(map(len, texts)) < large:
        return work(texts)
    return [one for part in parts(texts, PART) for one in await asyncio.to_thread(work, part)]


def huge(inputs: Mapping[int, Sized], limit: int, longest_token: int) -> dict[int, str]:
    """The inputs that must have more than `limit` tokens, whatever they are, by index: how many, in words.

    A token stands for at most `longest_token` bytes, so this needs no tokenizer, and a huge text costs nothing. An id
    of any vocabulary stands for a byte at least.
    """
    most = kept(limit, longest_token)
    return {index: f"more than {len(one) // longest_token}" for index, one in inputs.items() if len(one) > most}


def kept(limit: int, longest_token: int) -> int:
    """How many characters of a text can matter to its first `limit` tokens."""
    return (limit + 64) * longest_token  # 64: what is kept must not be changed by where the text was cut


def too_long(inputs: Mapping[int, Ids], limit: int) -> dict[int, str]:
    """The token-id inputs of more than `limit` tokens, prefix included, by index: how many, in words."""
    return {index: str(len(ids)) for index, ids in inputs.items() if len(ids) > limit}


def refusal(found: Mapping[int, str], limit: int) -> InputTooLong:
    """What to tell the caller about those: every index and count, as far as it is readable."""
    named = ", ".join(f"input {index} has {count} tokens" for index, count in list(found.items())[:10])
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    advice = f"at most {limit} are served (prefix included); shorten it or set truncate: true"
    return InputTooLong(f"{named}{more}; {advice}", param="input")


def nothing(index: int) -> Invalid:
    """What to tell the caller about an input without any token: an empty text, and an empty prefix."""
    return invalid(f"input.{index}", "is empty, and so is this task's prefix: the model has nothing to read")


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
