"""Byte-level BPE (`gpt2`), computed as llama.cpp computes it: equality with its /tokenize is the measure.

Where llama.cpp and the original Hugging Face tokenizer differ, this follows llama.cpp, except for the last two points:
- Qwen2's original normalises to NFC first, llama.cpp does not. "e" + U+0301 is one token there and two here.
  Callers that want the original's tokens for such texts normalise them first.
- The original matches `'s` case-insensitively by Unicode's rules, so U+017F (long s) too; llama.cpp: `'s` and `'S`.
- In Qwen2's vocabulary `</s>` is an ordinary token, 128247, that no merge produces: as HTML it is three tokens.
  llama.cpp of 2026 treats a token of that name as special in any model, and `</s>` in a text as 128247. This follows
  the file, as the original does; llama.cpp uses the ids that we send as they are.
- The originals of RoBERTa and ModernBERT find their mask token together with the spaces before it; llama.cpp does so
  for other models only.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from proxy.contract.gguf import Value
from proxy.tokens.kinds.vocabulary import (
    BosEosVocabulary,
    BuiltTokenizer,
    FailFastList,
    Id,
    UnsupportedTokenizer,
    ids_of,
    specials,
)

_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT_FORMS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2 = _SHORT_FORMS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL
_LLAMA3 = _SHORT_FORMS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreTokenizer:
    """What llama.cpp derives from `tokenizer.ggml.pre` alone (llama-vocab.cpp, `llama_vocab::impl::load`)."""

    words: str
    whole_words_first: bool = False  # a word that is a token is taken as it is, before any merge
    begins: bool = False  # BOS, unless the file says
    mask: str = ""  # found together with the spaces before it


_PRE_TOKENIZERS = {
    "gpt-2": _PreTokenizer(words=_GPT2),
    **dict.fromkeys(
        ("jina-v2-de", "jina-v2-es", "jina-v2-code", "roberta-bpe"), _PreTokenizer(words=_GPT2, mask="<mask>")
    ),
    "modern-bert": _PreTokenizer(words=_GPT2, mask="[MASK]"),
    "qwen2": _PreTokenizer(words=_QWEN2),
    "deepseek-r1-qwen": _PreTokenizer(words=_QWEN2),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "jina-v5-nano"),
        _PreTokenizer(words=_LLAMA3, whole_words_first=True, begins=True),
    ),
}


def byte_level_bpe(metadata: Mapping[str, Value]) -> BuiltTokenizer:
    """The tokenizer, as the header describes it; 0.6 s for 151,936 tokens. See `vocabulary.BuildTokenizer`."""
    header = _Header.model_validate(metadata)
    if header.pre not in _PRE_TOKENIZERS:
        raise UnsupportedTokenizer(f"pre-tokenizer {header.pre[:40]!r} is not supported")
    pre = _PRE_TOKENIZERS[header.pre]
    before, after = header.around(begins=pre.begins)
    inner = _inner(pre, header)
    longest = max(map(len, inner.get_vocab()))  # a byte-level token has one character for each byte
    return BuiltTokenizer(inner=inner, before=before, after=after, longest=longest)


class _Header(BosEosVocabulary):
    pre: str
    merges: FailFastList[str]
    bos_token_id: Id | None = 11
    eos_token_id: Id | None = 11


def _inner(pre: _PreTokenizer, header: _Header) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(_merging(pre, header))
    split = pre_tokenizers.Split(tokenizers.Regex(pre.words), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(specials(header.typed, lstrip=pre.mask))
    return inner


def _merging(pre: _PreTokenizer, header: _Header) -> models.BPE:
    vocabulary, merges = ids_of(header.tokens), [_pair(merge) for merge in header.merges]
    for left, right in merges:
        # tokenizers would panic on some of these: a BaseException, and a stack trace on stderr.
        if not (left in vocabulary and right in vocabulary and left + right in vocabulary):
            merge = f"{left[:40]!r} + {right[:40]!r}"
            raise UnsupportedTokenizer(f"vocabulary and merges do not fit together: a token of {merge} is missing")
    try:
        return models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre.whole_words_first)
    except Exception as error:  # tokenizers raises no narrower one
        raise UnsupportedTokenizer(f"vocabulary and merges do not fit together: {error}") from error


def _pair(merge: str) -> tuple[str, str]:
    """The two tokens of a merge. It has one space, between them: in byte-level text a space itself is "Ġ"."""
    left, _, right = merge.partition(" ")
    return left, right
