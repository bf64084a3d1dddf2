"""Exact tokens in the proxy: a GGUF file's own tokenizer, of any supported kind.

`PINNED_TEXTS` are compared with the engine's own tokens at start.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from proxy.contract.gguf import BadGGUF, read_header
from proxy.tokens.kinds.bpe import byte_level_bpe
from proxy.tokens.kinds.spm import sentencepiece_bpe
from proxy.tokens.kinds.unigram import unigram
from proxy.tokens.kinds.vocabulary import ARRAYS, BuildTokenizer, BuiltTokenizer, UnsupportedTokenizer
from proxy.tokens.kinds.wordpiece import wordpiece

_KINDS: Mapping[str, BuildTokenizer] = {  # by `tokenizer.ggml.model`
    "gpt2": byte_level_bpe,
    "bert": wordpiece,
    "t5": unigram,
    "llama": sentencepiece_bpe,
}


class Tokenizer:
    """Text to ids and back, for one vocabulary. Thread-safe."""

    def __init__(self, built: BuiltTokenizer) -> None:
        self._inner = built.inner
        self._before, self._after = list(built.before), list(built.after)
        self.longest = built.longest  # the most bytes of a text that one token stands for; None: no bound

    @property
    def size(self) -> int:
        """The number of ids: 0 to `size` - 1."""
        return self._inner.get_vocab_size()

    def piece(self, token: int) -> str:
        """The name of an id in the vocabulary, as of `[CLS]`; empty if it has none."""
        return self._inner.id_to_token(token) or ""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, with the special tokens around it. Works on all cores, without the GIL."""
        encodings = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        if not (self._before or self._after):
            return [encoding.ids for encoding in encodings]
        return [[*self._before, *encoding.ids, *self._after] for encoding in encodings]

    def encode_with_offsets(self, text: str, most: int = sys.maxsize) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text, and where each of the first `most` starts and ends in it, in characters.

        Special tokens around the text have empty spans: at 0 before it, one character past its end after it. Works
        without the GIL.
        """
        (encoding,) = self._inner.encode_batch([text], add_special_tokens=False)  # `encode` would hold it
        # One by one: all offsets of a long text at once are a second of the GIL.
        inner = [encoding.token_to_chars(token) or (0, 0) for token in range(min(len(encoding), most))]
        behind = len(text) + 1
        offsets = [(0, 0)] * len(self._before) + inner + [(behind, behind)] * len(self._after)
        return [*self._before, *encoding.ids, *self._after], offsets[:most]

    def decode(self, ids: Sequence[int]) -> str:
        """The text that `encode` gives these ids, special tokens included, but not those around it.

        Bytes that are no UTF-8 become U+FFFD. Works without the GIL.
        """
        (text,) = self._inner.decode_batch([self._without_ends(ids)], skip_special_tokens=False)
        return text

    def _without_ends(self, ids: Sequence[int]) -> list[int]:
        inner, before, after = list(ids), self._before, self._after
        inner = inner[len(before) :] if before == inner[: len(before)] else inner
        return inner[: -len(after)] if after and after == inner[-len(after) :] else inner


def load_tokenizer(model_file: Path) -> Tokenizer:
    """The tokenizer in a GGUF file, within a second. Raises UnsupportedTokenizer if we cannot reproduce it."""
    try:
        metadata = read_header(model_file, ARRAYS).metadata
        kind = metadata.get("tokenizer.ggml.model")
        if not isinstance(kind, str) or kind not in _KINDS:
            raise UnsupportedTokenizer(f"tokenizer.ggml.model: {kind!r:.40} is not a supported kind")
        return Tokenizer(_KINDS[kind](metadata))
    except (BadGGUF, OSError) as error:
        raise UnsupportedTokenizer(str(error)) from error
    except ValidationError as error:
        faults = "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in error.errors(include_input=False))
        raise UnsupportedTokenizer(faults) from error


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
