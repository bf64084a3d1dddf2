"""What all kinds of tokenizers have in common: the vocabulary in a GGUF's header, and what is built from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, repeat
from typing import Annotated, Protocol, TypeVar

import tokenizers
from pydantic import BaseModel, ConfigDict, FailFast, Field

from proxy.contract.gguf import Value

T = TypeVar("T")
FailFastList = Annotated[list[T], FailFast()]  # one wrong item is enough, and an untrusted file may have a million
Id = Annotated[int, Field(ge=0)]

ARRAYS = frozenset(
    f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "scores", "merges", "precompiled_charsmap")
)


class TokenKind(IntEnum):
    """The types that a GGUF's vocabulary gives its tokens."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# llama.cpp finds these in a text before anything else.
SPECIAL_KINDS = frozenset({TokenKind.UNKNOWN, TokenKind.CONTROL, TokenKind.USER_DEFINED})


class UnsupportedTokenizer(Exception):
    """We cannot reproduce this tokenizer; `args[0]` says why. The caller uses the engine's /tokenize instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltTokenizer:
    """A tokenizer without special tokens of its own, and those that are to be put before and after each text.

    `longest` is the most bytes of a text that one token stands for; None if there is no bound.
    """

    inner: tokenizers.Tokenizer
    before: Sequence[int]
    after: Sequence[int]
    longest: int | None


class BuildTokenizer(Protocol):
    """What each module of this folder has: from a header's metadata, with the ARRAYS, to the tokenizer."""

    def __call__(self, metadata: Mapping[str, Value], /) -> BuiltTokenizer:
        """Raises UnsupportedTokenizer, or pydantic's ValidationError for a key that is missing or wrong."""


class Vocabulary(BaseModel):
    """The keys that every kind reads; a kind adds its own. A default is what llama.cpp uses without that key."""

    model_config = ConfigDict(frozen=True, strict=True, alias_generator=lambda name: f"tokenizer.ggml.{name}")

    tokens: Annotated[FailFastList[str], Field(min_length=1)]
    token_type: FailFastList[int] = []

    @property
    def typed(self) -> list[tuple[str, int]]:
        """Each token with its type: NORMAL if the file does not say."""
        return list(zip(self.tokens, chain(self.token_type, repeat(TokenKind.NORMAL)), strict=False))

    def check_ids(self, names: str, *ids: int | None) -> None:
        """Raises UnsupportedTokenizer unless all of the `ids` are in the vocabulary."""
        if any(token is None or token >= len(self.tokens) for token in ids):
            raise UnsupportedTokenizer(f"{names} is not one of the {len(self.tokens)} tokens")


class BosEosVocabulary(Vocabulary):
    """One whose texts may begin with BOS and end with EOS."""

    bos_token_id: Id | None = None
    eos_token_id: Id | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None

    def around(self, *, begins: bool = False, ends: bool = False) -> tuple[list[int], list[int]]:
        """The ids before and after each text; `begins`, `ends`: unless the file says. Raises UnsupportedTokenizer."""
        begins = begins if self.add_bos_token is None else self.add_bos_token
        ends = ends if self.add_eos_token is None else self.add_eos_token
        before, after = [self.bos_token_id] if begins else [], [self.eos_token_id] if ends else []
        self.check_ids("BOS or EOS", *before, *after)
        return [token for token in before if token is not None], [token for token in after if token is not None]


def ids_of(tokens: Sequence[str]) -> dict[str, int]:
    """The id of each token. Raises UnsupportedTokenizer if one is there twice."""
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        raise UnsupportedTokenizer(f"{len(tokens) - len(ids)} tokens are in the vocabulary twice")
    return ids


def specials(tokens: Iterable[tuple[str, int]], *, lstrip: str = "") -> list[tokenizers.AddedToken]:
    """The SPECIAL_KINDS among the tokens, which are given with their types.

    `lstrip` is found together with the spaces before it.
    """
    return [
        tokenizers.AddedToken(token, normalized=False, special=True, lstrip=token == lstrip)
        for token, kind in tokens
        if kind in SPECIAL_KINDS
    ]
