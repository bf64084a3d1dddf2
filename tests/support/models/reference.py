"""A second opinion on every vector: the forward pass of Qwen2 and its kin, and its tokenizer, in plain numpy.

It shares no code with llama.cpp nor with the proxy. Written from the architecture's description: RMSNorm, rotary
positions on halves (NEOX), grouped-query attention with biases, SwiGLU, causal, a final RMSNorm, then the mean. The
multimodal rotary of Qwen2-VL gives a text token the same position in all its sections, and is then the plain one. Qwen3
has no biases and an RMSNorm of each query and key; EuroBERT neither, and its tokens see the whole text.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


class Reference:
    """One GGUF file's model, in float64 throughout: differences to it are the engine's rounding."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self._values = {name: field.contents() for name, field in reader.fields.items()}
        self._tensors: dict[str, F64] = {
            tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
            for tensor in reader.tensors
        }
        self._tokens = _Tokens(
            self._values["tokenizer.ggml.tokens"],
            self._values["tokenizer.ggml.merges"],
            self._values["tokenizer.ggml.token_type"],
        )

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, special tokens in it parsed, none added."""
        return list(self._tokens.encode(text))

    def embed(self, ids: Sequence[int]) -> F64:
        """The mean over the tokens, not normalised: (n_embd,)."""
        return np.asarray(self.states(ids).mean(axis=0))

    def states(self, ids: Sequence[int]) -> F64:
        """The last state of each token: (n, n_embd)."""
        x = self._tensors["token_embd.weight"][list(ids)]
        for i in range(self._hyper("block_count")):
            x = self._layer(f"blk.{i}.", x)
        return self._normed("output_norm", x)

    def embed_texts(self, texts: Sequence[str]) -> F64:
        """One raw vector per text: (n, n_embd)."""
        return np.stack([self.embed(self.encode(text)) for text in texts])

    def _hyper(self, name: str) -> int:
        return int(self._values[f"{self._values['general.architecture']}.{name}"])

    def _hyper_float(self, name: str) -> float:
        return float(self._values[f"{self._values['general.architecture']}.{name}"])

    def _layer(self, layer: str, x: F64) -> F64:
        x = x + self._attention(layer, self._normed(layer + "attn_norm", x))
        y = self._normed(layer + "ffn_norm", x)
        gate, up = self._linear(layer + "ffn_gate", y), self._linear(layer + "ffn_up", y)
        return x + self._linear(layer + "ffn_down", gate / (1 + np.exp(-gate)) * up)

    def _attention(self, layer: str, x: F64) -> F64:
        heads, kv_heads = self._hyper("attention.head_count"), self._hyper("attention.head_count_kv")
        base = self._hyper_float("rope.freq_base")
        q = rotated(self._heads(layer + "attn_q", x, heads), base)
        k = rotated(self._heads(layer + "attn_k", x, kv_heads), base)
        v = _split(self._linear(layer + "attn_v", x), kv_heads)
        k, v = (np.repeat(each, heads // kv_heads, axis=0) for each in (k, v))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        if self._values.get(f"{self._values['general.architecture']}.attention.causal", True):
            scores[:, *np.triu_indices(len(x), k=1)] = -np.inf  # a token sees itself and what is before it
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = weights / weights.sum(axis=-1, keepdims=True) @ v
        return self._linear(layer + "attn_output", mixed.transpose(1, 0, 2).reshape(len(x), -1))

    def _heads(self, name: str, x: F64, heads: int) -> F64:
        split = _split(self._linear(name, x), heads)
        return self._normed(name + "_norm", split) if name + "_norm.weight" in self._tensors else split

    def _linear(self, name: str, x: F64) -> F64:
        y = x @ self._tensors[name + ".weight"].T
        return y + self._tensors[name + ".bias"] if name + ".bias" in self._tensors else y

    def _normed(self, name: str, x: F64) -> F64:
        epsilon = self._hyper_float("attention.layer_norm_rms_epsilon")
        scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon)
        return np.asarray(x / scale * self._tensors[name + ".weight"])


def _split(x: F64, heads: int) -> F64:
    """(tokens, heads * size) → (heads, tokens, size)."""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def rotated(x: F64, base: float) -> F64:
    """Each pair (i, i + size/2) of a head turned by position * base**(-2i/size)."""
    half = x.shape[-1] // 2
    angles = np.outer(np.arange(x.shape[1]), base ** (-np.arange(half) / half))
    left, right = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([left * cos - right * sin, left * sin + right * cos], axis=-1)


# Qwen2's words, on a text whose non-ASCII characters are replaced by an ASCII one of their class (`_class_of`).
_WORDS = re.compile(
    r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]"
    r"| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.ASCII,
)


class _Tokens:
    """Byte-level BPE by the book: the pair that was learned first is merged first, from the left."""

    def __init__(self, tokens: Sequence[str], merges: Sequence[str], types: Sequence[int]) -> None:
        self._ids = {token: i for i, token in enumerate(tokens)}
        self._ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        whole = {gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED}
        special = [token for token, kind in zip(tokens, types, strict=True) if kind in whole]
        self._special = re.compile(f"({'|'.join(map(re.escape, special))})")
        self._letters = _letters()

    def encode(self, text: str) -> Iterator[int]:
        for i, part in enumerate(self._special.split(text)):
            if i % 2:  # what the group matched
                yield self._ids[part]
            else:
                for match in _WORDS.finditer("".join(map(_class_of, part))):
                    yield from self._word(part[match.start() : match.end()])

    def _word(self, word: str) -> Iterator[int]:
        parts = [self._letters[byte] for byte in word.encode()]
        while ranked := [(self._ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in self._ranks]:
            _, i = min(ranked)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return (self._ids[part] for part in parts)


def _class_of(character: str) -> str:
    if character.isascii():
        return character
    if character.isspace():
        return "\t"
    return {"L": "x", "N": "0"}.get(unicodedata.category(character)[0], "!")


def _letters() -> list[str]:
    """GPT-2's printable character for each byte: itself, or the next free one from U+0100."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte if byte in shown else 0x100 + hidden.index(byte)) for byte in range(256)]
