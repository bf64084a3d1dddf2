"""The special tokens that a model's tokenizer puts around every text: BOS or [CLS] before it, EOS or [SEP] after."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

TEXT = "a"  # has tokens of its own in every vocabulary


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Their ids, in order."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def special_tokens(empty: Sequence[int], text: Sequence[int]) -> SpecialTokens:
    """What is around every text, from the ids of an empty text and those of TEXT. Raises ValueError if they differ."""
    count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(empty, text, strict=False)))
    before, after = tuple(empty[:count]), tuple(empty[count:])
    if len(text) <= len(empty) or tuple(text[len(text) - len(after) :]) != after:
        raise ValueError(f"an empty text has the tokens {list(empty)}, {TEXT!r} has {list(text)}")
    return SpecialTokens(before, after)
