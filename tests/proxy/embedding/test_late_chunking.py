"""Late chunking as a user has it: each vector is the exact mean of its chunk's tokens in the whole document."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio

from proxy.contract.family import VectorRules
from proxy.embedding import late_chunking
from proxy.faults import Invalid
from proxy.tokens.gguf_tokenizer import load_tokenizer
from tests.support.engines.standin import Fault, front, stand_in
from tests.support.models.families import only
from tests.support.models.reference import Reference
from tests.support.models.tiny_models import write_model
from tests.support.requests.client import embed, vectors_of
from tests.support.servers.stack import BATCH_TOKENS, FAMILY_FILE, Stack, family_of, small_family, stack

ENGINE_KINDS = ("embedded",)
LIMIT = 768
FAMILY = family_of(FAMILY_FILE)
WORDS = "the quick brown fox jumps over a lazy dog while passages answer queries über Brücken 模型 文本 def 42".split()
DINNER = ["My birthday is in May. ", "We went to a restaurant", " by the river; ", "it was lovely 🎉.", " Die Brücke"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(engine_kind: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Models of 64 dimensions: the code model's matrices are Q8_0, the others' F16."""
    folder = tmp_path_factory.mktemp("small")
    family, models = small_family(folder)
    write_model(models["code"], seed=1, dtype="Q8_0")
    async with stack(engine_kind, models, family=family, max_input_tokens=LIMIT) as served:
        yield served


pytestmark = pytest.mark.asyncio(loop_scope="module")


def exact(path: Path, prefix: str, chunks: Sequence[str], limit: int = LIMIT) -> npt.NDArray[np.float64]:
    """The unit vectors by an independent forward pass: the mean over the tokens that end inside the chunk."""
    ids, offsets = load_tokenizer(path).encode_with_offsets(prefix + "".join(chunks))
    model = Reference(path)
    assert ids == model.encode(prefix + "".join(chunks))
    states, ends = model.states(ids[:limit]), [end for _, end in offsets[:limit]]
    borders = np.cumsum([len(prefix), *map(len, chunks)])
    rows = [states[[start < end <= stop for end in ends]].mean(axis=0) for start, stop in pairwise(borders)]
    return np.array([row / np.linalg.norm(row) for row in rows])


