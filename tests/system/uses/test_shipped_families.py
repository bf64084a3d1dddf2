"""The rules of shipped family files on random models of their architectures: the vectors are those of a forward pass in
numpy, and files that are known to be bad are refused by name.
"""

import tomllib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import gguf
import numpy as np
import pytest
import pytest_asyncio
import tomli_w

from launcher.conversion.gguf_writer import finish_file
from launcher.errors import ModelError
from launcher.models import header_check
from launcher.settings.config import read_family, shipped_families
from launcher.settings.family import FamilyFile
from proxy.contract.family import Pooling
from proxy.contract.gguf import Header, Value
from tests.support.engines.engine import llama_server
from tests.support.models.families import only
from tests.support.models.reference import F64, Reference
from tests.support.models.tiny_encoders import Kind, write_encoder_lora, write_tiny_encoder
from tests.support.models.tiny_gemma import write_tiny_gemma
from tests.support.models.tiny_models import write_model
from tests.support.requests.client import embed
from tests.support.servers.stack import Stack, stack
from tests.support.tokens.vocabularies import add_vocabulary, original

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 96
# Words that llama.cpp and the originals split alike, so that the engine's own ids are the truth.
TEXTS = ["hello world", "the quick brown fox jumps over the lazy dog", "a"]
States = Callable[[Sequence[int]], F64]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A shipped family with vectors of 64 numbers, served with a random model, and that model's token states."""

    served: Stack
    states: States
    family: FamilyFile


def shrink(name: str, folder: Path) -> Path:
    """The shipped file with another vector size: all its rules are as they are shipped."""
    table = tomllib.loads(shipped_families()[name].read_text(encoding="utf-8"))
    sizes = {"dimensions": 64, "trained_dimensions": [32, 64], "max_input_tokens": LIMIT}
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps({**table, **sizes}), encoding="utf-8")
    return path


def encoder(path: Path, kind: Kind, words: str, pooling: Pooling = "mean") -> States:
    """The states of a new random encoder with the vocabulary of that kind, made at `path`."""
    return write_tiny_encoder(path, kind, original(words), pooling=pooling).states


def decoder(path: Path, **header: object) -> States:
    """The states of a new random decoder, or EuroBERT."""
    return Reference(write_model(path, dtype="F32", context=LIMIT + 1, pooling="last", **header)).states  # type: ignore[arg-type]


MODELS: Mapping[str, Callable[[Path], States]] = {
    "bge-m3": lambda path: encoder(path, "bert", "unigram", "cls"),
    "jina-embeddings-v2-base-en": lambda path: encoder(path, "jina-bert-v2", "wordpiece"),
    "nomic-embed-text-v1.5": lambda path: encoder(path, "nomic-bert", "wordpiece"),
    "qwen3-embedding-0.6b": lambda path: decoder(path, architecture="qwen3", add_eos=True),
    "jina-embeddings-v5-text-nano": lambda path: decoder(path, architecture="eurobert", pre="jina-v5-nano"),
    "jina-code-embeddings-0.5b": lambda path: decoder(path, architecture="qwen2"),
    "jina-embeddings-v3": lambda path: encoder(path, "jina-bert-v3", "unigram"),
    "embeddinggemma-300m": lambda path: write_tiny_gemma(path, context=LIMIT + 1).states,
}
POOLS: Mapping[str, Callable[[F64], F64]] = {
    "mean": lambda states: states.mean(axis=0),
    "cls": lambda states: states[0],
    "last": lambda states: states[-1],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shrunk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Shrunk]]:
    """One of each representative kind, with the tasks of its first backend."""
    folder, exits = tmp_path_factory.mktemp("shrunk"), AsyncExitStack()

    async def one(name: str) -> Shrunk:
        file, model = shrink(name, folder), folder / f"{name}.gguf"
        states, family = MODELS[name](model), read_family(file)
        header_check.check_model(model, family)
        backend = family.tasks[family.default_task].backend
        models = dict.fromkeys([backend], model)
        part = only(file, backend, folder / f"{name}.part.toml")
        served = await exits.enter_async_context(stack("embedded", models, family=part, batch_tokens=LIMIT))
        return Shrunk(served, states, family)

    async with exits:
        yield {name: await one(name) for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
async def test_vectors_are_those_of_the_forward_pass(shrunk: dict[str, Shrunk], name: str) -> None:
    one = shrunk[name]
    row = one.family.tasks[one.family.default_task]
    (engine,) = one.served.engines.values()
    ids = [await engine.tokenize(row.whole_prefix + text) for text in TEXTS]
    truth = np.array([POOLS[one.family.weights.pooling](one.states(each)) for each in ids])
    vectors = await embed(one.served, TEXTS, task=one.family.default_task)
    assert (np.einsum("ij,ij->i", vectors, truth) / np.linalg.norm(truth, axis=1)).min() >= 0.9999
    others = [pool for name, pool in POOLS.items() if name != one.family.weights.pooling]
    wrong = np.array([[pool(one.states(each)) for each in ids[:2]] for pool in others]).reshape(-1, 64)
    assert (np.einsum("ij,ij->i", np.tile(vectors[:2], (2, 1)), wrong) / np.linalg.norm(wrong, axis=1)).max() < 0.999


async def test_a_lora_is_applied_to_every_matrix_of_jina_embeddings_v3(tmp_path: Path) -> None:
    """Its token embeddings included, as the original's LoRAs have them."""
    path, lora = tmp_path / "v3.gguf", tmp_path / "lora.gguf"
    base = write_tiny_encoder(path, "jina-bert-v3", original("unigram"), pooling="mean")
    merged, family = write_encoder_lora(lora, base), read_family(shrink("jina-embeddings-v3", tmp_path))
    header_check.check_model(path, family)
    header_check.check_lora(lora, family)
    async with llama_server(path, batch_tokens=LIMIT, extra_flags=("--lora", str(lora))) as engine:
        ids = [await engine.tokenize(text) for text in TEXTS]
        vectors = await engine.embed(ids)
    truth, without = (np.array([one.states(each).mean(axis=0) for each in ids]) for one in (merged, base))
    vectors, truth, without = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (vectors, truth, without))
    assert np.einsum("ij,ij->i", vectors, truth).min() >= 0.9999
    assert np.einsum("ij,ij->i", vectors, without).max() < 0.99


