"""Small models with random weights, for every kind of matrix that has its own CPU kernels.

Sizes are those that llama.cpp's AMX kernels require: row widths a multiple of 256, and a multiple of 32 rows. Rows of
1024 are four blocks of a K-quant, so that sums are started, continued and finished.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Kind

from launcher.conversion.gguf_writer import finish_file
from launcher.models.demo import add_tokenizer

Data = npt.NDArray[np.float32 | np.float16 | np.uint8]

# Quantisation of a model's file → kinds of its matrices: all that llama.cpp has AMX kernels for.
QUANTIZATIONS: dict[str, tuple[Kind, ...]] = {
    "F16": (Kind.F16,),
    "Q8_0": (Kind.Q8_0,),
    "Q4_0": (Kind.Q4_0, Kind.Q4_1),
    "Q4_K_M": (Kind.Q4_K, Kind.Q6_K),
    "Q5_K_M": (Kind.Q5_K, Kind.Q6_K),
    "IQ4_XS": (Kind.IQ4_XS, Kind.Q5_K),
}
MODEL_WIDTH = 256
_LAYERS, _UNITS, _HEADS, _KV_HEADS, _CONTEXT, _VOCABULARY = 3, 1024, 4, 2, 32768, 260


@dataclass(frozen=True, slots=True)
class Factors:
    """The offset of a block's float16 factors, and the ratio they need for a mean of 0.

    gguf-py cannot quantise to K-quants. But any bytes are a valid block, as long as its factors are finite.
    """

    offset: int
    relative: tuple[float, ...]


BY_BYTES = {
    Kind.Q4_K: Factors(0, (1.0, 7.5)),  # for numbers from 0 to 15, and for the minimum subtracted from them
    Kind.Q5_K: Factors(0, (1.0, 15.5)),
    Kind.Q6_K: Factors(208, (1.0,)),
    Kind.IQ4_XS: Factors(0, (1.0,)),
}


def write_model(folder: Path, quantization: str) -> tuple[Path, Path]:
    """Write a model of that quantisation, and one of the same numbers in F32. Blocks. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{quantization}.gguf", folder / f"{quantization}-in-F32.gguf"
    quantized, plain = writers = [_writer(path) for path in paths]
    for name, kind, data in _tensors(QUANTIZATIONS[quantization], np.random.default_rng(1)):
        quantized.add_tensor(name, data, raw_dtype=kind)
        plain.add_tensor(name, gguf.quants.dequantize(data, kind))
    for writer in writers:
        finish_file(writer)
    return paths


def write_plain_model(path: Path, *control: str) -> None:
    """Write a model in F32, with those control tokens in its vocabulary. Blocks. Raises OSError."""
    writer = _writer(path, *control)
    for name, _, data in _tensors((Kind.F32,), np.random.default_rng(2), _VOCABULARY + len(control)):
        writer.add_tensor(name, data)
    finish_file(writer)


def _writer(path: Path, *control: str) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "qwen2vl")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(MODEL_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_UNITS)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_rope_freq_base(1e6)
    writer.add_rope_dimension_sections([8, 12, 12, 0])  # of half a head, as in Qwen2-VL
    writer.add_layer_norm_rms_eps(1e-6)
    add_tokenizer(writer, *control)
    return writer


def _tensors(
    kinds: Sequence[Kind], random: np.random.Generator, vocabulary: int = _VOCABULARY
) -> Iterator[tuple[str, Kind, Data]]:
    """Name, kind and values of each tensor; matrices take those kinds in turn."""
    turns = cycle(kinds)
    for name, rows, columns in _matrices(vocabulary):
        kind = next(turns)
        yield name, kind, random_matrix((rows, columns), kind, 1.5 / columns**0.5, random)
        if name.endswith(("attn_q.weight", "attn_k.weight", "attn_v.weight")):
            yield name.replace("weight", "bias"), Kind.F32, 0.3 * random.standard_normal(rows, np.float32)
    for name in (
        "output_norm",
        *(f"blk.{layer}.{which}_norm" for layer in range(_LAYERS) for which in ("attn", "ffn")),
    ):
        yield f"{name}.weight", Kind.F32, 1 + 0.2 * random.standard_normal(MODEL_WIDTH, np.float32)


def _matrices(vocabulary: int) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns in numpy's order: a matrix maps `columns` inputs to `rows` outputs."""
    keys = _KV_HEADS * MODEL_WIDTH // _HEADS
    yield "token_embd.weight", vocabulary, MODEL_WIDTH
    for layer in (f"blk.{number}" for number in range(_LAYERS)):
        yield f"{layer}.attn_q.weight", MODEL_WIDTH, MODEL_WIDTH
        yield f"{layer}.attn_k.weight", keys, MODEL_WIDTH
        yield f"{layer}.attn_v.weight", keys, MODEL_WIDTH
        yield f"{layer}.attn_output.weight", MODEL_WIDTH, MODEL_WIDTH
        yield f"{layer}.ffn_gate.weight", _UNITS, MODEL_WIDTH
        yield f"{layer}.ffn_up.weight", _UNITS, MODEL_WIDTH
        yield f"{layer}.ffn_down.weight", MODEL_WIDTH, _UNITS


def random_matrix(shape: tuple[int, int], kind: Kind, deviation: float, random: np.random.Generator) -> Data:
    """Random numbers of that kind, with mean 0 and that standard deviation."""
    if kind not in BY_BYTES:
        quantized: Data = gguf.quants.quantize(deviation * random.standard_normal(shape, np.float32), kind)
        return quantized
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (shape[0], shape[1] // numbers, size), np.uint8)
    factors = np.multiply.outer(random.uniform(0.5, 1.5, blocks.shape[:2]), BY_BYTES[kind].relative)
    field = slice(BY_BYTES[kind].offset, BY_BYTES[kind].offset + 2 * factors.shape[-1])
    blocks[..., field] = factors.astype(np.float16).view(np.uint8)
    found = gguf.quants.dequantize(blocks.reshape(shape[0], -1), kind).std()
    blocks[..., field] = (deviation / found * factors).astype(np.float16).view(np.uint8)
    return blocks.reshape(shape[0], -1)
