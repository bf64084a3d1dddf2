"""Texts and a route → the texts that are tokenised, bounded by what can matter within the served length."""

from collections.abc import Mapping, Sequence, Sized
from functools import partial
from unicodedata import is_normalized

from proxy.contract.family import UnicodeForm
from proxy.errors import InputTooLong, Invalid, invalid
from proxy.tokens.tokenize import in_parts
from proxy.tokens.unicode_form import normalized
from proxy.types import Ids

LARGE_FORM = 100_000  # the same for the Unicode form: 0.2 ms, or 20 if all of them are marks


async def as_trained(prefix: str, texts: Sequence[str], form: UnicodeForm | None) -> list[str]:
    """Each text as the model was trained to see it: its prefix (kept even for an empty text), in that Unicode form."""
    prefixed = [prefix + text for text in texts]
    small = sum(map(len, prefixed)) < LARGE_FORM
    if form is None or (small and all(map(partial(is_normalized, form), prefixed))):
        return prefixed
    return await in_parts(lambda part: [normalized(text, form) for text in part], prefixed, LARGE_FORM)


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
