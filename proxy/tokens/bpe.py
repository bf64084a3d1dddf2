"""Exact tokens in the proxy: a GGUF's own byte-level BPE, computed here as llama.cpp computes it.

Equality with the engine's /tokenize (add_special, parse_special) is the measure: `PINNED_TEXTS` are compared at start.
Where llama.cpp and the original Hugging Face tokenizer differ, this follows llama.cpp, except for the last point:
- Qwen2's original normalises to NFC first, llama.cpp does not. "e" + U+0301 is one token there and two here.
  Callers that want the original's tokens for such texts normalise them first.
- The original matches `'s` case-insensitively by Unicode's rules, so U+017F (long s) too; llama.cpp: `'s` and `'S`.
- In Qwen2's vocabulary `</s>` is an ordinary token, 128247, that no merge produces: as HTML it is three tokens.
  llama.cpp of 2026 treats a token of that name as special in any model, and `</s>` in a text as 128247. This follows
  the file, as the original does; llama.cpp uses the ids that we send as they are.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tokenizers
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from tokenizers import decoders, models, pre_tokenizers

from proxy.contract.gguf import BadGGUF, read_header

T = TypeVar("T")
_Listed = Annotated[list[T], FailFast()]  # one wrong item is enough, and an untrusted file may have a million

_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT_FORMS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2 = _SHORT_FORMS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL
_LLAMA3 = _SHORT_FORMS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What llama.cpp derives from `tokenizer.ggml.pre` alone (llama-vocab.cpp, `llama_vocab::impl::load`)."""

    words: str
    whole_words_first: bool = False  # a word that is a token is taken as it is, before any merge
    begins: bool = False  # BOS, unless the file says


_KINDS = {
    "gpt-2": _Kind(words=_GPT2),
    "qwen2": _Kind(words=_QWEN2),
    "deepseek-r1-qwen": _Kind(words=_QWEN2),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "jina-v5-nano"), _Kind(words=_LLAMA3, whole_words_first=True, begins=True)
    ),
}

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # gguf.TokenType: those that llama.cpp finds in a text before anything else


class UnsupportedTokenizer(Exception):
    """We cannot reproduce this tokenizer; `args[0]` says why. The caller uses the engine's /tokenize instead."""


class Tokenizer:
    """Text to ids and back, for one vocabulary. Thread-safe."""

    def __init__(self, inner: tokenizers.Tokenizer, *, before: Sequence[int], after: Sequence[int]) -> None:
        self._inner = inner
        self.longest = max(map(len, inner.get_vocab()))  # bytes: a byte-level token has one character for each
        self._before = list(before)
        self._after = list(after)

    @property
    def size(self) -> int:
        """The number of ids: 0 to `size` - 1."""
        return self._inner.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, BOS and EOS included if the model wants them. Works on all cores, without the GIL."""
        encodings = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        if not (self._before or self._after):
            return [encoding.ids for encoding in encodings]
        return [[*self._before, *encoding.ids, *self._after] for encoding in encodings]

    def encode_with_ends(self, text: str, most: int = sys.maxsize) -> tuple[list[int], list[int]]:
        """The ids of a text, and the end of each of the first `most` in it, in characters.

        EOS ends one behind the end of the text. Works without the GIL.
        """
        (encoding,) = self._inner.encode_batch([text], add_special_tokens=False)  # `encode` would hold it
        # One by one: all offsets of a long text at once are a second of the GIL.
        inner = [encoding.token_to_chars(token) or (0, 0) for token in range(min(len(encoding), most))]
        ends = [0] * len(self._before) + [end for _, end in inner] + [len(text) + 1] * len(self._after)
        return [*self._before, *encoding.ids, *self._after], ends[:most]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included; bytes that are no UTF-8 become U+FFFD. Works without the GIL."""
        (text,) = self._inner.decode_batch([list(ids)], skip_special_tokens=False)
        return text


def load_tokenizer(model_file: Path) -> Tokenizer:
    """The tokenizer in a GGUF file; 0.6 s for 151,936 tokens. Raises UnsupportedTokenizer if we cannot reproduce it."""
    try:
        head = _Head.model_validate(read_header(model_file, _KEYS).metadata)
    except (BadGGUF, OSError) as error:
        raise UnsupportedTokenizer(str(error)) from error
    except ValidationError as error:
        faults = "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in error.errors(include_input=False))
        raise UnsupportedTokenizer(faults) from error
    if head.pre not in _KINDS:
        raise UnsupportedTokenizer(f"pre-tokenizer {head.pre[:40]!r} is not one that we compute")
    kind = _KINDS[head.pre]
    begins = kind.begins if head.add_bos_token is None else head.add_bos_token
    before, after = [head.bos_token_id] if begins else [], [head.eos_token_id] if head.add_eos_token else []
    if any(token >= len(head.tokens) for token in (*before, *after)):
        raise UnsupportedTokenizer(f"BOS or EOS is not one of the {len(head.tokens)} tokens")
    return Tokenizer(_built(kind, head), before=before, after=after)


