"""A BERT encoder as GGUF, computed by llama.cpp, against its forward pass in numpy."""

import json
from pathlib import Path

import numpy as np
import pytest

from launcher.conversion import bert
from launcher.errors import ModelError
from launcher.models.gguf_file import model_header
from launcher.planning.memory import weights_of
from tests.support.engines.engine import llama_server
from tests.support.models.tiny_bert import CONFIG, HEADS, POSITIONS, TOKENIZER, WIDTH, WORD_PIECE, tiny_bert

TEXTS = ("the laser sword is too hot.", "Overheating LIGHTSABERS, the?", "sword", "", "unknown words, hot", "hot " * 50)


def write(path: Path, files: dict[str, bytes], quantization: str = "F32") -> Path:
    bert.write_bert(files, path, name="tiny", quantization=quantization, licence="MIT")
    return path


@pytest.mark.parametrize("quantization", ["F32", "F16"])
async def test_llama_cpp_computes_the_original_s_vectors(tmp_path: Path, quantization: str) -> None:
    original = tiny_bert()
    model = write(tmp_path / "tiny.gguf", original.files(), quantization)
    async with llama_server(model, batch_tokens=POSITIONS) as server:
        found = await server.embed(TEXTS)
    expected = np.stack([original.embed(text) for text in TEXTS])
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.99999, cosines


def test_the_header_says_what_it_is_and_the_plan_knows_that_it_keeps_no_keys(tmp_path: Path) -> None:
    header = model_header(write(tmp_path / "tiny.gguf", tiny_bert().files()))
    expected = {
        "general.architecture": "bert",
        "general.license": "MIT",
        "bert.context_length": POSITIONS,
        "bert.embedding_length": WIDTH,
        "bert.attention.head_count": HEADS,
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
    }
    assert {key: header.metadata.get(key) for key in expected} == expected
    weights = weights_of(header)
    assert weights is not None
    assert weights.shape.encoder


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("config.json", {**CONFIG, "model_type": "roberta"}, "config.json is not that of a BERT encoder .* model_type"),
        ("config.json", {**CONFIG, "hidden_act": "relu"}, "hidden_act"),
        ("tokenizer.json", {**TOKENIZER, "normalizer": {"type": "NFC"}}, "normalizer"),
        ("tokenizer.json", {**TOKENIZER, "model": {**WORD_PIECE, "vocab": {"[CLS]": 5}}}, "has gaps, or lacks"),
        ("config.json", {**CONFIG, "num_hidden_layers": 1}, r"no place for the tensor encoder\.layer\.1"),
    ],
)
def test_another_kind_of_model_is_refused_by_name(
    tmp_path: Path, name: str, changed: dict[str, object], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        write(tmp_path / "tiny.gguf", {**tiny_bert().files(), name: json.dumps(changed).encode()})


def test_a_quantisation_that_cannot_be_made_is_refused_with_those_that_can(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tiny can be made as F32 or F16, not as Q4_K_M"):
        write(tmp_path / "tiny.gguf", tiny_bert().files(), "Q4_K_M")
