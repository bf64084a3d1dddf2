"""Random-weight GGUF files that real llama.cpp loads in milliseconds.

The weights are scaled so that a mean-pooled vector depends strongly on the words and on their order: a batch that
is cut, mixed up or truncated shows in the cosine. The tokenizer is a real one: see `tests.support.tokens.tiny_bpe`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
import numpy.typing as npt

from launcher.conversion.gguf_writer import finish_file
from proxy.contract.family import Pooling
from tests.support.tokens.tiny_bpe import VOCABULARY, add_tokenizer

DType = Literal["F32", "F16", "Q8_0"]
Architecture = Literal["qwen2vl", "qwen2", "qwen3", "eurobert", "bert"]
ENCODERS = frozenset({"eurobert", "bert"})
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    layers: int
    n_embd: int
    heads: int
    kv_heads: int
    n_ff: int

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.heads


def write_model(
    path: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    n_embd: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    n_ff: int = 128,
    dtype: DType = "F16",
    context: int = 32768,
    architecture: Architecture = "qwen2vl",
    pooling: Pooling | None = None,
    pre: str = "qwen2",
    add_bos: bool | None = False,
    add_eos: bool | None = None,
    vocabulary: int = VOCABULARY,
) -> Path:
    """Write a model of that shape to `path` and return `path`.

    The same arguments give the same bytes; another `seed`, another model with the same tokenizer. `n_embd` and `n_ff`
    must be multiples of 32 (a block of Q8_0), and `n_embd / heads` a multiple of 16 (the rotary sections). The header
    says nothing of `pooling` without one. A bert has as many key-value heads as heads.
    """
    shape = _Shape(layers=layers, n_embd=n_embd, heads=heads, kv_heads=kv_heads, n_ff=n_ff)
    writer = gguf.GGUFWriter(path, architecture)
    _add_hyperparameters(writer, shape, context, vocabulary)
    _add_kind(writer, architecture, shape, pooling)
    add_tokenizer(writer, pre=pre, add_bos=add_bos, add_eos=add_eos, vocabulary=vocabulary)
    rng = np.random.default_rng(seed)
    tensors = (
        _bert_tensors(shape, vocabulary, context, rng)
        if architecture == "bert"
        else _tensors(architecture, shape, vocabulary, rng)
    )
    for name, values in tensors:
        _add_tensor(writer, name, values, dtype)
    finish_file(writer)
    return path


def write_lora(path: Path, *, architecture: Architecture = "bert", n_embd: int = 64) -> Path:
    """Write a LoRA of rank 4 for the first layer's queries and values of such a model to `path`, and return it."""
    writer, new = gguf.GGUFWriter(path, architecture), _Random(np.random.default_rng(7))
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for name in ("attn_q", "attn_v"):
        _add_tensor(writer, f"blk.0.{name}.weight.lora_a", new.matrix(4, n_embd, 1.0), "F32")
        _add_tensor(writer, f"blk.0.{name}.weight.lora_b", new.matrix(n_embd, 4, 1.0), "F32")
    finish_file(writer)
    return path


def _add_hyperparameters(writer: gguf.GGUFWriter, shape: _Shape, context: int, vocabulary: int) -> None:
    writer.add_name("trillama test model")
    writer.add_context_length(context)
    writer.add_block_count(shape.layers)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(vocabulary)


