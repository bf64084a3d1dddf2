"""Models that pool otherwise, see the whole text or add tokens of their own: the right vector, or a refusal by name.

The truth is llama.cpp's own: its pooling of the whole text, or the states of the text's tokens.
"""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np
import orjson
import pytest
import pytest_asyncio

from launcher.multivector import projector
from proxy.tokens.gguf_tokenizer import load_tokenizer
from proxy.types import Matrix
from tests.support.engines.engine import LlamaServer
from tests.support.models.families import write_family
from tests.support.models.tiny_models import write_model
from tests.support.requests.client import embed
from tests.support.servers.stack import Stack, proxy, stack

LIMIT = 64
TEXTS = ["the quick brown fox", "", "über die Brücke 我们的模型", "a query of the passage " * 5]
LONG = "the quick brown fox jumps over the lazy dog and the other dogs " * 20
CHUNKS = ["My birthday is in May. ", "We went to a restaurant", " by the river; ", "it was lovely 🎉."]
TEXT_PART = {"type": "text", "text": "a dog"}
QUERY = {"prefix": "Instruct: {instruction}\nQuery:", "instruction": "find passages"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def last(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A decoder that pools by its last token, EOS, with an instruction per request: as Qwen3-Embedding."""
    folder = tmp_path_factory.mktemp("last")
    model = write_model(folder / "m.gguf", architecture="qwen3", add_eos=True, pooling="last")
    tasks = {"passage": {"prefix": ""}, "query": QUERY}
    family = write_family(folder / "f.toml", {"architecture": "qwen3", "pooling": "last", "adds": ["eos"]}, tasks=tasks)
    family.write_text(family.read_text() + "[multivector]\ndimensions = 8\n")
    projector.save_projector(random_projector(), folder / "projector.npz")
    file = str(folder / "projector.npz")
    async with stack(
        "embedded", {"tiny": model}, family=family, by_token=["tiny"], batch_tokens=LIMIT, multivector_file=file
    ) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def encoder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """An encoder with rotary positions, EOS and mean pooling: as EuroBERT."""
    folder = tmp_path_factory.mktemp("encoder")
    model = write_model(folder / "m.gguf", architecture="eurobert", add_bos=True, add_eos=True)
    family = write_family(
        folder / "f.toml", {"architecture": "eurobert", "causal": False, "sliced_after": "layer_norm"}
    )
    async with stack("embedded", {"tiny": model}, family=family, by_token=["tiny"], batch_tokens=LIMIT) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def first(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """An encoder with learned positions that pools by its first token, as bge-m3; the engine tokenises for it."""
    folder = tmp_path_factory.mktemp("first")
    model = write_model(
        folder / "m.gguf",
        architecture="bert",
        kv_heads=4,
        context=LIMIT,
        pre="falcon",
        add_bos=True,
        add_eos=True,
        pooling="cls",
    )
    family = write_family(folder / "f.toml", {"architecture": "bert", "causal": False, "pooling": "cls"})
    async with stack("embedded", {"tiny": model}, family=family, batch_tokens=LIMIT) as served:
        yield served


@pytest.fixture(scope="module")
def families(first: Stack, last: Stack, encoder: Stack) -> dict[str, Stack]:
    return {"first": first, "last": last, "encoder": encoder}


def random_projector() -> projector.Projector:
    rng = np.random.default_rng(0)
    weights = {"tiny": rng.standard_normal((8, 64), dtype=np.float32)}
    return projector.Projector(weights, rng.standard_normal(8, dtype=np.float32), {"family": "tiny"})


async def states(served: Stack, ids: list[int]) -> Matrix:
    """The state of each token, from the engine that does not pool."""
    answer = orjson.loads(await served.by_token["tiny"].post("/embedding", {"content": ids, "embd_normalize": -1}))
    return np.array(answer[0]["embedding"], dtype=np.float32)


def cosines(vectors: Matrix, truth: Matrix) -> Matrix:
    """Of the rows of `vectors`, of unit length, with those of `truth`."""
    return np.asarray(np.einsum("ij,ij->i", vectors, truth) / np.linalg.norm(truth, axis=1))


async def engine_vectors(engine: LlamaServer, texts: list[str]) -> Matrix:
    """What llama.cpp itself gives for whole texts."""
    return np.concatenate([await engine.embed([await engine.tokenize(text)]) for text in texts])


@pytest.mark.parametrize("name", ["first", "last", "encoder"])
async def test_vectors_are_pooled_as_the_family_says(families: dict[str, Stack], name: str) -> None:
    served = families[name]
    truth = await engine_vectors(served.engines["tiny"], TEXTS)
    assert cosines(await embed(served, TEXTS), truth).min() >= 0.9999
    answer = await served.post({"input": TEXTS})
    assert answer.headers["X-Trillama-Pooling"] == {"first": "cls", "last": "last", "encoder": "mean"}[name]


async def test_info_names_the_pooling(first: Stack, last: Stack) -> None:
    poolings = [(await one.get("/info")).json["model_type"] for one in (first, last)]
    assert poolings == [{"embedding": {"pooling": "cls"}}, {"embedding": {"pooling": "last_token"}}]


@pytest.mark.parametrize("name", ["first", "last", "encoder"])
async def test_a_text_that_is_cut_keeps_the_models_own_tokens(families: dict[str, Stack], name: str) -> None:
    served = families[name]
    ids = await served.engines["tiny"].tokenize(LONG)
    truth = await served.engines["tiny"].embed([[*ids[: LIMIT - 1], ids[-1]]])
    (vector,) = await embed(served, [LONG], truncate=True)
    assert cosines(vector[None], truth) >= 0.9999
    other = await served.engines["tiny"].embed([ids[:LIMIT]])
    assert cosines(vector[None], other) < 0.9999 or name != "last"


async def test_a_shorter_vector_is_cut_from_the_layer_normalised_one(encoder: Stack) -> None:
    whole = await embed(encoder, TEXTS)
    centred = whole - whole.mean(axis=1, keepdims=True)
    assert cosines(await embed(encoder, TEXTS, dimensions=16), centred[:, :16]).min() >= 0.9999
    assert cosines(await embed(encoder, TEXTS, dimensions=64), whole).min() >= 0.9999


async def test_chunks_of_an_encoder_are_the_means_of_their_tokens_in_the_document(encoder: Stack) -> None:
    ids, offsets = load_tokenizer(encoder.models["tiny"]).encode_with_offsets("".join(CHUNKS))
    found = await states(encoder, ids)
    borders = np.cumsum([0, *map(len, CHUNKS)])
    truth = np.array(
        [found[[start < end <= stop for _, end in offsets]].mean(axis=0) for start, stop in pairwise(borders)]
    )
    vectors = await embed(encoder, CHUNKS, late_chunking=True)
    assert cosines(vectors, truth).min() >= 0.9999
    assert cosines(vectors, await engine_vectors(encoder.engines["tiny"], CHUNKS)).max() < 0.999, "the others are seen"


async def test_chunks_of_a_cut_document_have_none_of_the_models_own_tokens(encoder: Stack) -> None:
    chunks = ["the quick brown fox ", LONG, "lost", "lost, too"]
    ids, offsets = load_tokenizer(encoder.models["tiny"]).encode_with_offsets("".join(chunks))
    found = await states(encoder, [*ids[: LIMIT - 1], ids[-1]])
    inside = [len(chunks[0]) < end <= len(chunks[0] + LONG) for _, end in offsets[: LIMIT - 1]]
    body = {"input": chunks, "late_chunking": True, "truncate": True, "on_error": "partial"}
    rows = (await encoder.post(body)).json["data"]
    assert isinstance(rows, list)
    assert cosines(np.array([rows[1]["embedding"]]), found[: LIMIT - 1][inside].mean(axis=0)[None]) >= 0.9999
    assert ["error" in row for row in rows] == [False, False, True, True]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("last", "this model's vector is the state of the last token"),
        ("first", "this model's vector is the state of the first token"),
    ],
)
async def test_late_chunking_is_refused_where_a_chunk_has_no_vector(
    families: dict[str, Stack], name: str, reason: str
) -> None:
    answer = await families[name].post({"input": CHUNKS, "late_chunking": True})
    assert answer.status == 422
    assert reason in answer.body.decode()


async def test_multi_vectors_are_of_the_states_whatever_the_pooling(last: Stack) -> None:
    answer = await last.post({"input": TEXTS[:1], "return_multivector": True})
    assert answer.status == 200, answer.body
    (row,) = orjson.loads(answer.body)["data"]
    made = random_projector()
    found = await states(last, await last.engines["tiny"].tokenize(TEXTS[0]))
    truth = found @ made.weights["tiny"].T + made.bias
    assert cosines(np.array(row["embeddings"]), truth).min() >= 0.999


async def test_a_request_gives_its_own_instruction(last: Stack) -> None:
    texts = ["which passage is it", "the lazy dog"]
    for given, used in (({}, "find passages"), ({"instruction": "find code {instruction}"}, "find code {instruction}")):
        truth = await engine_vectors(last.engines["tiny"], [f"Instruct: {used}\nQuery:{text}" for text in texts])
        assert cosines(await embed(last, texts, task="query", **given), truth).min() >= 0.9999
    answer = await last.post({"input": texts, "task": "query"})
    own = await last.post({"input": texts, "task": "query", "instruction": "find code"})
    assert answer.headers["X-Trillama-Prefix"] == '"Instruct: find passages\\nQuery:"'
    assert own.headers["X-Trillama-Prefix"] == '"Instruct: {instruction}\\nQuery:"'
    assert own.headers["X-Trillama-Vector-Space"] == answer.headers["X-Trillama-Vector-Space"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/embed", {"texts": ["a dog"], "input_type": "query"}),
        (
            "/v1/multimodalembeddings",
            {"inputs": [{"content": [{"type": "text", "text": "a dog"}]}], "input_type": "query"},
        ),
        ("/embed", {"inputs": ["a dog"], "prompt_name": "query"}),
        ("/api/embed", {"input": ["a dog"], "model": "tiny:query"}),
        ("/api/embeddings", {"prompt": "a dog", "model": "tiny:query"}),
        ("/v1beta/models/tiny:embedContent", {"content": {"parts": [TEXT_PART]}, "taskType": "query"}),
        ("/v1beta/models/tiny:batchEmbedContents", {"content": {"parts": [TEXT_PART]}, "taskType": "query"}),
        ("/runsync", {"input": ["a dog"], "task": "query"}),
    ],
)
async def test_every_dialect_takes_an_instruction(last: Stack, path: str, body: dict[str, object]) -> None:
    """Ignoring it would be a wrong vector with HTTP 200."""
    whole: dict[str, object] = {**body, "instruction": "find code"}
    whole = {"requests": [whole]} if "batch" in path else {"input": whole} if path == "/runsync" else whole
    (truth,) = await engine_vectors(last.engines["tiny"], ["Instruct: find code\nQuery:a dog"])
    answer = await last.post(whole, path, Accept="application/octet-stream")
    assert answer.status == 200, answer.body
    assert cosines(np.frombuffer(answer.body, dtype="<f4")[None], truth[None]) >= 0.9999


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"task": "passage", "instruction": "find"}, "task 'passage' takes no instruction"),
        ({"task": "query", "instruction": "x" * 3000}, "at most 2048 characters"),
        ({"task": "query", "instruction": 5}, "must be a string"),
    ],
)
async def test_an_instruction_without_a_place_is_refused(last: Stack, body: dict[str, object], reason: str) -> None:
    answer = await last.post({"input": ["a"], **body})
    assert answer.status == 422
    errors = answer.json["errors"]
    assert isinstance(errors, list)
    assert (errors[0]["field"], reason in errors[0]["message"]) == ("instruction", True)


async def test_an_engine_that_takes_shorter_texts_than_the_proxy_promises_is_not_served(first: Stack) -> None:
    settings = {"url": first.engines["tiny"].url, "slots": 16, "batch_tokens": 2 * LIMIT}
    config = {"family": str(first.models["tiny"].with_name("f.toml")), "backends": {"tiny": settings}}
    async with proxy(config, wait=False) as url, asyncio.timeout(30):
        told = f"takes {LIMIT} tokens of a text, less than its batch_tokens = {2 * LIMIT}: set"
        served = Stack(url=url, models={}, engines={})
        while told not in (await served.get("/ready")).body.decode():
            await asyncio.sleep(0.05)
