"""Pure: texts and a route → the token ids that the model gets, within the served length."""

import unicodedata
from collections.abc import Iterator, Sequence

from proxy.config import UnicodeForm
from proxy.embedding import Ids
from proxy.errors import InputTooLong, invalid


def as_trained(prefix: str, texts: Sequence[str], form: UnicodeForm | None) -> list[str]:
    """Each text as the model was trained to see it: its prefix (kept even for an empty text), in that Unicode form."""
    prefixed = [prefix + text for text in texts]
    return [unicodedata.normalize(form, text) for text in prefixed] if form else prefixed


def bounded(texts: Sequence[str], limit: int, longest_token: int, *, truncate: bool) -> list[str]:
    """The same texts, none so long that it must have more than `limit` tokens, whatever they are.

    A token stands for at most `longest_token` bytes, so this needs no tokenizer, and a huge text costs nothing. With
    `truncate` such a text is cut behind what can be kept. Without, raises InputTooLong naming the indexes.
    """
    most = (limit + 64) * longest_token  # 64: what is kept must not be changed by where the text was cut
    huge = [(index, len(text) // longest_token) for index, text in enumerate(texts) if len(text) > most]
    if huge and not truncate:
        raise _too_long([(index, f"more than {least}") for index, least in huge], limit)
    return [text[:most] for text in texts]


def within(limit: int, inputs: Sequence[Ids], *, truncate: bool) -> list[Ids]:
    """The same token-id inputs, none longer than `limit` tokens, prefix included.

    With `truncate` the tail is dropped, so the cut is on a token's border. Without, raises InputTooLong that names
    every index and count over the limit. Raises Invalid for an input without any token (an empty text and prefix).
    """
    for index, ids in enumerate(inputs):
        if not len(ids):
            raise invalid(f"input.{index}", "is empty, and so is this task's prefix: the model has nothing to read")
    too_long = [(index, str(len(ids))) for index, ids in enumerate(inputs) if len(ids) > limit]
    if too_long and not truncate:
        raise _too_long(too_long, limit)
    return [ids[:limit] for ids in inputs]


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


def _too_long(found: Sequence[tuple[int, str]], limit: int) -> InputTooLong:
    named = ", ".join(f"input {index} has {count} tokens" for index, count in found[:10])
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    advice = f"at most {limit} are served (prefix included); shorten it or set truncate: true"
    return InputTooLong(f"{named}{more}; {advice}", param="input")
