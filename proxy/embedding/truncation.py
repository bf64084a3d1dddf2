"""Length limits: which part of an input can matter, and the errors of inputs that are too long or empty. Pure.

`preparation` cuts the inputs by these rules, `late_chunking` its documents.
"""

from collections.abc import Mapping, Sized

from proxy.errors import InputTooLong, Invalid, invalid
from proxy.types import Ids


def huge(inputs: Mapping[int, Sized], limit: int, longest_token: int) -> dict[int, str]:
    """The inputs that certainly have more than `limit` tokens, by index: how many, in words.

    A token stands for at most `longest_token` bytes, so this needs no tokenizer, and a huge text costs nothing. An id
    of any vocabulary stands for at least one byte.
    """
    most = kept(limit, longest_token)
    return {index: f"more than {len(one) // longest_token}" for index, one in inputs.items() if len(one) > most}


def kept(limit: int, longest_token: int) -> int:
    """How many characters of a text can matter to its first `limit` tokens."""
    return (limit + 64) * longest_token  # 64: where the text was cut must not change the tokens that are kept


def too_long(inputs: Mapping[int, Ids], limit: int) -> dict[int, str]:
    """The inputs of more than `limit` tokens, prefix included, by index: how many, in words."""
    return {index: str(len(ids)) for index, ids in inputs.items() if len(ids) > limit}


def refusal(counts: Mapping[int, str], limit: int) -> InputTooLong:
    """The error for inputs that are too long: their indices and counts, the first ten of them."""
    named = ", ".join(f"input {index} has {count} tokens" for index, count in list(counts.items())[:10])
    more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
    advice = f"at most {limit} are served (prefix included); shorten it or set truncate: true"
    return InputTooLong(f"{named}{more}; {advice}", param="input")


def empty(index: int) -> Invalid:
    """The error for an input without any token: an empty text with an empty prefix."""
    return invalid(f"input.{index}", "is empty, and so is this task's prefix: the model has nothing to read")
