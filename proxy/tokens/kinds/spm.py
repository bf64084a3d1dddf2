"""SentencePiece's BPE (`llama`), as Gemma and Llama 2 have it: llama.cpp, Hugging Face and SentencePiece agree.

The pair of pieces whose joined piece has the highest score is merged first, of equal ones the leftmost; a character
without a piece becomes bytes.
"""

from collections.abc import Mapping
from math import isfinite

import tokenizers
from tokenizers import decoders, models, normalizers

from proxy.contract.gguf import Value
from proxy.tokens.kinds.vocabulary import (
    BosEosVocabulary,
    BuiltTokenizer,
    FailFastList,
    Id,
    TokenKind,
    UnsupportedTokenizer,
    ids_of,
    specials,
)

_SPACE = "▁"
_LONGEST_PIECE = 256  # characters; real ones have 48 at most, and the time to split one grows with its square
_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def sentencepiece_bpe(metadata: Mapping[str, Value]) -> BuiltTokenizer:
    """The tokenizer, as the header describes it; 3 s for 262,144 tokens. See `vocabulary.BuildTokenizer`."""
    header = _Header.model_validate(metadata)
    before, after = header.around(begins=True)
    inner = tokenizers.Tokenizer(_model(header))
    prefix = [normalizers.Prepend(_SPACE)] if header.add_space_prefix else []
    inner.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if header.add_space_prefix else []
    inner.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    inner.add_special_tokens(specials(header.typed))
    longest = max(len(token.encode()) for token in header.tokens)
    return BuiltTokenizer(inner=inner, before=before, after=after, longest=longest)


class _Header(BosEosVocabulary):
    scores: FailFastList[float]
    bos_token_id: Id | None = 1
    eos_token_id: Id | None = 2
    add_space_prefix: bool = True


def _model(header: _Header) -> models.BPE:
    ids = ids_of(header.tokens)
    if not ids.keys() >= _BYTES:
        raise UnsupportedTokenizer(f"{len(_BYTES - ids.keys())} of the 256 byte tokens are missing")
    if len(header.scores) < len(ids):
        raise UnsupportedTokenizer(f"{len(header.scores)} scores for {len(ids)} tokens")
    if not all(map(isfinite, header.scores)):
        raise UnsupportedTokenizer("a score is not finite")
    if (longest := max(map(len, header.tokens))) > _LONGEST_PIECE:
        raise UnsupportedTokenizer(f"a token of {longest} characters is longer than {_LONGEST_PIECE}")
    return models.BPE(vocab=ids, merges=_merges(header, ids), byte_fallback=True)


def _merges(header: _Header, ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third, the best third first; in no GGUF file, so derived from the scores.

    Mistral's runs of spaces share one score. The leftmost pair of a run is the one that joins to the longest piece, so
    the longest comes first; ranks cannot tell the leftmost of other equal pieces.
    """
    merges = list[tuple[int, int]]()
    normal = [token for token, (_, kind) in enumerate(header.typed) if kind == TokenKind.NORMAL]
    joined = [token for token in normal if len(set(header.tokens[token])) > 1]
    if len({header.scores[token] for token in joined}) < len(joined):
        raise UnsupportedTokenizer("two pieces have one score, so which is merged first is not known")
    for token in sorted(normal, key=lambda token: (header.scores[token], len(header.tokens[token])), reverse=True):
        piece = header.tokens[token]
        splits = ((piece[:end], piece[end:]) for end in range(1, len(piece)))
        merges += sorted((ids[left], ids[right]) for left, right in splits if left in ids and right in ids)
    return [(header.tokens[left], header.tokens[right]) for left, right in merges]
