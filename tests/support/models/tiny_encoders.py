"""Random encoders of BERT's kind as GGUF files, and their forward pass in plain numpy, which is the truth for tests.

Written from the models' descriptions: norms behind attention and feed-forward network, attention over the whole text.
They differ in positions (learned, ALiBi's distances, rotary), and in the feed-forward network's activation and gate.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
import numpy.typing as npt

from launcher.conversion.gguf_writer import finish_file
from proxy.contract.family import Pooling
from tests.support.models.reference import F64, rotated
from tests.support.tokens.vocabularies import Original, add_vocabulary

Kind = Literal["bert", "jina-bert-v2", "nomic-bert", "jina-bert-v3"]
WIDTH, LAYERS, HEADS, INNER, BASE, EPSILON = 64, 2, 4, 96, 1000.0, 1e-6
RANK, ALPHA = 4, 8.0  # of a LoRA
GATED: tuple[Kind, ...] = ("jina-bert-v2", "nomic-bert")
ROTARY: tuple[Kind, ...] = ("nomic-bert", "jina-bert-v3")


@dataclass(frozen=True, slots=True)
class TinyEncoder:
    """An encoder's weights, by llama.cpp's names."""

    kind: Kind
    tensors: dict[str, npt.NDArray[np.float32]]

    def states(self, ids: Sequence[int]) -> F64:
        """The last state of each token: (n, WIDTH)."""
        x = self._of("token_embd.weight")[list(ids)] + self._of("token_types.weight")[0]
        if self.kind == "bert":
            x = x + self._of("position_embd.weight")[: len(ids)]
        x = self._normed("token_embd_norm", x)
        for layer in (f"blk.{i}." for i in range(LAYERS)):
            x = self._normed(layer + "attn_output_norm", x + self._attention(layer, x))
            x = self._normed(layer + "layer_output_norm", x + self._feed_forward(layer, x))
        return x

    def _attention(self, layer: str, x: F64) -> F64:
        q, k, v = (
            self._linear(f"{layer}attn_{name}", x).reshape(len(x), HEADS, -1).transpose(1, 0, 2) for name in "qkv"
        )
        if self.kind in ROTARY:
            q, k = rotated(q, BASE), rotated(k, BASE)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        if self.kind == "jina-bert-v2":
            places = np.arange(len(x))
            slopes = 2.0 ** (-8 / HEADS * np.arange(1, HEADS + 1))
            scores = scores - slopes[:, None, None] * np.abs(places[:, None] - places)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = weights / weights.sum(axis=-1, keepdims=True) @ v
        return self._linear(layer + "attn_output", mixed.transpose(1, 0, 2).reshape(len(x), -1))

    def _feed_forward(self, layer: str, x: F64) -> F64:
        activation: Callable[[F64], F64] = _silu if self.kind == "nomic-bert" else _gelu
        up = self._linear(layer + "ffn_up", x)
        inner = activation(self._linear(layer + "ffn_gate", x)) * up if self.kind in GATED else activation(up)
        return self._linear(layer + "ffn_down", inner)

    def _linear(self, name: str, x: F64) -> F64:
        return x @ self._of(name + ".weight").T + self._of(name + ".bias")

    def _normed(self, name: str, x: F64) -> F64:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
        return np.asarray(centred / scale * self._of(name + ".weight") + self._of(name + ".bias"))

    def _of(self, name: str) -> F64:
        """The tensor; nothing is added where the kind has no bias."""
        return self.tensors[name].astype(np.float64) if name in self.tensors else np.zeros(1)


def write_tiny_encoder(
    path: Path, kind: Kind, vocabulary: Original, *, pooling: Pooling | None, context: int = 128, **tokens: bool
) -> TinyEncoder:
    """Write a random encoder of that kind to `path`; `tokens` are changed keys of its tokenizer."""
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(context)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_rope_freq_base(BASE)
    writer.add_token_type_count(2)
    writer.add_vocab_size(len(vocabulary.tokens))
    if pooling:
        writer.add_pooling_type(gguf.PoolingType[pooling.upper()])
    add_vocabulary(writer, vocabulary, **tokens)
    model = TinyEncoder(kind, dict(_tensors(kind, len(vocabulary.tokens), context, np.random.default_rng(3))))
    for name, values in model.tensors.items():
        writer.add_tensor(name, values)
    finish_file(writer)
    return model


def write_encoder_lora(path: Path, model: TinyEncoder) -> TinyEncoder:
    """Write a random LoRA for every matrix of the model to `path`; returns the model with it merged."""
    writer, rng, merged = gguf.GGUFWriter(path, model.kind), np.random.default_rng(11), dict(model.tensors)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    for name in ("token_embd.weight", *(name for name in merged if "blk." in name and merged[name].ndim == 2)):
        rows, columns = merged[name].shape
        b = rng.standard_normal((rows, RANK)).astype(np.float32) / 4
        a = rng.standard_normal((RANK, columns)).astype(np.float32) / np.sqrt(columns, dtype=np.float32)
        merged[name] = merged[name] + ALPHA / RANK * b @ a
        # Of the token embeddings, whose rows are looked up, the two are exchanged and one is transposed.
        first, second = (b, a.T.copy()) if name.startswith("token_embd") else (a, b)
        writer.add_tensor(f"{name}.lora_a", first)
        writer.add_tensor(f"{name}.lora_b", second)
    finish_file(writer)
    return TinyEncoder(model.kind, merged)


def _tensors(
    kind: Kind, vocabulary: int, context: int, rng: np.random.Generator
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    def random(*shape: int, gain: float = 1.5) -> npt.NDArray[np.float32]:
        scale = gain / np.sqrt(shape[-1]) if len(shape) > 1 else 0.2
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    yield "token_embd.weight", random(vocabulary, WIDTH, gain=8)
    yield "token_types.weight", random(2, WIDTH, gain=2)
    if kind == "bert":
        yield "position_embd.weight", random(context, WIDTH, gain=4)
    norms = ["token_embd_norm"]
    for layer in (f"blk.{i}." for i in range(LAYERS)):
        norms += [layer + "attn_output_norm", layer + "layer_output_norm"]
        sizes = {"ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
        sizes |= {"ffn_gate": (INNER, WIDTH)} if kind in GATED else {}
        sizes |= {f"attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        for name, (rows, columns) in sizes.items():
            yield f"{layer}{name}.weight", random(rows, columns)
            if kind != "nomic-bert" and name != "ffn_gate":
                yield f"{layer}{name}.bias", random(rows)
    for name in norms:
        yield f"{name}.weight", 1 + random(WIDTH)
        yield f"{name}.bias", random(WIDTH)


def _silu(x: F64) -> F64:
    return np.asarray(x / (1 + np.exp(-x)))


def _gelu(x: F64) -> F64:
    """By tanh, as llama.cpp computes it; the difference to the error function is below 1e-3."""
    return np.asarray(x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))
