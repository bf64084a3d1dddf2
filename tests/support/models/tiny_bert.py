"""A random BERT in the files of the original, and its forward pass in plain numpy: written from BERT's description.

Post-norm layers, learned positions, GELU by the error function, attention over the whole text, then the mean.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

F64 = npt.NDArray[np.float64]
WIDTH, LAYERS, HEADS, INNER, POSITIONS = 32, 2, 2, 64, 64
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the laser sword is too hot light ##saber ##s over ##heat ##ing . , ?".split()


@dataclass(frozen=True, slots=True)
class TinyBert:
    """Its tensors by their names in the original, in float32."""

    tensors: Mapping[str, npt.NDArray[np.float32]]

    def files(self) -> dict[str, bytes]:
        """The original's files."""
        return {
            "model.safetensors": safetensors(self.tensors),
            "config.json": json.dumps(CONFIG).encode(),
            "tokenizer.json": json.dumps(TOKENIZER).encode(),
        }

    def embed(self, text: str) -> F64:
        """The mean of the last states of the text's tokens, not normalised."""
        return forward(self.tensors, Tokenizer.from_str(json.dumps(TOKENIZER)).encode(text).ids, LAYERS, HEADS)


CONFIG: dict[str, object] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
WORD_PIECE: dict[str, object] = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
    "vocab": {word: number for number, word in enumerate(WORDS)},
}
TOKENIZER: dict[str, object] = {
    "version": "1.0",
    "added_tokens": [
        {"id": number, "content": word, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, word in enumerate(WORDS[:5])
    ],
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "model": WORD_PIECE,
}


def tiny_bert(seed: int = 0) -> TinyBert:
    """A model with random weights, the same for the same seed."""
    rng = np.random.default_rng(seed)

    def matrix(*shape: int) -> npt.NDArray[np.float32]:
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    tensors = {
        "embeddings.position_ids": matrix(1, POSITIONS),
        "embeddings.word_embeddings.weight": matrix(len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": matrix(POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": matrix(2, WIDTH),
        "pooler.dense.weight": matrix(WIDTH, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        linear = {f"attention.self.{name}": (WIDTH, WIDTH) for name in ("query", "key", "value")}
        linear |= {"attention.output.dense": (WIDTH, WIDTH), "intermediate.dense": (INNER, WIDTH)}
        for name, shape in {**linear, "output.dense": (WIDTH, INNER)}.items():
            tensors |= {f"{at}{name}.weight": matrix(*shape), f"{at}{name}.bias": matrix(shape[0])}
        norms += [f"{at}attention.output.LayerNorm", f"{at}output.LayerNorm"]
    for name in norms:
        tensors |= {f"{name}.weight": 1 + matrix(WIDTH), f"{name}.bias": matrix(WIDTH)}
    return TinyBert(tensors)


def forward(tensors: Mapping[str, npt.NDArray[np.float32]], ids: list[int], layers: int, heads: int) -> F64:
    """The mean of the last states, in float64."""
    weights = {name: values.astype(np.float64) for name, values in tensors.items()}

    def linear(x: F64, name: str) -> F64:
        return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])

    def normed(x: F64, name: str) -> F64:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    def split(x: F64) -> F64:
        return x.reshape(len(ids), heads, -1).transpose(1, 0, 2)

    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = normed(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(layers):
        at = f"encoder.layer.{layer}."
        query, key, value = (split(linear(x, f"{at}attention.self.{name}")) for name in ("query", "key", "value"))
        scores = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]))
        mixed = (scores / scores.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(ids), -1)
        x = normed(x + linear(mixed, f"{at}attention.output.dense"), f"{at}attention.output.LayerNorm")
        inner = linear(x, f"{at}intermediate.dense")
        inner *= (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        x = normed(x + linear(inner, f"{at}output.dense"), f"{at}output.LayerNorm")
    return np.asarray(x.mean(0))


def safetensors(tensors: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """A safetensors file of these tensors, in F32."""
    header: dict[str, object] = {}
    at = 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(values.tobytes() for values in tensors.values())