def _add_kind(writer: gguf.GGUFWriter, architecture: Architecture, shape: _Shape, pooling: Pooling | None) -> None:
    """What only some models have in their header."""
    if pooling:
        writer.add_pooling_type(gguf.PoolingType[pooling.upper()])
    if architecture in ENCODERS:
        writer.add_causal_attention(False)
    if architecture == "bert":
        writer.add_layer_norm_eps(1e-6)
        writer.add_token_type_count(2)
    if architecture == "qwen2vl":
        # As in Qwen2-VL (16, 24, 24 of a half head of 64), scaled to this half head.
        writer.add_rope_dimension_sections([shape.head_dim // 8, *[shape.head_dim * 3 // 16] * 2, 0])


class _Random:
    """Matrices (rows, columns) as numpy sees them: one maps `columns` inputs to `rows` outputs."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def matrix(self, rows: int, columns: int, gain: float) -> F32:
        return self._rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(gain / np.sqrt(columns))

    def vector(self, size: int, spread: float, centre: float = 0.0) -> F32:
        return self._rng.standard_normal(size, dtype=np.float32) * np.float32(spread) + np.float32(centre)


def _tensors(
    architecture: Architecture, shape: _Shape, vocabulary: int, rng: np.random.Generator
) -> Iterator[tuple[str, F32]]:
    """Name and values of a decoder's tensors, or of eurobert's, which has the same."""
    new = _Random(rng)
    d, kv = shape.n_embd, shape.kv_heads * shape.head_dim
    yield "token_embd.weight", new.matrix(vocabulary, d, np.sqrt(d) / 2)
    yield "output_norm.weight", new.vector(d, 0.2, 1.0)
    for layer in (f"blk.{i}" for i in range(shape.layers)):
        yield f"{layer}.attn_norm.weight", new.vector(d, 0.2, 1.0)
        yield f"{layer}.ffn_norm.weight", new.vector(d, 0.2, 1.0)
        for name, rows, gain in (("q", d, 1.5), ("k", kv, 1.5), ("v", kv, 1.5)):
            yield f"{layer}.attn_{name}.weight", new.matrix(rows, d, gain)
            if architecture in {"qwen2vl", "qwen2"}:
                yield f"{layer}.attn_{name}.bias", new.vector(rows, 0.3)
            if architecture == "qwen3" and name != "v":
                yield f"{layer}.attn_{name}_norm.weight", new.vector(shape.head_dim, 0.2, 1.0)
        yield f"{layer}.attn_output.weight", new.matrix(d, d, 2.0)
        yield f"{layer}.ffn_gate.weight", new.matrix(shape.n_ff, d, 1.5)
        yield f"{layer}.ffn_up.weight", new.matrix(shape.n_ff, d, 1.5)
        yield f"{layer}.ffn_down.weight", new.matrix(d, shape.n_ff, 1.5)


def _bert_tensors(shape: _Shape, vocabulary: int, context: int, rng: np.random.Generator) -> Iterator[tuple[str, F32]]:
    """Name and values: learned positions, and norms behind attention and feed-forward network."""
    new, d = _Random(rng), shape.n_embd
    yield "token_embd.weight", new.matrix(vocabulary, d, np.sqrt(d))
    yield "position_embd.weight", new.matrix(context, d, np.sqrt(d) / 2)
    yield "token_types.weight", new.matrix(2, d, np.sqrt(d) / 2)
    norms = ["token_embd_norm"]
    for layer in (f"blk.{i}" for i in range(shape.layers)):
        norms += [f"{layer}.attn_output_norm", f"{layer}.layer_output_norm"]
        for name, rows, columns, gain in (
            ("attn_q", d, d, 1.5),
            ("attn_k", d, d, 1.5),
            ("attn_v", d, d, 1.5),
            ("attn_output", d, d, 2.0),
            ("ffn_up", shape.n_ff, d, 1.5),
            ("ffn_down", d, shape.n_ff, 1.5),
        ):
            yield f"{layer}.{name}.weight", new.matrix(rows, columns, gain)
            yield f"{layer}.{name}.bias", new.vector(rows, 0.3)
    for name in norms:
        yield f"{name}.weight", new.vector(d, 0.2, 1.0)
        yield f"{name}.bias", new.vector(d, 0.2)


def _add_tensor(writer: gguf.GGUFWriter, name: str, values: F32, dtype: DType) -> None:
    """llama.cpp wants norms, biases and what is added to an embedding in F32, whatever the matrices are."""
    added = name in {"position_embd.weight", "token_types.weight"}
    kind = gguf.GGMLQuantizationType[dtype if values.ndim == 2 and not added else "F32"]
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