def cosines(vectors: npt.NDArray[np.float32], truth: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", vectors, truth))


def words(count: int, seed: int = 1) -> list[str]:
    generator = random.Random(seed)
    return [generator.choice(WORDS) + " " for _ in range(count)]


@pytest.mark.parametrize("task", FAMILY.tasks)
async def test_a_chunks_vector_is_the_mean_of_its_tokens_in_the_document(small: Stack, task: str) -> None:
    row = FAMILY.tasks[task]
    vectors = await embed(small, DINNER, task=task, late_chunking=True)
    floor = 0.999 if row.backend == "code" else 0.9999
    assert cosines(vectors, exact(small.models[row.backend], row.prefix, DINNER)).min() >= floor
    alone = await embed(small, DINNER, task=task)
    assert cosines(vectors, alone.astype(np.float64))[1:].max() < 0.99, "the chunks before are seen"


async def test_one_text_is_the_mean_without_the_prefix(small: Stack) -> None:
    (vector,) = await embed(small, DINNER[:1], task="retrieval.query", late_chunking=True)
    assert cosines(vector[None], exact(small.models["retrieval"], "Query: ", DINNER[:1])) >= 0.9999


async def test_every_encoding_and_dialect_gives_the_same_vectors(small: Stack) -> None:
    body = {"input": DINNER, "late_chunking": True, "task": "retrieval.passage", "dimensions": 32}
    expected = await embed(small, DINNER, task="retrieval.passage", late_chunking=True, dimensions=32)
    assert np.linalg.norm(expected, axis=1) == pytest.approx(1)
    answer = await small.post({**body, "embedding_type": ["float", "ubinary"]})
    for vector, row in zip(expected, answer.json["data"], strict=True):  # type: ignore[call-overload] # a list
        assert row["embedding"]["float"] == pytest.approx(vector.tolist())
        assert row["embedding"]["ubinary"] == np.packbits(vector > 0).tolist()
    wrapped = await small.post({"input": {**body, "embedding_type": "base64"}}, "/runsync")
    assert vectors_of(wrapped.json["output"]["data"]) == pytest.approx(expected)  # type: ignore[index]


async def test_usage_counts_the_document_once(small: Stack) -> None:
    answer = await small.post({"input": DINNER, "task": "retrieval.query", "late_chunking": True})
    ids, _ = load_tokenizer(small.models["retrieval"]).encode_with_offsets("Query: " + "".join(DINNER))
    assert answer.json["usage"] == {"prompt_tokens": len(ids), "total_tokens": len(ids)}


async def test_a_hundred_chunks_of_seven_hundred_tokens_beside_other_requests(small: Stack) -> None:
    chunks = ["".join(part) for part in np.array_split(np.array(words(300), dtype=object), 100)]
    truth = exact(small.models["code"], "Passage: ", chunks)
    texts = [" ".join(words(n, seed=n)) for n in range(1, 60, 3)]
    alone = await embed(small, texts, task="code.query")

    async def others() -> None:
        for text, expected in zip(texts, alone, strict=True):
            (vector,) = await embed(small, [text], task="code.query")
            assert vector @ expected >= 0.999
            await asyncio.sleep(0.05)

    vectors, _ = await asyncio.gather(embed(small, chunks, task="code.passage", late_chunking=True), others())
    assert cosines(vectors, truth).min() >= 0.999


async def test_many_chunks_are_computed_token_by_token(engine_kind: str, tmp_path: Path) -> None:
    """Three hundred chunks of a thousand tokens, by a second engine of the same file; two, the other way."""
    family, models = small_family(tmp_path)
    chunks = ["".join(part) for part in np.array_split(np.array(words(440), dtype=object), 300)]
    truth = exact(models["code"], "Passage: ", chunks, BATCH_TOKENS)
    async with stack(
        engine_kind, {"code": models["code"]}, family=only(family, "code", tmp_path / "code.toml"), by_token=["code"]
    ) as served:
        many = await embed(served, chunks, task="code.passage", late_chunking=True)
        assert cosines(many, truth).min() >= 0.9999
        metrics = (await served.get("/metrics")).body.decode()
        assert 'trillama_call_tokens_count{backend="code-tokens"} 1.0' in metrics


async def test_without_the_second_engine_prefixes_are_computed(engine_kind: str, tmp_path: Path) -> None:
    family, models = small_family(tmp_path)
    chunks = words(40)
    part = only(family, "code", tmp_path / "code.toml")
    nobody = {"code": {"url": f"unix://{tmp_path}/nobody.sock", "slots": 1, "batch_tokens": 2048}}
    served_by_one = stack(
        engine_kind, {"code": models["code"]}, family=part, token_backends=nobody, unready=["code-tokens"]
    )
    async with served_by_one as served:
        vectors = await embed(served, chunks, task="code.passage", late_chunking=True)
    assert cosines(vectors, exact(models["code"], "Passage: ", chunks)).min() >= 0.9999


async def test_an_engine_that_rounds_its_means_serves_no_chunk_it_spoils(small: Stack, tmp_path: Path) -> None:
    """TF32, as CUDA may use it: found by the check before the first document, whose own vectors look like any other."""
    family, models = small_family(tmp_path)
    engine = small.engines["retrieval"]
    async with stand_in(engine) as one, front(one.url, family, models["retrieval"]) as served:
        one.fault = lambda ids: Fault.COARSE if len(ids) % 4 == 1 else None
        short = await served.post({"input": ["".join(words(300)), "x"], "late_chunking": True})
        assert short.status == 422, short.body
        assert "late_chunking: input 1 is too short" in str(short.json["detail"])
        await embed(served, ["".join(words(30)), "".join(words(30))], late_chunking=True)


@pytest.mark.parametrize("options", [{}, {"on_error": "partial"}])
async def test_the_chunk_that_the_engine_cannot_compute_is_named(
    small: Stack, tmp_path: Path, options: dict[str, str]
) -> None:
    """The third; of what lies behind it only the two are tried that were on their way."""
    family, models = small_family(tmp_path)
    engine = small.engines["retrieval"]
    (*_, token) = await engine.tokenize("Query: a xyzzy")
    async with stand_in(engine) as one, front(one.url, family, models["retrieval"]) as served:
        one.fault = lambda ids: Fault.NAN if token in ids else None
        body = {"input": ["one ", "two ", "a xyzzy", *words(9)], "late_chunking": True, **options}
        answer = await served.post(body)
    assert (answer.status, answer.json["code"]) == (422, "INPUT_POISONED")
    assert "input.2" in str(answer.json["detail"])
    tried = {len(ids) for call in one.calls for ids in call if token in ids}
    assert len(tried) <= 3


async def test_a_decomposed_accent_belongs_to_the_letter_before(small: Stack) -> None:
    composed = await embed(small, ["café", " au lait"], late_chunking=True)
    decomposed = await embed(small, ["cafe", "\u0301 au lait"], late_chunking=True)
    assert decomposed == pytest.approx(composed, abs=1e-6)


async def test_a_document_that_is_too_long_is_refused_with_its_count(small: Stack) -> None:
    chunks = ["".join(words(100, seed)) for seed in range(4)]
    answer = await small.post({"input": chunks, "late_chunking": True, "task": "retrieval.query"})
    ids, _ = load_tokenizer(small.models["retrieval"]).encode_with_offsets("Query: " + "".join(chunks))
    assert answer.status == 400
    assert answer.json["code"] == "INPUT_TOKEN_LIMIT_EXCEEDED"
    assert f"one document, of {len(ids)} tokens" in str(answer.json["detail"])


async def test_truncate_drops_the_tail_and_names_what_is_lost(small: Stack) -> None:
    chunks = ["".join(words(200, seed)) for seed in range(4)]
    body = {"input": chunks, "late_chunking": True, "task": "retrieval.query", "truncate": True}
    refused = await small.post(body)
    assert (refused.status, refused.json["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    partial = await small.post({**body, "on_error": "partial", "embedding_type": "base64"})
    rows = partial.json["data"]
    assert isinstance(rows, list)
    kept = [row for row in rows if "embedding" in row]
    assert 1 <= len(kept) < 4
    assert [row["error"]["code"] for row in rows[len(kept) :]] == ["INPUT_TOKEN_LIMIT_EXCEEDED"] * (4 - len(kept))
    assert f"input {len(kept)} " in str(refused.json["detail"])
    assert cosines(vectors_of(kept), exact(small.models["retrieval"], "Query: ", chunks[: len(kept)])).min() >= 0.9999


@pytest.mark.parametrize("chunks", [["", "a"], ["a", ""], ["a", "", "b"]])
async def test_an_empty_chunk_has_no_mean_and_is_named(small: Stack, chunks: list[str]) -> None:
    index = chunks.index("")
    answer = await small.post({"input": chunks, "late_chunking": True})
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR")
    assert f"input.{index}: is empty" in str(answer.json["detail"])
    rows = (await small.post({"input": chunks, "late_chunking": True, "on_error": "partial"})).json["data"]
    assert ["error" in row for row in rows] == [not chunk for chunk in chunks]  # type: ignore[attr-defined] # a list


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (VectorRules(causal=False), "needs the state of each token, .*: set token_level = true under .late_chunking."),
        (VectorRules(causal=False, pooling="cls"), "the state of the first token, not the mean"),
        (VectorRules(pooling="last"), "the state of the last token, not the mean"),
    ],
)
async def test_a_model_whose_chunks_have_no_exact_vector_refuses(rules: VectorRules, reason: str) -> None:
    """Where a token sees what comes after it, a prefix of the document gives it another state."""
    with pytest.raises(Invalid, match=reason):
        late_chunking.check_possible(rules, has_states=False)
