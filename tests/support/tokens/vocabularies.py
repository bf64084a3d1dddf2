"""Slices of real models' vocabularies, and the ids that the originals give a multilingual set of texts.

`originals/NAME.json` has only the tokens that those texts need, with new ids. Without the others nothing changes: they
are never the longest match, on the best path, or the next merge. `pin_tokens` writes these files.
"""

import json
import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pybase64
import tokenizers
from pydantic import BaseModel, ConfigDict

from launcher.conversion.gguf_writer import finish_file

FOLDER = Path(__file__).parent / "originals"
CONTROL, USER_DEFINED = 3, 4
SPACE = "▁"


class Original(BaseModel):
    """`model` to `scalars` are the keys of a GGUF; `ids` are those of each text, as the original has them."""

    model_config = ConfigDict(frozen=True)

    source: str
    model: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None = None
    charsmap: dict[str, str] | None = None
    scalars: dict[str, int | bool]
    ids: list[list[int]]


@cache
def original(name: str) -> Original:
    """`wordpiece`, `unigram` or `spm`."""
    return Original.model_validate_json((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@cache
def texts() -> tuple[str, ...]:
    return tuple(json.loads((FOLDER / "texts.json").read_text(encoding="utf-8")))


def add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Original, **changed: int | bool) -> None:
    """Add the keys as llama.cpp's own converter does."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.charsmap:
        writer.add_precompiled_charsmap(charsmap(vocabulary.charsmap))
    for name, value in {**vocabulary.scalars, **changed}.items():
        key = f"tokenizer.ggml.{name}"
        writer.add_bool(key, value) if isinstance(value, bool) else writer.add_uint32(key, value)


def write_encoder(path: Path, vocabulary: Original, *, n_embd: int = 32, context: int = 512) -> Path:
    """A BERT of one layer with random weights and that vocabulary."""
    writer, n_ff = gguf.GGUFWriter(path, "bert"), 2 * n_embd
    writer.add_context_length(context)
    writer.add_block_count(1)
    writer.add_embedding_length(n_embd)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(2)
    writer.add_vocab_size(len(vocabulary.tokens))
    add_vocabulary(writer, vocabulary)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(vocabulary.tokens), n_embd),
        "token_types.weight": (2, n_embd),
    }
    shapes |= {"position_embd.weight": (context, n_embd), "blk.0.ffn_down.weight": (n_embd, n_ff)}
    shapes |= {"blk.0.ffn_up.weight": (n_ff, n_embd), "blk.0.ffn_up.bias": (n_ff,), "blk.0.ffn_down.bias": (n_embd,)}
    square = [f"blk.0.attn_{name}" for name in ("q", "k", "v", "output")]
    norms = ["token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"]
    shapes |= {f"{name}.weight": (n_embd, n_embd) for name in square} | {f"{name}.weight": (n_embd,) for name in norms}
    shapes |= {f"{name}.bias": (n_embd,) for name in (*square, *norms)}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32))
    finish_file(writer)
    return path


def write_vocabulary(path: Path, vocabulary: Original, **changed: int | bool) -> Path:
    """A GGUF file with that vocabulary and nothing else."""
    writer = gguf.GGUFWriter(path, "bert")
    add_vocabulary(writer, vocabulary, **changed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def charsmap(rules: Mapping[str, str]) -> bytes:
    """SentencePiece's precompiled map of these rules; each inner node has a block of the double array for itself."""
    children: list[dict[int, int]] = [{}]
    values = dict[int, int]()
    texts = bytearray()
    for source, replacement in rules.items():
        node = 0
        for byte in source.encode():
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
            node = children[node][byte]
        values[node] = len(texts)
        texts += replacement.encode() + b"\0"
    inner = [node for node, below in enumerate(children) if below]
    bases = {node: 256 * (block + 1) for block, node in enumerate(inner)}
    bases |= {node: 256 * (len(inner) + 1) + i for i, node in enumerate(values.keys() - bases.keys())}
    units = [0] * (256 * (len(inner) + 2 + len(values) // 256))
    places = {0: 0}
    for node, below in enumerate(children):  # a node comes after its parent
        place, base = places[node], bases[node]
        units[place] |= (place ^ base) << 10 | (node in values) << 8
        if node in values:
            units[base] = 2**31 | values[node]
        for byte, child in below.items():
            places[child] = base ^ byte
            units[base ^ byte] = byte
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + bytes(texts)


def hugging_face(vocabulary: Original) -> tokenizers.Tokenizer:
    """The tokenizer as the model's own `tokenizer.json` describes it, without what is added around a text."""
    added = [
        {"id": i, "content": token, "special": kind == CONTROL, "lstrip": token == "<mask>"}
        | dict.fromkeys(("single_word", "rstrip", "normalized"), False)
        for i, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in {2, CONTROL, USER_DEFINED}
    ]
    described = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    parts = _DESCRIBED[vocabulary.model](vocabulary)
    return tokenizers.Tokenizer.from_str(json.dumps({**described, "post_processor": None, "decoder": None, **parts}))


def _bert(vocabulary: Original) -> dict[str, object]:
    words = {
        token if kind == CONTROL else token[1:] if token.startswith(SPACE) else "##" + token: i
        for i, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
    }
    lower = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    pieces = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    return {
        "normalizer": {"type": "BertNormalizer", **lower},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", **pieces, "vocab": words},
    }


def _t5(vocabulary: Original) -> dict[str, object]:
    scores = np.array(vocabulary.scores, dtype=np.float32).tolist()  # as in the file: they decide between equal paths
    space = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    blob = pybase64.b64encode(charsmap(vocabulary.charsmap or {})).decode()
    return {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": blob},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "model": {"type": "Unigram", "unk_id": 3, "vocab": list(zip(vocabulary.tokens, scores, strict=True))},
    }


_DESCRIBED: Mapping[str, Callable[[Original], dict[str, object]]] = {"bert": _bert, "t5": _t5}
