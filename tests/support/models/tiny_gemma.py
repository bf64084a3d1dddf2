"""A random EmbeddingGemma as a GGUF file, and its forward pass in plain numpy, which is the truth for tests.

Written from the architecture's description: norms before and behind attention and feed-forward network, of queries and
keys too; five layers whose tokens see their neighbours only, then one whose tokens see the whole text, with another
rotary base; and two dense layers behind the mean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from launcher.conversion.gguf_writer import finish_file
from tests.support.models.reference import F64, rotated
from tests.support.tokens.vocabularies import add_vocabulary, original

WIDTH, LAYERS, HEADS, INNER, DENSE, WINDOW, EPSILON = 64, 6, 4, 96, 80, 8, 1e-6
BASE, LOCAL_BASE = 2000.0, 500.0
SIZE = WIDTH // HEADS  # of a head; there is one of keys and one of values


@dataclass(frozen=True, slots=True)
class TinyGemma:
    """Its weights, by llama.cpp's names."""

    tensors: dict[str, npt.NDArray[np.float32]]

    def states(self, ids: Sequence[int]) -> F64:
        """The last state of each token behind the dense layers, which give the same before the mean: (n, WIDTH)."""
        x = self._of("token_embd")[list(ids)] * np.sqrt(WIDTH)
        for layer in range(LAYERS):
            name = f"blk.{layer}."
            x = x + self._normed(name + "post_attention_norm", self._attention(layer, x))
            x = x + self._normed(name + "post_ffw_norm", self._feed_forward(name, x))
        return self._normed("output_norm", x) @ self._of("dense_2").T @ self._of("dense_3").T

    def _attention(self, layer: int, x: F64) -> F64:
        name, local = f"blk.{layer}.", layer % 6 < 5
        x = self._normed(name + "attn_norm", x)
        q = self._heads(name + "attn_q", x, HEADS)
        k = self._heads(name + "attn_k", x, 1)
        q, k = (rotated(each, LOCAL_BASE if local else BASE) for each in (q, k))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(SIZE)
        if local:
            places = np.arange(len(x))
            scores[:, np.abs(places[:, None] - places) > WINDOW // 2] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = weights / weights.sum(axis=-1, keepdims=True) @ (x @ self._of(name + "attn_v").T)
        return np.asarray(mixed.transpose(1, 0, 2).reshape(len(x), -1) @ self._of(name + "attn_output").T)

    def _heads(self, name: str, x: F64, heads: int) -> F64:
        split = (x @ self._of(name).T).reshape(len(x), heads, SIZE).transpose(1, 0, 2)
        return self._normed(name + "_norm", split)

    def _feed_forward(self, name: str, x: F64) -> F64:
        x = self._normed(name + "ffn_norm", x)
        gate, up = x @ self._of(name + "ffn_gate").T, x @ self._of(name + "ffn_up").T
        curved = gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        return np.asarray((curved * up) @ self._of(name + "ffn_down").T)

    def _normed(self, name: str, x: F64) -> F64:
        return np.asarray(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPSILON) * self._of(name))

    def _of(self, name: str) -> F64:
        return self.tensors[name + ".weight"].astype(np.float64)


def write_tiny_gemma(path: Path, *, context: int) -> TinyGemma:
    """Write a random one to `path`, with the tokens of Gemma's vocabulary that `vocabularies` has."""
    writer, vocabulary = gguf.GGUFWriter(path, "gemma-embedding"), original("spm")
    writer.add_context_length(context)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(SIZE)
    writer.add_value_length(SIZE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_sliding_window(WINDOW)
    writer.add_rope_freq_base(BASE)
    writer.add_float32("gemma-embedding.rope.freq_base_swa", LOCAL_BASE)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    sizes = {"dense_2_feat_in": WIDTH, "dense_2_feat_out": DENSE, "dense_3_feat_in": DENSE, "dense_3_feat_out": WIDTH}
    for name, size in sizes.items():
        writer.add_uint32(f"gemma-embedding.{name}", size)
    add_vocabulary(writer, vocabulary, add_bos_token=True, add_eos_token=True)
    model = TinyGemma(dict(_tensors(len(vocabulary.tokens), np.random.default_rng(5))))
    for name, values in model.tensors.items():
        writer.add_tensor(name, values)
    finish_file(writer)
    return model


def _tensors(vocabulary: int, rng: np.random.Generator) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    def random(rows: int, columns: int, gain: float = 1.5) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = gain / columns**0.5 * rng.standard_normal((rows, columns), np.float32)
        return found

    yield "token_embd.weight", random(vocabulary, WIDTH)
    yield "dense_2.weight", random(DENSE, WIDTH)
    yield "dense_3.weight", random(WIDTH, DENSE)
    norms = {"output_norm": WIDTH}
    for layer in (f"blk.{i}." for i in range(LAYERS)):
        norms |= dict.fromkeys((layer + "attn_norm", layer + "ffn_norm"), WIDTH)
        norms |= dict.fromkeys((layer + "post_attention_norm", layer + "post_ffw_norm"), WIDTH)
        norms |= dict.fromkeys((layer + "attn_q_norm", layer + "attn_k_norm"), SIZE)
        sizes = {"attn_q": (WIDTH, WIDTH), "attn_k": (SIZE, WIDTH), "attn_v": (SIZE, WIDTH)}
        sizes |= {"attn_output": (WIDTH, WIDTH), "ffn_down": (WIDTH, INNER)}
        sizes |= dict.fromkeys(("ffn_gate", "ffn_up"), (INNER, WIDTH))
        for name, (rows, columns) in sizes.items():
            yield f"{layer}{name}.weight", random(rows, columns)
    for name, size in norms.items():
        yield f"{name}.weight", (1 + 0.2 * rng.standard_normal(size)).astype(np.float32)
