"""The dialect of text-embeddings-inference."""

import numpy as np
import orjson
import pytest

from tests.support.requests.dialects import expected, same
from tests.support.servers.stack import BATCH_TOKENS, Stack

ENGINE_KINDS = ("embedded",)  # these tests do not depend on the engine


@pytest.mark.parametrize("path", ["/embed", "/"])
async def test_embed_answers_a_bare_list_of_vectors(served: Stack, path: str) -> None:
    nulls = dict.fromkeys(("prompt_name", "truncate", "normalize", "dimensions", "truncation_direction"))
    answer = await served.post({"inputs": ["a", "b"], "unknown": 1, **nulls}, path)
    assert same(orjson.loads(answer.body), await expected(served, "a", "b"))


async def test_one_text_is_a_list_of_one_vector(served: Stack) -> None:
    answer = await served.post({"inputs": "a", "dimensions": 16}, "/embed")
    assert same(orjson.loads(answer.body), await expected(served, "a", dimensions=16))


async def test_the_prompts_name_is_a_task(served: Stack) -> None:
    query = await served.post({"inputs": "a", "prompt_name": "query"}, "/embed")
    passage = await served.post({"inputs": "a", "prompt_name": "document"}, "/embed")
    assert same(orjson.loads(query.body), await expected(served, "a", task="retrieval.query"))
    assert same(orjson.loads(passage.body), await expected(served, "a", task="retrieval.passage"))
    assert query.headers["X-Trillama-Task"] == "retrieval.query"


async def test_normalize_false_is_the_raw_vector(served: Stack) -> None:
    answer = await served.post({"inputs": "a", "normalize": False}, "/embed")
    raw = await expected(served, "a", normalized=False)
    assert abs(float(np.linalg.norm(raw)) - 1) > 0.1
    np.testing.assert_allclose(orjson.loads(answer.body), raw, rtol=1e-2, atol=1e-2)


async def test_truncate_cuts_the_end(served: Stack) -> None:
    long = "x " * 9000
    answer = await served.post({"inputs": long, "truncate": True, "truncation_direction": "Right"}, "/embed")
    assert same(orjson.loads(answer.body), await expected(served, long, truncate=True))


@pytest.mark.parametrize(
    ("body", "status", "kind", "error"),
    [
        ({"inputs": "x " * 9000}, 413, "Validation", "input 0 has"),
        ({"inputs": "a", "truncate": True, "truncation_direction": "Left"}, 422, "Validation", "left is not supported"),
        ({"inputs": "a", "prompt_name": "poem"}, 422, "Validation", "unknown task 'poem'"),
        ({"inputs": []}, 422, "Validation", "at least one"),
        ({"inputs": None}, 422, "Validation", "required"),
        (b"[", 400, "Validation", "not JSON"),
    ],
)
async def test_errors_have_a_text_and_a_type(served: Stack, body: object, status: int, kind: str, error: str) -> None:
    answer = await served.post(body, "/embed")
    assert (answer.status, answer.json["error_type"]) == (status, kind)
    assert error in str(answer.json["error"])


async def test_info_names_the_model_and_its_limits(served: Stack) -> None:
    info = (await served.get("/info")).json
    assert info["model_id"] == "jinaai/jina-embeddings-v4"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["max_client_batch_size"]) == (BATCH_TOKENS, 2048)
