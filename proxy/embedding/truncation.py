"""Length limits: which part of an input can matter, and the errors of inputs that are too long or empty. Pure.

`preparation` cuts the inputs by these rules, `late_chunking` its documents.
"""

from collections.abc import Mapping, Sized

import numpy as np

from proxy.errors import InputTooLong
from proxy.faults import Invalid, invalid
from proxy.tokens.special import SpecialTokens
from proxy.types import Ids

MARGIN = 64  # tokens behind those that are kept: where a text was cut must not change the ones before
# Characters that are read of a text if a token has no maximum length: [UNK] is a word of any length, and many
# tokenizers drop spaces. A token of prose has 3 to 6.
MAX_READ = 2**20


def huge(inputs: Mapping[int, Sized], limit: int, longest_token: int | None) -> dict[int, str]:
    """The inputs that are too long for certain, by index: how long, in words.

    A token stands for at most `longest_token` bytes, so this needs no tokenizer, and a huge text costs nothing. An id
    of any vocabulary stands for at least one byte.
    """
    most = kept(limit, longest_token)
    return {index: at_least(len(one), longest_token) for index, one in inputs.items() if len(one) > most}


def at_least(characters: int, longest_token: int | None) -> str:
    """How long a text of so many characters certainly is, in words."""
    return f"{characters} characters" if longest_token is None else f"more than {characters // longest_token} tokens"


def kept(limit: int, longest_token: int | None) -> int:
    """How many characters of a text can matter to its first `limit` tokens, or are read to find them."""
    return MAX_READ if longest_token is None else (limit + MARGIN) * longest_token


def too_long(inputs: Mapping[int, Ids], limit: int) -> dict[int, str]:
    """The inputs of more than `limit` tokens, prefix included, by index: how many, in words."""
    return {index: f"{len(ids)} tokens" for index, ids in inputs.items() if len(ids) > limit}


def cut_ids(ids: Ids, limit: int, special: SpecialTokens) -> Ids:
    """At most `limit` tokens: the text's first ones, with the special tokens that the model has around every text.

    Without the last of these, a model that pools by the last token gives the vector of an arbitrary one.
    """
    if len(ids) <= limit or not special.after:
        return ids[:limit]
    return np.array([*ids[: max(0, limit - len(special.after))], *special.after], dtype=np.int32)


def refusal(counts: Mapping[int, str], limit: int) -> InputTooLong:
    """The error for inputs that are too long: their indices and lengths, the first ten of them."""
    named = ", ".join(f"input {index} has {count}" for index, count in list(counts.items())[:10])
    more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
    advice = f"at most {limit} tokens are served (prefix included); shorten it or set truncate: true"
    return InputTooLong(f"{named}{more}; {advice}", param="input")


def unread(index: int) -> InputTooLong:
    """The error for an input whose first MAX_READ characters have too few tokens to fill the limit."""
    message = f"only {MAX_READ} characters of input {index} are read, and they have too few tokens: shorten it"
    return InputTooLong(message, param="input")


def empty(index: int) -> Invalid:
    """The error for an input without any token: an empty text with an empty prefix."""
    return invalid(f"input.{index}", "is empty, and so is this task's prefix: the model has nothing to read")