class _Head(BaseModel):
    """The keys that we read. A default is what llama.cpp uses for a byte-level BPE without that key."""

    model_config = ConfigDict(frozen=True, strict=True, alias_generator=lambda name: f"tokenizer.ggml.{name}")

    model: Literal["gpt2"]
    pre: str
    tokens: Annotated[_Listed[str], Field(min_length=1)]
    merges: _Listed[str]
    token_type: _Listed[int] = []
    bos_token_id: Annotated[int, Field(ge=0)] = 11
    eos_token_id: Annotated[int, Field(ge=0)] = 11
    add_bos_token: bool | None = None
    add_eos_token: bool = False


_KEYS = frozenset(field.alias for field in _Head.model_fields.values() if field.alias)


def _built(kind: _Kind, head: _Head) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(_merging(kind, head))
    split = pre_tokenizers.Split(tokenizers.Regex(kind.words), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(
        [
            tokenizers.AddedToken(token, normalized=False, special=True)
            for token, of_type in zip(head.tokens, head.token_type, strict=False)
            if of_type in {_UNKNOWN, _CONTROL, _USER_DEFINED}
        ]
    )
    return inner


def _merging(kind: _Kind, head: _Head) -> models.BPE:
    vocabulary = {token: i for i, token in enumerate(head.tokens)}
    if len(vocabulary) < len(head.tokens):
        raise UnsupportedTokenizer(f"{len(head.tokens) - len(vocabulary)} tokens are in the vocabulary twice")
    merges = [_pair(merge) for merge in head.merges]
    for left, right in merges:
        # tokenizers would panic on some of these: a BaseException, and a stack trace on stderr.
        if not (left in vocabulary and right in vocabulary and left + right in vocabulary):
            merge = f"{left[:40]!r} + {right[:40]!r}"
            raise UnsupportedTokenizer(f"vocabulary and merges do not fit together: a token of {merge} is missing")
    try:
        return models.BPE(vocab=vocabulary, merges=merges, ignore_merges=kind.whole_words_first)
    except Exception as error:  # tokenizers raises no narrower one
        raise UnsupportedTokenizer(f"vocabulary and merges do not fit together: {error}") from error


def _pair(merge: str) -> tuple[str, str]:
    """The two tokens of a merge. It has one space, between them: in byte-level text a space itself is "Ġ"."""
    left, _, right = merge.partition(" ")
    return left, right


# Every rule of the pre-tokenizers, every script a user may send, and each way to write the end of a line. Compared with
# the engine at start: a model whose tokenizer we compute wrongly must differ on one of these.
PINNED_TEXTS = (
    "",
    " ",
    "Query: the quick brown fox jumps over the lazy dog.",
    "Passage: It's what they'LL say; we've won, I'm sure, don't, he'D, you're. 'Tis ' s 'x ''s",
    "Die Größe der Brücke über den Fluß: 1.234,56 € \u2013 naïve Straßen, Mu\u0308nchen, e\u0301te\u0301",
    "我们的模型可以把文本变成向量。日本語のテキスト、カタカナ。한국어 문장입니다\u3000全角　スペース",
    "مرحبا بالعالم، هذا نصٌّ قصير. שלום עולם",
    "हिन्दी में लिखा हुआ पाठ। ภาษาไทย தமிழ் བོད་ཡིག ᠮᠣᠩᠭᠣᠯ\u180eᠤ",
    "👩‍👩‍👧‍👦 👍🏽 ❤️ 🇩🇪 🏴󠁧󠁢󠁥󠁮󠁧󠁿 text👩🏾‍🔬text",
    "0 1 12 123 1234 12345678901234567890 3.14159 ٣٤٥ ½ Ⅷ ² ㊿ x2y",
    "def f(x: int) -> list[str]:\n    return [g(x)  for _ in range(10)]\n\n\t# done\r\n}\n",
    "two  spaces   three    four \t tab\t\ttabs \n \n\n  \r\n\r\n \r end   ",
    "\x00 NUL\x00\x01\x7f \x85 \xa0 \u2028 \u2029\u200b\ufeff\u202f soft\xadhyphen",
    "<|im_start|>user\nhello<|im_end|> <|endoftext|><|im_start|im_end|> <tool_call></tool_call> [PAD151935]",
    "https://example.org/a_b/c-d?e=f&g=%20#h ... --- === (()) [[]] {{}} $%^&*@!~`|\\/<>\"'",
    "ǅ ǈ ʰ ª ﬁ \u017f '\u017f \u212a \u212b ß ẞ İ \u0131 \U0001d4b3 𐐷",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3,
)
