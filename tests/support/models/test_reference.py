"""llama.cpp computes what the architecture says, whatever the length, the batch and the type of the weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.engines.engine import llama_server
from tests.support.models.reference import Reference
from tests.support.models.tiny_models import DType, write_model

SHORT = "Query: Über den Fluß führt eine Brücke; it's 1234 m long 👍🏽"
LONG = "Passage: " + "the lazy dog and the quick brown fox; 我们的模型 def embed(self): return 42\n" * 60


@pytest.fixture(params=["F32", "F16", "Q8_0"])
def dtype(request: pytest.FixtureRequest) -> DType:
    dtype: DType = request.param
    return dtype


@pytest.fixture
def model(dtype: DType, tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.gguf", dtype=dtype, seed=3)


async def test_engine_equals_reference_in_a_mixed_batch_of_sixteen(model: Path, dtype: DType, engine_kind: str) -> None:
    reference = Reference(model)
    texts = [SHORT, *(LONG[: 9 + 31 * i] for i in range(14)), ""]
    ids = [reference.encode(text) or [7] for text in texts]
    async with llama_server(model, engine=engine_kind) as server:
        assert_close(await server.embed(ids), [reference.embed(each) for each in ids], dtype)


async def test_engine_equals_reference_on_a_long_text(model: Path, dtype: DType, engine_kind: str) -> None:
    reference = Reference(model)
    ids = reference.encode(LONG)[:1000]
    assert len(ids) == 1000
    async with llama_server(model, engine=engine_kind) as server:
        assert_close(await server.embed([ids]), [reference.embed(ids)], dtype)


async def test_engine_and_reference_agree_on_the_text_of_a_request(model: Path, dtype: DType, engine_kind: str) -> None:
    reference = Reference(model)
    texts = [SHORT, "Query: <|im_start|>user\r\n\r\n  <|im_end|>\u3000x", LONG[:500]]
    async with llama_server(model, engine=engine_kind) as server:
        assert_close(await server.embed(texts), reference.embed_texts(texts), dtype)


async def test_a_matryoshka_sized_model_and_plain_qwen2(tmp_path: Path, engine_kind: str) -> None:
    wide = write_model(tmp_path / "wide.gguf", n_embd=2048, heads=16, layers=1)
    plain = write_model(tmp_path / "plain.gguf", architecture="qwen2", layers=3)
    for model in (wide, plain):
        async with llama_server(model, engine=engine_kind) as server:
            assert_close(await server.embed([SHORT]), Reference(model).embed_texts([SHORT]))


def test_a_vector_depends_on_the_words_and_on_their_order(model: Path) -> None:
    """Else no test that compares vectors would notice a mistake."""
    texts = ["Query: the dog jumps over the fox", "Query: the fox jumps over the dog", "Query: die Straße ist naß"]
    vectors = Reference(model).embed_texts(texts)
    assert cosine(vectors[0], vectors[1]) < 0.97
    assert cosine(vectors[0], vectors[2]) < 0.9


def test_the_same_seed_gives_the_same_file_and_another_seed_other_weights(tmp_path: Path) -> None:
    first, again, other = (write_model(tmp_path / f"{i}.gguf", seed=seed) for i, seed in enumerate((1, 1, 2)))
    assert first.read_bytes() == again.read_bytes()
    vectors = [Reference(path).embed_texts([SHORT])[0] for path in (first, other)]
    assert cosine(*vectors) < 0.9


def assert_close(
    got: npt.NDArray[np.float32], expected: Sequence[npt.NDArray[np.float64]] | np.ndarray, dtype: DType = "F16"
) -> None:
    # Measured over four seeds: cosine 0.9999994 and norms within 2.4e-4. With Q8_0 the engine rounds the activations
    # to 8 bits too, which random weights amplify: 0.99979 and 6.7e-3. A wrong token or position costs 0.03 and more.
    least_cosine, norm_within = (0.9995, 2e-2) if dtype == "Q8_0" else (0.99999, 1e-3)
    for one, other in zip(got, expected, strict=True):
        assert cosine(one, other) >= least_cosine
        assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(other), rel=norm_within)


def cosine(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
