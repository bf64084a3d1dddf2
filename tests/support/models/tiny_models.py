"""Random-weight GGUF files that real llama.cpp loads in milliseconds.

The weights are scaled so that a mean-pooled vector depends strongly on the words and on their order: a batch that
is cut, mixed up or truncated shows in the cosine. The tokenizer is a real byte-level BPE of Qwen2's kind, trained on
a few lines of many scripts.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from proxy.contract.family import Pooling

DType = Literal["F32", "F16", "Q8_0"]
Architecture = Literal["qwen2vl", "qwen2", "qwen3", "eurobert", "bert"]
ENCODERS = frozenset({"eurobert", "bert"})
F32 = npt.NDArray[np.float32]

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
USER_DEFINED = ("<tool_call>", "</tool_call>")
UNREACHED = ("</s>",)  # as in Qwen's: an ordinary token that no merge leads to, which llama.cpp takes for a special one
VOCABULARY = 640

# Repeated words and letters make merges: inside words, across the leading space, in digits-free CJK and in emoji bytes.
_CORPUS = """\
the quick brown fox jumps over the lazy dog and the other dogs that sleep in the sun; it's theirs, they'll say we've won
The passage says that retrieval of a passage needs a query. Query: what is the passage? Passage: this is the answer.
über den Fluß führt eine schöne Brücke, die Straße ist naß und die Züge fahren pünktlich über die Brücke
def embed(self, text: str) -> list[float]:\n    return self.model.encode(text)\n\n\n    # the end\n\treturn None\r\n
我们的模型可以把文本变成向量 我们的文本 我们的模型 日本語のテキスト 日本の言葉 한국어 문장입니다 한국어 모델
Привет, мир! Привет всем, кто читает этот текст. Это просто текст.
مرحبا بالعالم هذا نص قصير هذا نص हिन्दी में लिखा पाठ हिन्दी
👩‍👩‍👧‍👦 👍🏽 🎉🎉 ❤️ 👩‍💻 👩‍🔬 🇩🇪 naïve café e\u0301 o\u0308 ... --- === (()) {{}} [[]] "quoted" 'quoted' !!! ???
"""


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
    add_tokenizer(writer, pre=pre, add_bos=add_bos, add_eos=add_eos, vocabulary=vocabulary)
    rng = np.random.default_rng(seed)
    tensors = (
        _bert_tensors(shape, vocabulary, context, rng)
        if architecture == "bert"
        else _tensors(architecture, shape, vocabulary, rng)
    )
    for name, values in tensors:
        _add_tensor(writer, name, values, dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
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
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(
    writer: gguf.GGUFWriter,
    *,
    model: str = "gpt2",
    pre: str = "qwen2",
    add_bos: bool | None = False,
    add_eos: bool | None = None,
    vocabulary: int = VOCABULARY,
) -> None:
    """Add the vocabulary in Qwen's own order: bytes, merges, UNREACHED, USER_DEFINED, CONTROL, UNUSED padding."""
    learned, merges = _trained()
    texts = [*learned, *UNREACHED, *USER_DEFINED, *CONTROL]
    padding = vocabulary - len(texts)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*texts, *(f"[PAD{len(texts) + i}]" for i in range(padding))])
    kinds = gguf.TokenType
    counts = (len(learned) + len(UNREACHED), len(USER_DEFINED), len(CONTROL), padding)
    types = np.repeat([kinds.NORMAL, kinds.USER_DEFINED, kinds.CONTROL, kinds.UNUSED], counts)
    writer.add_token_types(types.tolist())
    writer.add_token_merges(list(merges))
    writer.add_bos_token_id(texts.index("<|endoftext|>"))
    writer.add_eos_token_id(texts.index("<|im_end|>"))
    writer.add_pad_token_id(texts.index("<|endoftext|>"))
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    if add_eos is not None:
        writer.add_add_eos_token(add_eos)


@cache
def _trained() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The learned pieces in order of their id, and the merges as "left right"."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(USER_DEFINED) - len(CONTROL) - 8,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_CORPUS], trainer)
    vocabulary = tokenizer.get_vocab()
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return tuple(sorted(vocabulary, key=vocabulary.__getitem__)), tuple(map(" ".join, merges))


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
