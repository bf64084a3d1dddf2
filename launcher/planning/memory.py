"""Estimates how much memory a llama-server takes, before it starts. Pure.

Source: llama.cpp's `build_pooling`, `output_reserve` and KV cache, and totals of its allocator for the real shape of
jina-embeddings-v4, which the tests contain. The two overheads on a GPU are the rest of the published peaks (README of
the GGUF repository). The host's share beside a GPU is an estimate: never measured.
"""

from dataclasses import dataclass

from launcher.engine.device_list import MIB
from proxy.contract.gguf import Header, Value

GIB = 2**30
FLOAT, HALF = 4, 2  # bytes of a computed number, and of one in the KV cache or the attention mask

# Of the process itself: code, the CUDA context and libraries, and their workspace, which is larger for F16.
GPU_OVERHEAD = 768 * MIB
GPU_OVERHEAD_UNQUANTIZED = 1434 * MIB
HOST_OVERHEAD_ON_GPU = 512 * MIB
HOST_OVERHEAD_ON_CPU = 96 * MIB  # 50 to 75 MiB were measured, besides the file
UNQUANTIZED_TYPES = frozenset({0, 1, 32})  # general.file_type: F32, F16, BF16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes that determine memory; `kv_length` is key-value heads times their size."""

    layers: int
    embedding_length: int
    feed_forward_length: int
    kv_length: int
    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWeights:
    """One model's file."""

    file_bytes: int
    shape: Shape
    unquantized: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags that determine memory. `logits`: the engine computes them although nobody reads them (T5)."""

    batch_tokens: int
    gpu_layers: int
    logits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes needed. `spread` is the VRAM that several GPUs can share; `fixed` is needed on each of them."""

    spread: int = 0
    fixed: int = 0
    ram: int = 0

    @property
    def vram(self) -> int:
        """On one GPU."""
        return self.spread + self.fixed


def weights_of(header: Header) -> ModelWeights | None:
    """The weights that a model file's header describes; None if it lacks a size."""
    metadata = header.metadata
    prefix = metadata.get("general.architecture")

    def size(name: str) -> int:
        return _positive(metadata[f"{prefix}.{name}"])

    try:
        head = size("embedding_length") // size("attention.head_count")
        shape = Shape(
            layers=size("block_count"),
            embedding_length=size("embedding_length"),
            feed_forward_length=size("feed_forward_length"),
            kv_length=size("attention.head_count_kv") * _positive(metadata.get(f"{prefix}.attention.key_length", head)),
            vocabulary=_positive(metadata["tokenizer.ggml.tokens"]),  # the array's length
        )
    except (KeyError, ValueError):
        return None
    kind = metadata.get("general.file_type")
    return ModelWeights(file_bytes=header.file_bytes, shape=shape, unquantized=kind in UNQUANTIZED_TYPES)


def _positive(value: Value) -> int:
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"{value!r} is no size")
    return value


def need(weights: ModelWeights, flags: Flags) -> Need:
    """The most that a llama-server takes: after a batch of the largest size.

    With all layers on a GPU, in bytes: VRAM = file + KV cache + compute buffer + overhead, and RAM = the token
    embeddings, the outputs of the largest batch, the batch's inputs, and overhead. Without a GPU, all of it is RAM.
    """
    shape = weights.shape
    on_gpu = min(1.0, flags.gpu_layers / (shape.layers + 1))  # the output matrix counts as a layer
    body = weights.file_bytes + kv_bytes(shape, flags)
    outputs = output_bytes(shape, flags)
    if not on_gpu:
        return Need(ram=body + compute_bytes(shape, flags, on_gpu=False) + outputs + HOST_OVERHEAD_ON_CPU)
    embeddings = round(weights.file_bytes * _embedding_share(shape))  # looked up on the CPU
    inputs = flags.batch_tokens * FLOAT * (_context_tokens(flags) + shape.embedding_length)
    rest = max(round((1 - on_gpu) * body), embeddings)
    return Need(
        spread=round(on_gpu * body),
        fixed=compute_bytes(shape, flags, on_gpu=True)
        + (GPU_OVERHEAD_UNQUANTIZED if weights.unquantized else GPU_OVERHEAD),
        ram=rest + outputs + inputs + HOST_OVERHEAD_ON_GPU,
    )


def _context_tokens(flags: Flags) -> int:
    """About --ctx-size as `launcher.engine.argv` sets it, which adds CHECK_TOKENS."""
    return 2 * flags.batch_tokens


def kv_bytes(shape: Shape, flags: Flags) -> int:
    """Keys and values of every layer, as f16."""
    return _context_tokens(flags) * shape.layers * 2 * shape.kv_length * HALF


def compute_bytes(shape: Shape, flags: Flags, *, on_gpu: bool, context: int | None = None) -> int:
    """The compute buffer with flash attention: the widest step of the graph, and the tensors alive beside it.

    The widest step is the output head if logits are computed, else the feed-forward network. `context` overrides our
    --ctx-size.
    """
    widest = max(shape.vocabulary if flags.logits else 0, 3 * shape.feed_forward_length)
    beside = (2 if on_gpu else 5) * shape.embedding_length
    mask = HALF * (_context_tokens(flags) if context is None else context)
    return flags.batch_tokens * (FLOAT * (widest + beside) + mask)


def output_bytes(shape: Shape, flags: Flags) -> int:
    """The result buffer in RAM; it grows to the largest batch so far, and never shrinks."""
    logits = shape.vocabulary if flags.logits else 0
    return flags.batch_tokens * FLOAT * (logits + shape.embedding_length)


def _embedding_share(shape: Shape) -> float:
    """The token embeddings' share of the weights, as if all were stored in the same type."""
    width = shape.embedding_length
    layer = width * (2 * width + 2 * shape.kv_length + 3 * shape.feed_forward_length)
    embeddings = shape.vocabulary * width
    return embeddings / (embeddings + shape.layers * layer)
