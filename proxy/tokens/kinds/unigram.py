"""SentencePiece's Unigram (`t5`), as Hugging Face's tokenizers of the XLM-RoBERTa models compute it.

llama.cpp and SentencePiece are the same but for oddities: these models' own tokenizer makes a composed character of a
letter with marks only if that is a rule for all of it (Hangul in single letters stays so), drops U+0085 as white space,
and finds "<mask>" together with the spaces before it.
"""

from collections.abc import Mapping, Sequence
from math import isfinite

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, pre_tokenizers

from proxy.contract.gguf import Value
from proxy.tokens.kinds.charsmap import charsmap_normalizer
from proxy.tokens.kinds.vocabulary import (
    SPECIAL_KINDS,
    BosEosVocabulary,
    BuiltTokenizer,
    FailFastList,
    Id,
    TokenKind,
    UnsupportedTokenizer,
    ids_of,
    specials,
)

_SPACE, _MASK = "▁", "<mask>"
_UNKNOWN = "\U0010ffff"  # in no vocabulary, so the decoded text of <unk> is <unk> again, with the "▁" before it


def unigram(metadata: Mapping[str, Value]) -> BuiltTokenizer:
    """The tokenizer, as the header describes it; 1 s for 250,002 tokens. See `vocabulary.BuildTokenizer`."""
    header = _Header.model_validate(metadata)
    if not (header.add_space_prefix and header.remove_extra_whitespaces):
        raise UnsupportedTokenizer("a Unigram tokenizer that keeps spaces is not supported")
    before, after = header.around(ends=True)
    pieces = _pieces(header)
    inner = tokenizers.Tokenizer(_model(pieces, header))
    if header.precompiled_charsmap:
        inner.normalizer = charsmap_normalizer(bytes(byte & 0xFF for byte in header.precompiled_charsmap))
    words = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    to_spaces = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    unknown = decoders.Replace(pieces[header.unknown_token_id][0], _UNKNOWN)
    inner.decoder = decoders.Sequence([unknown, to_spaces])
    inner.add_special_tokens(specials(pieces, lstrip=_MASK))
    # No longest: spaces and what the charsmap drops have no token, and unknown characters in a row have one.
    return BuiltTokenizer(inner=inner, before=before, after=after, longest=None)


class _Header(BosEosVocabulary):
    scores: FailFastList[float]
    precompiled_charsmap: FailFastList[int] = Field(default_factory=list)
    eos_token_id: Id | None = 1
    unknown_token_id: Id = 2
    mask_token_id: Id | None = None
    add_space_prefix: bool = False
    remove_extra_whitespaces: bool = False


def _pieces(header: _Header) -> list[tuple[str, int]]:
    """The pieces and their types, without the filler at the end."""
    pieces, mask = header.typed, header.mask_token_id
    if mask is not None and mask < len(pieces) and pieces[mask][1] == TokenKind.UNUSED:
        # SentencePiece's own file of XLM-RoBERTa lacks it, and so do GGUF files that are made of that.
        pieces[mask] = (_MASK, TokenKind.CONTROL)
    while pieces and pieces[-1][1] == TokenKind.UNUSED:
        pieces.pop()
    if any(kind in {TokenKind.UNUSED, TokenKind.BYTE} or not piece for piece, kind in pieces):
        raise UnsupportedTokenizer("a Unigram vocabulary with unused, empty or byte tokens is not supported")
    return pieces


def _model(pieces: Sequence[tuple[str, int]], header: _Header) -> models.Unigram:
    ids_of([piece for piece, _ in pieces])
    if header.unknown_token_id >= len(pieces):
        raise UnsupportedTokenizer(f"<unk> is not one of the {len(pieces)} tokens")
    if len(header.scores) < len(pieces) or not all(map(isfinite, header.scores)):
        raise UnsupportedTokenizer(f"not each of {len(pieces)} tokens has a finite score")
    scored = zip(pieces, header.scores, strict=False)
    vocabulary = [(piece, 0.0 if kind in SPECIAL_KINDS else score) for (piece, kind), score in scored]
    return models.Unigram(vocabulary, header.unknown_token_id, byte_fallback=False)
