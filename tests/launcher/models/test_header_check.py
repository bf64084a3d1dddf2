"""A file whose header contradicts the family is refused by name, with what to do."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from launcher.conversion.gguf_writer import finish_file
from launcher.errors import ConfigError, ModelError
from launcher.models import header_check
from launcher.settings.config import Settings, load
from launcher.settings.family import FamilyFile
from proxy.contract.gguf import read_header
from proxy.contract.settings_file import read_toml, validated_settings
from tests.support.models.families import write_family
from tests.support.models.tiny_models import Architecture, write_model
from tests.support.tokens.vocabularies import original, write_vocabulary


def family(folder: Path, architecture: str, **weights: object) -> FamilyFile:
    path = write_family(folder / "family.toml", {"architecture": architecture, **weights})
    return validated_settings(FamilyFile, read_toml(path), path)


def settings_of(folder: Path, **host: object) -> Settings:
    write_family(folder / "family.toml", {"architecture": "qwen3"})
    return load(None, {"family": str(folder / "family.toml"), **host})


@pytest.mark.parametrize(
    ("architecture", "header", "weights", "reason"),
    [
        ("qwen3", {"pooling": "last"}, {}, r"pools by last .*, this family by mean: .*, or write pooling = \"last\""),
        ("bert", {"pooling": "cls"}, {"causal": False}, r"pools by cls .*, this family by mean"),
        ("qwen3", {"pooling": "mean"}, {"pooling": "last"}, r"pools by mean .*, this family by last"),
        ("eurobert", {}, {}, r"its tokens see the whole text: write causal = false under \[weights\]"),
        (
            "qwen3",
            {},
            {"causal": False},
            r"its tokens see only those before it: write causal = true .*; or get a newer conversion",
        ),
        (
            "qwen3",
            {},
            {"adds": ["eos"]},
            r"adds no EOS .* header has tokenizer.ggml.add_eos_token = true",
        ),
        ("qwen3", {"add_eos": False}, {"adds": ["eos"]}, r"adds no EOS"),
        ("qwen3", {"add_bos": False, "pre": "jina-v5-nano"}, {"adds": ["bos"]}, r"adds no BOS"),
        ("qwen3", {}, {"requires": ["dense_2_feat_in"]}, r"its header has no qwen3.dense_2_feat_in"),
        ("qwen3", {}, {"adds": ["sep"]}, r"only a WordPiece file adds SEP to a text, .*: write \"eos\" in its place"),
        ("qwen3", {}, {"requires": ["general.x"]}, r"its header has no general.x, .*: get a newer conversion"),
    ],
)
def test_a_contradiction_is_refused(
    tmp_path: Path, architecture: Architecture, header: dict[str, object], weights: dict[str, object], reason: str
) -> None:
    model = write_model(tmp_path / "m.gguf", architecture=architecture, kv_heads=4, context=64, **header)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=rf"m\.gguf: .*{reason}"):
        header_check.check_model(model, family(tmp_path, architecture, **weights))


def test_a_word_piece_file_never_adds_eos(tmp_path: Path) -> None:
    """No conversion of it would: the family file is wrong."""
    path = write_vocabulary(tmp_path / "m.gguf", original("wordpiece"), add_eos_token=True)
    with pytest.raises(ModelError, match='ends a text with SEP and never with EOS: write "sep" in place of "eos"'):
        header_check.check_rules(path, read_header(path), family(tmp_path, "bert", adds=["eos"]).weights)


@pytest.mark.parametrize(
    ("architecture", "header", "weights"),
    [
        ("qwen3", {"pooling": "last", "add_eos": True}, {"pooling": "last", "adds": ["eos"]}),
        ("qwen3", {}, {"pooling": "last", "requires": ["block_count", "tokenizer.ggml.merges"]}),
        ("bert", {"pooling": "cls", "add_bos": True}, {"pooling": "cls", "causal": False, "adds": ["bos"]}),
        ("qwen3", {"add_bos": None, "pre": "jina-v5-nano"}, {"adds": ["bos"]}),
    ],
)
def test_a_file_that_agrees_passes(
    tmp_path: Path, architecture: Architecture, header: dict[str, object], weights: dict[str, object]
) -> None:
    model = write_model(tmp_path / "m.gguf", architecture=architecture, kv_heads=4, context=64, **header)  # type: ignore[arg-type]
    header_check.check_model(model, family(tmp_path, architecture, **weights))


def test_what_the_header_leaves_out_is_said(tmp_path: Path) -> None:
    weights = family(tmp_path, "qwen3", pooling="last").weights
    silent = read_header(write_model(tmp_path / "a.gguf", architecture="qwen3"))
    telling = read_header(write_model(tmp_path / "b.gguf", architecture="qwen3", pooling="last"))
    assert "does not say how it pools: last pooling is used" in str(header_check.unstated_pooling(silent, weights))
    assert header_check.unstated_pooling(telling, weights) is None


def test_the_longest_text_is_what_the_file_takes(tmp_path: Path) -> None:
    header = read_header(write_model(tmp_path / "m.gguf", architecture="qwen3", context=256))
    settings = settings_of(tmp_path)
    known = [None, header_check.longest_text(header, settings.family.weights)]
    assert header_check.bounded(settings, known, None).max_input_tokens == 256
    assert header_check.bounded(settings, [None], None) == settings
    short = settings_of(tmp_path, max_input_tokens=128)
    assert header_check.bounded(short, known, 128) == short
    with pytest.raises(ConfigError, match=r"max_input_tokens = 300: the model's file takes texts of 256 tokens; set"):
        header_check.bounded(settings_of(tmp_path, max_input_tokens=300), known, 300)
    scaled = family(tmp_path, "qwen3", rope_scaling={"type": "yarn", "freq_scale": 0.25}).weights
    assert header_check.longest_text(header, scaled) == 1024
    last = family(tmp_path, "qwen3", pooling="last").weights
    assert header_check.longest_text(header, last) == 255, "llama-server refuses a text of 256 then"
    linear = family(tmp_path, "qwen3", rope_scaling={"type": "linear", "freq_scale": 0.25}).weights
    assert header_check.longest_text(header, linear) == 256


def test_a_file_whose_vectors_are_wider_than_the_model_is_measured_by_its_vectors(tmp_path: Path) -> None:
    header = read_header(
        _adapter(tmp_path / "m.gguf", {"qwen3.embedding_length": 64, "qwen3.embedding_length_out": 32})
    )
    assert header_check.vector_length(header) == 32


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"general.type": "adapter", "adapter.type": "lora"}, None),
        ({"general.type": "model"}, "it is not a LoRA: make one with"),
        ({"general.type": "adapter", "adapter.type": "lora", "general.architecture": "bert"}, "it is a LoRA for bert"),
    ],
)
def test_a_lora_must_be_one_of_the_architecture(tmp_path: Path, keys: dict[str, str], reason: str | None) -> None:
    lora, of = _adapter(tmp_path / "lora.gguf", keys), family(tmp_path, "qwen3")
    if reason is None:
        header_check.check_lora(lora, of)
    else:
        with pytest.raises(ModelError, match=reason):
            header_check.check_lora(lora, of)


def _adapter(path: Path, keys: dict[str, str] | dict[str, int]) -> Path:
    writer = gguf.GGUFWriter(path, str(keys.get("general.architecture", "qwen3")))
    for name, value in keys.items():
        if isinstance(value, int):
            writer.add_uint32(name, value)
        elif name != "general.architecture":
            writer.add_string(name, value)
    writer.add_tensor("x", np.zeros(32, dtype=np.float32))
    finish_file(writer)
    return path
