"""A vector for each token from a real engine: as numpy projects its token states, or refused with what is missing."""

import asyncio
import base64
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from launcher.multivector import projector
from proxy.types import Matrix
from tests.support.servers.stack import BACKENDS, FAMILY_FILE, READY_TIMEOUT_S, Stack, family_of, proxy
from tests.support.servers.tokenwise import Served, random_projector, serving_tokenwise, task_prefixes

ENGINE_KINDS = ("embedded",)  # what is asked here does not depend on the engine

FAMILY = family_of(FAMILY_FILE)
PAGE = Path(__file__).parents[3] / "docs" / "multivector.md"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tokenwise(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving_tokenwise(tmp_path_factory.mktemp("tokenwise")) as served:
        yield served


async def expected(served: Served, task: str, text: str) -> Matrix:
    """What numpy makes of the token states that llama.cpp gives for the prefix and the text."""
    backend, prefix = task_prefixes(FAMILY)[task]
    states = await served.source.states(await served.pooled.tokenize(prefix + text))
    raw = states.astype(np.float64) @ served.projector.weights[backend].T + served.projector.bias
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), dtype=np.float32)


async def rows(served: Served, **body: object) -> list[dict[str, object]]:
    answer = await served.stack.post({"return_multivector": True, **body})
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert isinstance(data, list)
    return data


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("task", FAMILY.tasks)
async def test_each_token_has_its_projected_state_the_prefix_too(tokenwise: Served, task: str) -> None:
    texts = ["the quick brown fox", "", "über die Brücke 我们的模型"]
    answer = await tokenwise.stack.post({"input": texts, "task": task, "return_multivector": True, "dimensions": 32})
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert isinstance(data, list)
    assert [(row["object"], row["index"]) for row in data] == [("embeddings", index) for index in range(3)]
    exact = [await expected(tokenwise, task, text) for text in texts]
    for row, vectors in zip(data, exact, strict=True):
        np.testing.assert_allclose(
            np.array(row["embeddings"]), vectors, atol=2e-3
        )  # as two batches of the engine differ
    tokens = sum(map(len, exact))
    assert answer.json["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.asyncio(loop_scope="module")
async def test_the_states_are_those_that_the_pooled_vector_is_the_mean_of(tokenwise: Served) -> None:
    ids = await tokenwise.pooled.tokenize("Query: the lazy dog and the other dogs")
    (pooled,) = await tokenwise.pooled.embed([ids])
    np.testing.assert_allclose((await tokenwise.source.states(ids)).mean(axis=0), pooled, atol=2e-3)


@pytest.mark.asyncio(loop_scope="module")
async def test_every_encoding_is_of_the_same_vectors(tokenwise: Served) -> None:
    (row,) = await rows(tokenwise, input="a b", embedding_type=["float", "base64", "binary", "ubinary"])
    (plain,) = await rows(tokenwise, input="a b", embedding_type="base64")
    both = row["embeddings"]
    assert isinstance(both, dict)
    vectors = np.array(both["float"], dtype=np.float32)
    assert vectors.shape[1] == 128
    assert [np.frombuffer(base64.b64decode(one), "<f4").tolist() for one in both["base64"]] == vectors.tolist()
    assert both["ubinary"] == np.packbits(vectors > 0, axis=1).tolist()
    assert both["binary"] == (np.packbits(vectors > 0, axis=1).astype(int) - 128).tolist()
    assert isinstance(plain["embeddings"], list)
    assert len(plain["embeddings"]) == len(vectors)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_input_that_fails_by_itself_has_its_error_and_the_others_their_vectors(tokenwise: Served) -> None:
    long, body = "the " * 9000, {"on_error": "partial", "task": "code.query"}
    first, second, third = await rows(tokenwise, input=["a", long, "b"], **body)
    assert (first["object"], third["object"], third["index"]) == ("embeddings", "embeddings", 2)
    assert isinstance(second["error"], dict)
    assert second["error"]["code"] == "INPUT_TOKEN_LIMIT_EXCEEDED"
    np.testing.assert_allclose(np.array(third["embeddings"]), await expected(tokenwise, "code.query", "b"), atol=2e-3)


@pytest.mark.asyncio(loop_scope="module")
async def test_they_are_another_vector_space_have_no_raw_form_and_need_not_be_normalised(tokenwise: Served) -> None:
    body = {"input": "a", "return_multivector": True, "task": "code.query"}
    single, many = await tokenwise.stack.post({**body, "return_multivector": False}), await tokenwise.stack.post(body)
    other = await tokenwise.stack.post({**body, "task": "text-matching"})
    spaces = [answer.headers["X-Trillama-Vector-Space"] for answer in (single, many, other)]
    assert len(set(spaces)) == 3
    raw = await tokenwise.stack.post(body, Accept="application/octet-stream")
    assert (raw.status, "has no raw form" in str(raw.json["detail"])) == (422, True)
    (row,) = await rows(tokenwise, input="a", task="code.query", normalized=False)
    vectors = np.array(row["embeddings"])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (lengths > 2).all()
    np.testing.assert_allclose(vectors / lengths, await expected(tokenwise, "code.query", "a"), atol=2e-3)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_pages_example_runs(tokenwise: Served) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("http://127.0.0.1:8080", tokenwise.stack.url)
    run = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    printed, _ = await run.communicate()
    assert run.returncode == 0
    lines = re.findall(r"(?m)^(\d+\.\d\d) of (\d+)  (.+)$", printed.decode())
    query = await expected(tokenwise, "retrieval.query", "overheating lightsaber")
    scores = {}
    for _, tokens, text in lines:
        assert int(tokens) == len(query)
        document = await expected(tokenwise, "retrieval.passage", text)
        scores[text] = sum(max(float(token @ other) for other in document) for token in query)
    assert [float(score) for score, _, _ in lines] == pytest.approx(sorted(scores.values(), reverse=True), abs=0.05)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_token_level_backend_of_another_model_one_that_is_gone_and_one_that_pools_are_reported(
    tokenwise: Served,
) -> None:
    own = tokenwise.config["token_backends"]
    assert isinstance(own, dict)
    config = {
        **tokenwise.config,
        "backends": dict.fromkeys(BACKENDS, tokenwise.other),
        "token_backends": {
            **own,
            "retrieval": {**own["retrieval"], "url": "unix:///no.sock"},
            "code": {**own["code"], "url": tokenwise.pooled.url},
        },
    }
    async with proxy(config, unready=("retrieval-tokens", "code-tokens")) as url:
        served = Stack(url=url, models={}, engines={})
        async with asyncio.timeout(READY_TIMEOUT_S):
            while b"start it with --pooling none" not in (await served.get("/ready")).body:
                await asyncio.sleep(0.02)
        for task, status, said in (
            ("text-matching", 502, "has another model than its own backend"),
            ("retrieval", 503, "backend retrieval-tokens is"),
            ("code.query", 503, "start it with --pooling none"),
        ):
            answer = await served.post({"input": "the quick brown fox", "return_multivector": True, "task": task})
            assert (answer.status, said in str(answer.json["detail"])) == (status, True), answer.body


async def test_the_server_says_what_is_missing_and_reads_a_projector_that_came_later(tmp_path: Path) -> None:
    file = tmp_path / "projector.npz"
    nowhere = {"url": "unix:///nowhere.sock"}
    backends = dict.fromkeys(BACKENDS, nowhere)
    config = {"family": str(FAMILY_FILE), "backends": backends, "multivector_file": str(file)}
    async with proxy(config, wait=False) as url:
        served = Stack(url=url, models={}, engines={})
        body = {"input": "a", "return_multivector": True}
        missing = await served.post(body)
        projector.save_projector(random_projector(FAMILY), file)
        there = await served.post(body)
        document = (await served.get("/openapi.json")).json
    assert (missing.status, missing.json["code"]) == (422, "VALIDATION_ERROR")
    assert "return_multivector: needs the family's projector" in str(missing.json["detail"])
    assert "run `trillama models pull --multivector` on the server" in str(missing.json["detail"])
    assert (there.status, "token_backends.text-matching for a proxy" in str(there.json["detail"])) == (422, True)
    assert '"MultiVector": {"const": False}'.replace('"', "'") in str(document)
