"""The vectors are the model's: compared with an independent forward pass, for every task, size and load."""

import asyncio
import random
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from proxy.types import Encoding
from tests.support.models.reference import Reference
from tests.support.requests.client import embed, vectors_of
from tests.support.servers.stack import BATCH_TOKENS, FAMILY_FILE, Stack, family_of, small_family, stack

FAMILY = family_of(FAMILY_FILE)
TEXT = "What do I do if my lightsaber overheats? Die Brücke, 我们的模型 🎉"
WORDS = "the quick brown fox jumps over a lazy dog while passages answer queries über Brücken 模型 文本 def 42".split()


@cache
def reference(path: Path) -> Reference:
    return Reference(path)


def truth(path: Path, text: str, dimensions: int = 2048) -> npt.NDArray[np.float64]:
    """The unit vector that the model gives for a text that has its prefix already."""
    model = reference(path)
    vector = np.asarray(model.embed(model.encode(text)), dtype=np.float64)[:dimensions]
    return np.asarray(vector / np.linalg.norm(vector))


@pytest.mark.parametrize("task", FAMILY.tasks)
@pytest.mark.parametrize("dimensions", [1, 128, 333, 1024, 2048])
async def test_a_vector_is_the_models_own(served: Stack, task: str, dimensions: int) -> None:
    row = FAMILY.tasks[task]
    (vector,) = await embed(served, [TEXT], task=task, dimensions=dimensions)
    assert len(vector) == dimensions
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert vector @ truth(served.models[row.backend], row.prefix + TEXT, dimensions) >= 0.9999


async def test_without_normalisation_it_is_the_raw_mean_sliced(served: Stack) -> None:
    model = reference(served.models["code"])
    raw = model.embed(model.encode("Query: " + TEXT))[:256]
    (vector,) = await embed(served, [TEXT], task="code.query", dimensions=256, normalized=False)
    np.testing.assert_allclose(vector, raw, rtol=0.02, atol=0.01 * float(np.abs(raw).max()))


async def test_base64_and_bits_are_of_the_same_vector(served: Stack) -> None:
    names = [encoding.value for encoding in Encoding]
    answer = await served.post({"input": [TEXT, "other"], "embedding_type": names, "dimensions": 128})
    for row in answer.json["data"]:  # type: ignore[attr-defined] # a list, or the test fails
        given = row["embedding"]
        floats = np.array(given["float"], dtype=np.float32)
        assert vectors_of([{"embedding": given["base64"]}])[0].tolist() == floats.tolist()
        assert given["ubinary"] == np.packbits(floats > 0).tolist()
        assert given["binary"] == [bits - 128 for bits in given["ubinary"]]


async def test_no_vector_is_wrong_and_nothing_fails_under_mixed_load(engine_kind: str, tmp_path: Path) -> None:
    """32 clients, texts of 4 tokens to the longest: llama-server alone gives wrong vectors and 500s here (T1, T2)."""
    generator = random.Random(7)
    lengths = [1, 5, 20, 60, 150, 300, 700]
    texts = [" ".join(generator.choices(WORDS, k=generator.choice(lengths))) for _ in range(30)]
    requests = [generator.choices(texts, k=generator.randint(1, 8)) for _ in range(40)]
    family, models = small_family(tmp_path)
    model = reference(models["retrieval"])

    async with stack(engine_kind, models, family=family) as served:
        alone = {text: (await embed(served, [text], task="retrieval.passage", truncate=True))[0] for text in texts}

        async def client() -> None:
            while requests:
                batch = requests.pop()
                vectors = await embed(served, batch, task="retrieval.passage", truncate=True)
                for text, vector in zip(batch, vectors, strict=True):
                    assert vector @ alone[text] >= 0.9999, f"wrong vector for {text[:40]!r} ({len(text)} characters)"

        await asyncio.gather(*(client() for _ in range(32)))
    for text in generator.sample(texts, 12):
        expected = model.embed(model.encode("Passage: " + text)[:BATCH_TOKENS])
        assert alone[text] @ expected / np.linalg.norm(expected) >= 0.9999


async def test_the_longest_text_that_is_promised_is_right(engine_kind: str, tmp_path: Path) -> None:
    text, (family, models) = "long " * 5000, small_family(tmp_path)
    model = reference(models["retrieval"])
    expected = model.embed(model.encode("Query: " + text)[:BATCH_TOKENS])
    async with stack(engine_kind, models, family=family) as served:
        (vector,) = await embed(served, [text], task="retrieval.query", truncate=True)
    assert vector @ expected / np.linalg.norm(expected) >= 0.9999


async def test_a_decomposed_text_gets_the_vector_of_the_composed_one(served: Stack) -> None:
    """Qwen2's own tokenizer normalises to NFC; llama.cpp does not."""
    composed, decomposed = await embed(served, ["caf\u00e9", "cafe\u0301"])
    assert composed.tolist() == pytest.approx(decomposed.tolist(), abs=1e-6)
