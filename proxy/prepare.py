"""Pure: texts and a route → the token ids that the model gets, within the served length."""

import unicodedata
from collections.abc import Sequence

from proxy.config import UnicodeForm
from proxy.errors import InputTooLong, invalid


def as_trained(prefix: str, texts: Sequence[str], form: UnicodeForm | None) -> list[str]:
    """Each text as the model was trained to see it: its prefix (kept even for an empty text), in that Unicode form."""
    prefixed = [prefix + text for text in texts]
    return [unicodedata.normalize(form, text) for text in prefixed] if form else prefixed


def within(limit: int, inputs: Sequence[list[int]], *, truncate: bool) -> list[list[int]]:
    """The same token-id inputs, none longer than `limit` tokens, prefix included.

    With `truncate` the tail is dropped, so the cut is on a token's border. Without, raises InputTooLong that names
    every index and count over the limit. Raises Invalid for an input without any token (an empty text and prefix).
    """
    for index, ids in enumerate(inputs):
        if not ids:
            raise invalid(f"input.{index}", "is empty, and so is this task's prefix: the model has nothing to read")
    too_long = [(index, len(ids)) for index, ids in enumerate(inputs) if len(ids) > limit]
    if not too_long:
        return list(inputs)
    if truncate:
        return [ids[:limit] for ids in inputs]
    named = ", ".join(f"input {index} has {count} tokens" for index, count in too_long[:10])
    more = f" and {len(too_long) - 10} more" if len(too_long) > 10 else ""
    advice = f"at most {limit} are served (prefix included); shorten it or set truncate: true"
    raise InputTooLong(f"{named}{more}; {advice}", param="input")
