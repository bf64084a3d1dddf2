"""Estimates how much memory a llama-server takes, before it starts. Pure.

Source: llama.cpp's `build_pooling`, `output_reserve` and KV cache, and totals of its allocator for the real shape of
jina-embeddings-v4, which the tests contain. The two overheads on a GPU are the rest of the published peaks (README of
the GGUF repository). The host's share beside a GPU is an estimate: never measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from launcher.engine.argv import LEAN_ARCHITECTURES, context_tokens
from launcher.engine.device_list import MIB
from proxy.contract.gguf import Header, Omitted, Value

GIB = 2**30
FLOAT, HALF = 4, 2  # bytes of a computed number, and of one in the KV cache or the attention mask

# Of the process itself: code, the CUDA context and libraries, and their workspace, which is larger for F16.
GPU_OVERHEAD = 768 * MIB
GPU_OVERHEAD_UNQUANTIZED = 1434 * MIB
HOST_OVERHEAD_ON_GPU = 512 * MIB
HOST_OVERHEAD_ON_CPU = 96 * MIB  # 50 to 75 MiB were measured, besides the file
# A vision encoder's compute buffer: 160 MiB were derived for the largest image, and a part of it measured.
ENCODER_COMPUTE = 256 * MIB
UNQUANTIZED_TYPES = (0, 1, 32)  # general.file_type: F32, F16, BF16
MAX_LAYERS = 2**10  # LLAMA_MAX_LAYERS is 512


# Architectures that see a whole text at once: llama.cpp gives them no KV cache, and they have no output head.
ENCODERS = frozenset(
    "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe neo-bert eurobert modern-bert gemma-embedding".split()  # noqa: SIM905
)
# Those of them whose feed-forward network is two matrices, without a gate.
UNGATED = frozenset({"bert", "jina-bert-v3"})


@dataclass(frozen=True, slots=True)
class Layer:
    """`kv_length` is its key-value heads times their size; a `windowed` one sees the last tokens only."""

    kv_length: int
    windowed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes that determine memory. `window` is how many tokens a layer with a sliding window sees, 0 without.

    `heads`: the query heads of a layer. `lean`: an engine that can leave out the logits of embeddings does not compute
    this model's. `gated`: the feed-forward network has a third matrix, and three steps of its width at once instead of
    one.
    """

    layers: tuple[Layer, ...]
    embedding_length: int
    feed_forward_length: int
    vocabulary: int
    heads: int
    encoder: bool = False
    lean: bool = True
    gated: bool = True
    window: int = 0

    @property
    def kv_length(self) -> int:
        """Numbers in one token's keys, over all layers; its values have as many."""
        return sum(layer.kv_length for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWeights:
    """One model's file, with its LoRA. `longest` is the longest text that it takes, in tokens, if that is known."""

    file_bytes: int
    shape: Shape
    unquantized: bool
    longest: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags that determine memory. `logits`: the engine keeps room for them, although nothing uses them (T5).

    `encoder_bytes`: the size of the vision encoder's file, 0 without one.
    """

    batch_tokens: int
    slots: int
    gpu_layers: int
    logits: bool
    encoder_bytes: int = 0
    flash_attention: bool = True


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
    try:
        shape = _shape(header.metadata)
    except (KeyError, ValueError):
        return None
    unquantized = header.metadata.get("general.file_type") in UNQUANTIZED_TYPES
    return ModelWeights(file_bytes=header.file_bytes, shape=shape, unquantized=unquantized)


def _shape(metadata: Mapping[str, Value]) -> Shape:
    """Raises KeyError or ValueError if a size is missing or invalid."""
    architecture = str(metadata.get("general.architecture"))
    own = {name.removeprefix(f"{architecture}."): value for name, value in metadata.items()}
    width, count = _positive(own["embedding_length"]), _positive(own["block_count"])
    if count > MAX_LAYERS:
        raise ValueError(f"{count} layers, more than {MAX_LAYERS}")
    heads = _per_layer(own["attention.head_count"], count)
    kv_heads = _per_layer(own.get("attention.head_count_kv", own["attention.head_count"]), count)
    size = own.get("attention.key_length")
    sizes = [_positive(size) if size is not None else width // max(1, one) for one in heads]
    window = own.get("attention.sliding_window", 0)
    windowed = _windowed(own.get("attention.sliding_window_pattern"), count) if window else [False] * count
    return Shape(
        layers=tuple(Layer(kv * size, one) for kv, size, one in zip(kv_heads, sizes, windowed, strict=True)),
        embedding_length=width,
        feed_forward_length=_positive(max(_per_layer(own["feed_forward_length"], count))),
        vocabulary=_length(metadata["tokenizer.ggml.tokens"]),
        heads=max(heads),
        encoder=architecture in ENCODERS,
        lean=architecture in LEAN_ARCHITECTURES,
        gated=architecture not in UNGATED,
        window=_positive(window) if window else 0,
    )


def _length(array: Value) -> int:
    match array:
        case Omitted(length):
            return length
        case list():
            return len(array)
        case _:
            raise ValueError(f"{array!r:.80} is not an array")


def _per_layer(value: Value, count: int) -> list[int]:
    """The value of each layer: the same for all, or an array's. A layer without attention has 0."""
    values = value if isinstance(value, list) else [_positive(value)] * count
    found = [one for one in values if isinstance(one, int) and one >= 0]
    if len(found) < count:
        raise ValueError(f"{value!r:.80} are not {count} sizes")
    return found[:count]


def _windowed(pattern: Value | None, count: int) -> list[bool]:
    """Which layers have the sliding window: as a list, or all but each n-th; none of those that the list leaves out."""
    if isinstance(pattern, list):
        return [bool(one) for one in pattern[:count]] + [False] * (count - len(pattern))
    every = pattern if isinstance(pattern, int) and pattern > 0 else 1
    return [layer % every < every - 1 for layer in range(count)]


def _positive(value: Value) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{value!r:.80} is not a size")
    return value


def need(weights: ModelWeights, flags: Flags) -> Need:
    """The most that a llama-server takes: after a batch of the largest size.

    With all layers on a GPU, in bytes: VRAM = file + KV cache + compute buffer + overhead, and RAM = the token
    embeddings, the outputs of the largest batch, the batch's inputs, and overhead. Without a GPU, all of it is RAM.
    A vision encoder is where the model is, whole on one GPU.
    """
    shape = weights.shape
    on_gpu = min(1.0, flags.gpu_layers / (len(shape.layers) + 1))  # the output matrix counts as a layer
    body = weights.file_bytes + kv_bytes(shape, flags)
    outputs = output_bytes(shape, flags)
    encoder = flags.encoder_bytes + ENCODER_COMPUTE if flags.encoder_bytes else 0
    if not on_gpu:
        return Need(ram=body + compute_bytes(shape, flags, on_gpu=False) + outputs + encoder + HOST_OVERHEAD_ON_CPU)
    embeddings = round(weights.file_bytes * _embedding_share(shape))  # looked up on the CPU
    seen = flags.batch_tokens if shape.encoder else context_tokens(flags.batch_tokens)
    inputs = flags.batch_tokens * FLOAT * (seen + shape.embedding_length)
    rest = max(round((1 - on_gpu) * body), embeddings)
    return Need(
        spread=round(on_gpu * body),
        fixed=compute_bytes(shape, flags, on_gpu=True)
        + encoder
        + (GPU_OVERHEAD_UNQUANTIZED if weights.unquantized else GPU_OVERHEAD),
        ram=rest + outputs + inputs + HOST_OVERHEAD_ON_GPU,
    )


def kv_bytes(shape: Shape, flags: Flags) -> int:
    """Keys and values of every layer, as f16; an encoder keeps none."""
    if shape.encoder:
        return 0
    cells = {False: context_tokens(flags.batch_tokens), True: _window_cells(shape, flags)}
    return sum(cells[layer.windowed] * layer.kv_length for layer in shape.layers) * 2 * HALF


def compute_bytes(shape: Shape, flags: Flags, *, on_gpu: bool, context: int | None = None) -> int:
    """The compute buffer: the widest step of the graph, and the tensors alive beside it.

    The widest step is the output head if logits are computed, else the feed-forward network, or without flash attention
    the scores of each token with each other. `context` overrides our --ctx-size.
    """
    logits = not shape.encoder and (flags.logits or not shape.lean)
    seen = flags.batch_tokens if shape.encoder else context or context_tokens(flags.batch_tokens)
    scores, mask = (0, HALF) if flags.flash_attention else (shape.heads * seen, FLOAT)
    widest = max(shape.vocabulary if logits else 0, (3 if shape.gated else 1) * shape.feed_forward_length, scores)
    beside = (2 if on_gpu else 5) * shape.embedding_length
    windows = _window_cells(shape, flags) if shape.window else 0  # a second mask
    return flags.batch_tokens * (FLOAT * (widest + beside) + mask * (seen + windows))


def output_bytes(shape: Shape, flags: Flags) -> int:
    """The result buffer in RAM; it grows to the largest batch so far, and never shrinks.

    llama.cpp gives it room for logits even where the model has none.
    """
    logits = shape.vocabulary if flags.logits else 0
    return flags.batch_tokens * FLOAT * (logits + shape.embedding_length)


def _window_cells(shape: Shape, flags: Flags) -> int:
    """The tokens that a layer with a sliding window keeps: a window for each slot, and a batch."""
    most = flags.batch_tokens if shape.encoder else context_tokens(flags.batch_tokens)
    return min(most, shape.window * flags.slots + flags.batch_tokens)


def _embedding_share(shape: Shape) -> float:
    """The token embeddings' share of the weights, as if all were stored in the same type."""
    width = shape.embedding_length
    feed_forward = (3 if shape.gated else 2) * shape.feed_forward_length
    layers = width * (len(shape.layers) * (2 * width + feed_forward) + 2 * shape.kv_length)
    embeddings = shape.vocabulary * width
    return embeddings / (embeddings + layers)
