"""Models with random weights in the proportions of jina-embeddings-v4, written in seconds whatever their size.

The rows of all matrices with the same width are taken from one pool of random rows, each matrix from another place, so
that only the pool has to be drawn and quantised. The tokenizer is that of the tests' models, padded to the vocabulary.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from launcher.arrays import F32
from launcher.build.checks.models import Data, random_matrix
from tests.support.tokens.tiny_bpe import add_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """A model's sizes; it has two key-value heads, as the real one."""

    layers: int
    n_embd: int
    heads: int
    n_ff: int
    vocabulary: int

    @property
    def head(self) -> int:
        return self.n_embd // self.heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """The kinds of a quantisation: of most matrices, and of those that quantisers give more bits."""

    file_type: int
    most: Kind
    embeddings: Kind
    larger: Kind  # the values and the last matrix of every second layer


KV_HEADS = 2
MIXTURES: Mapping[str, Mixture] = {
    "F16": Mixture(file_type=1, most=Kind.F16, embeddings=Kind.F16, larger=Kind.F16),
    "Q8_0": Mixture(file_type=7, most=Kind.Q8_0, embeddings=Kind.Q8_0, larger=Kind.Q8_0),
    "Q4_K_M": Mixture(file_type=15, most=Kind.Q4_K, embeddings=Kind.Q6_K, larger=Kind.Q6_K),
}


@dataclass(frozen=True, slots=True)
class ModelMatrix:
    """One matrix: it maps `columns` inputs to `rows` outputs."""

    name: str
    rows: int
    columns: int
    kind: Kind
    gain: float


@dataclass(slots=True)
class _Pools:
    """Random rows, drawn once for each kind, width and gain; all pools have that many `numbers`."""

    numbers: int
    random: np.random.Generator
    made: dict[tuple[Kind, int, float], Data] = field(default_factory=dict)

    def matrix(self, one: ModelMatrix) -> Data:
        key, rows = (one.kind, one.columns, one.gain), self.numbers // one.columns
        if key not in self.made:
            deviation = one.gain / one.columns**0.5
            self.made[key] = random_matrix((rows, one.columns), one.kind, deviation, self.random)
        first = int(self.random.integers(rows))
        found: Data = self.made[key][(first + np.arange(one.rows)) % rows]
        return found


def write(path: Path, sizes: Sizes, quantization: str, *, seed: int = 0) -> Path:
    """Write a model of those sizes unless `path` exists; return `path`. The same arguments give the same bytes."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    mixture, random = MIXTURES[quantization], np.random.default_rng(seed)
    writer = gguf.GGUFWriter(unfinished, "qwen2vl")
    _add_hyperparameters(writer, sizes, mixture)
    add_tokenizer(writer, vocabulary=sizes.vocabulary)
    pools = _Pools(sizes.n_ff * sizes.n_embd, random)
    small, large = list(_vectors(sizes, random)), list(matrices(sizes, mixture))
    for name, values in small:
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    for one in large:
        _declare(writer, one)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, values in small:
        writer.write_tensor_data(values)
    for one in large:  # one at a time: together they are more than some machines have
        writer.write_tensor_data(pools.matrix(one))
    writer.close()
    unfinished.rename(path)
    return path


def _declare(writer: gguf.GGUFWriter, one: ModelMatrix) -> None:
    """Floats are declared by their numbers, blocks by their bytes."""
    in_bytes = gguf.quant_shape_to_byte_shape((one.rows, one.columns), one.kind)
    floats = one.kind is Kind.F16
    shape, dtype = ((one.rows, one.columns), np.float16) if floats else (in_bytes, np.uint8)
    writer.add_tensor_info(one.name, shape, np.dtype(dtype), int(np.prod(in_bytes)), raw_dtype=one.kind)


def _add_hyperparameters(writer: gguf.GGUFWriter, sizes: Sizes, mixture: Mixture) -> None:
    writer.add_name("trillama random model")
    writer.add_file_type(mixture.file_type)
    writer.add_context_length(32768)
    writer.add_block_count(sizes.layers)
    writer.add_embedding_length(sizes.n_embd)
    writer.add_feed_forward_length(sizes.n_ff)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_rope_dimension_sections([sizes.head // 8, *[sizes.head * 3 // 16] * 2, 0])  # as in Qwen2-VL
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(sizes.vocabulary)


def _vectors(sizes: Sizes, random: np.random.Generator) -> Iterator[tuple[str, F32]]:
    """The norms, and the biases of queries, keys and values."""

    def vector(size: int, spread: float, centre: float) -> F32:
        return random.standard_normal(size, dtype=np.float32) * np.float32(spread) + np.float32(centre)

    yield "output_norm.weight", vector(sizes.n_embd, 0.2, 1.0)
    for layer in (f"blk.{number}" for number in range(sizes.layers)):
        yield f"{layer}.attn_norm.weight", vector(sizes.n_embd, 0.2, 1.0)
        yield f"{layer}.ffn_norm.weight", vector(sizes.n_embd, 0.2, 1.0)
        yield f"{layer}.attn_q.bias", vector(sizes.n_embd, 0.3, 0.0)
        for name in ("k", "v"):
            yield f"{layer}.attn_{name}.bias", vector(KV_HEADS * sizes.head, 0.3, 0.0)


def matrices(sizes: Sizes, mixture: Mixture) -> Iterator[ModelMatrix]:
    """Gains as in the tests' models: a vector depends strongly on the words and on their order."""
    d, kv, ff = sizes.n_embd, KV_HEADS * sizes.head, sizes.n_ff
    yield ModelMatrix("token_embd.weight", sizes.vocabulary, d, mixture.embeddings, d**0.5 / 2)
    for number in range(sizes.layers):
        layer, kind = f"blk.{number}", mixture.most
        larger = mixture.larger if number % 2 else kind
        yield ModelMatrix(f"{layer}.attn_q.weight", d, d, kind, 1.5)
        yield ModelMatrix(f"{layer}.attn_k.weight", kv, d, kind, 1.5)
        yield ModelMatrix(f"{layer}.attn_v.weight", kv, d, larger, 1.5)
        yield ModelMatrix(f"{layer}.attn_output.weight", d, d, kind, 2.0)
        yield ModelMatrix(f"{layer}.ffn_gate.weight", ff, d, kind, 1.5)
        yield ModelMatrix(f"{layer}.ffn_up.weight", ff, d, kind, 1.5)
        yield ModelMatrix(f"{layer}.ffn_down.weight", d, ff, larger, 1.5)