def right_header(name: str, folder: Path) -> tuple[Header, FamilyFile]:
    """The header of a random model of that family's kind, which agrees with the family."""
    path, family = folder / f"{name}.gguf", read_family(shrink(name, folder))
    weights, architecture = family.weights, family.weights.architecture
    if architecture == "gemma-embedding":
        write_tiny_gemma(path, context=LIMIT + 1)
    elif architecture in get_args(Kind):
        words = original("wordpiece" if "sep" in weights.adds else "unigram")
        write_tiny_encoder(path, cast("Kind", architecture), words, pooling=weights.pooling)
    else:
        added = {f"add_{token}": True for token in weights.adds}
        write_model(path, architecture=architecture, pooling=weights.pooling, **added)  # type: ignore[arg-type]
    return header_check.check_model(path, family), family


@pytest.mark.parametrize("name", shipped_families())
async def test_each_rule_of_each_family_is_compared_with_the_header(tmp_path: Path, name: str) -> None:
    header, family = right_header(name, tmp_path)
    weights, own = family.weights, f"{family.weights.architecture}."

    def refused(key: str, value: Value | None) -> str:
        """What is wrong with the file if that key has another value, or with None is missing."""
        metadata = {name: one for name, one in header.metadata.items() if name != key}
        changed = replace(header, metadata=metadata if value is None else {**metadata, key: value})
        return "; ".join(header_check.contradictions(changed, family))

    other = {"mean": (2, "cls"), "cls": (3, "last"), "last": (1, "mean")}[weights.pooling]
    assert f"it pools by {other[1]} " in refused(own + "pooling_type", other[0])
    assert "it is a reranker" in refused(own + "pooling_type", 4)
    assert "its architecture is llama" in refused("general.architecture", "llama")
    assert "its vectors have 128 dimensions" in refused(own + "embedding_length_out", 128)
    if weights.architecture not in header_check.NEVER_CAUSAL:
        assert "its tokens see" in refused(own + "attention.causal", not weights.causal)
    for token in () if "sep" in weights.adds else weights.adds:  # a WordPiece file always adds its own
        reason = refused(f"tokenizer.ggml.add_{token}_token", False)
        assert f"its tokenizer adds no {token.upper()} to a text" in reason
    for key in weights.requires:
        assert f"its header has no {own}{key}" in refused(own + key, None)


def bad_unigram(path: Path) -> None:
    """As vonjack's bge-m3."""
    write_tiny_encoder(path, "bert", original("unigram"), pooling="cls", add_bos_token=False, add_eos_token=False)


def bad_qwen3(path: Path) -> None:
    """As the files before the middle of 2025."""
    write_model(path, architecture="qwen3", pooling="last")


def bad_gemma(path: Path) -> None:
    """As the files that were converted without the modules of sentence-transformers."""
    writer = gguf.GGUFWriter(path, "gemma-embedding")
    writer.add_embedding_length(64)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    add_vocabulary(writer, original("spm"), add_bos_token=True, add_eos_token=True)
    writer.add_tensor("token_embd.weight", np.zeros(32, dtype=np.float32))
    finish_file(writer)


def other_pooling(path: Path) -> None:
    """A file whose header says that it is another model."""
    write_model(path, architecture="qwen2", pooling="mean")


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("bge-m3", bad_unigram, "adds no BOS to a text, .* whose header has tokenizer.ggml.add_bos_token = true"),
        ("qwen3-embedding-4b", bad_qwen3, "adds no EOS to a text, .* whose header has tokenizer.ggml.add_eos_token"),
        ("embeddinggemma-300m", bad_gemma, "no gemma-embedding.dense_2_feat_in, .*: get a newer conversion"),
        ("jina-code-embeddings-0.5b", other_pooling, "it pools by mean .*, this family by last"),
    ],
)
async def test_a_file_that_is_known_to_be_bad_is_refused_by_name(
    tmp_path: Path, name: str, write: Callable[[Path], None], reason: str
) -> None:
    model = tmp_path / "model.gguf"
    write(model)
    with pytest.raises(ModelError, match=rf"model\.gguf: .*{reason}"):
        header_check.check_model(model, read_family(shrink(name, tmp_path)))
