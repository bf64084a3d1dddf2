"""Pure: texts and a route → the token ids that the model gets, within the served length."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from proxy.config import UnicodeForm
from proxy.embedding import Ids
from proxy.errors import InputTooLong, Invalid, invalid


def as_trained(prefix: str, texts: Sequence[str], form: UnicodeForm | None) -> list[str]:
    """Each text as the model was trained to see it: its prefix (kept even for an empty text), in that Unicode form."""
    prefixed = [prefix + text for text in texts]
    return [unicodedata.normalize(form, text) for text in prefixed] if form else prefixed


def huge(texts: Sequence[str], limit: int, longest_token: int) -> dict[int, str]:
    """The texts that must have more than `limit` tokens, whatever they are, by index: how many, in words.

    A token stands for at most `longest_token` bytes, so this needs no tokenizer, and a huge text costs nothing.
    """
    most = kept(limit, longest_token)
    return {index: f"more than {len(text) // longest_token}" for index, text in enumerate(texts) if len(text) > most}


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
    part: list[str] = []
    for text in texts:
        if part and sum(map(len, part)) + len(text) > most:
            yield part
            part = []
        part.append(text)
    if part:
        yield part
