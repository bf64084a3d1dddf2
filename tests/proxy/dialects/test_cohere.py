"""Cohere's dialect."""

import base64

import numpy as np
import pytest

from tests.support.requests.dialects import expected, same
from tests.support.servers.stack import BATCH_TOKENS, Stack

ENGINE_KINDS = ("embedded",)  # these tests do not depend on the engine

TYPES = ["float", "base64", "binary", "ubinary"]


def contents(*texts: str) -> list[object]:
    return [{"content": [{"type": "text", "text": text}]} for text in texts]


async def test_v2_answers_several_types_at_once_that_agree(served: Stack) -> None:
    body = {"texts": ["a", "b"], "input_type": "search_document", "embedding_types": TYPES, "output_dimension": 64}
    got = (await served.post(body, "/v2/embed")).json
    columns = got["embeddings"]
    assert isinstance(columns, dict)
    assert list(columns) == TYPES
    floats = np.array(columns["float"], dtype=np.float32)
    assert same(floats, await expected(served, "a", "b", task="retrieval.passage", dimensions=64))
    assert [np.frombuffer(base64.b64decode(row), "<f4").tolist() for row in columns["base64"]] == floats.tolist()
    bits = np.packbits(floats > 0, axis=1)
    assert columns["ubinary"] == bits.tolist()
    assert columns["binary"] == (bits.astype(int) - 128).tolist()


async def test_v2_has_coheres_shape_and_floats_by_default(served: Stack) -> None:
    nulls = dict.fromkeys(("embedding_types", "output_dimension", "truncate", "max_tokens", "images", "inputs"))
    got = (await served.post({"texts": ["a"], "priority": 3, **nulls}, "/v2/embed")).json
    usage = (await served.post({"input": "a"})).json["usage"]
    assert isinstance(usage, dict)
    assert got["meta"] == {"api_version": {"version": "2"}, "billed_units": {"input_tokens": usage["total_tokens"]}}
    assert (got["response_type"], got["texts"]) == ("embeddings_by_type", ["a"])
    assert isinstance(got["embeddings"], dict)
    assert same(got["embeddings"]["float"], await expected(served, "a"))


@pytest.mark.parametrize(
    ("input_type", "task"),
    [
        ("search_query", "retrieval.query"),
        ("search_document", "retrieval.passage"),
        ("classification", "text-matching"),
        ("clustering", "text-matching"),
    ],
)
async def test_the_input_type_is_the_task(served: Stack, input_type: str, task: str) -> None:
    inputs = [*contents("a"), {"content": [{"type": "text", "text": ""}, {"type": "text", "text": "b"}]}]
    body = {"model": "jina-embeddings-v4", "inputs": inputs, "input_type": input_type}
    answer = await served.post(body, "/v2/embed")
    assert answer.headers["X-Trillama-Task"] == task
    columns = answer.json["embeddings"]
    assert isinstance(columns, dict)
    assert same(columns["float"], await expected(served, "a", "b", task=task))


async def test_v1_returns_bare_vectors_without_embedding_types(served: Stack) -> None:
    vectors = await expected(served, "a", task="retrieval.query")
    bare = (await served.post({"texts": ["a"], "input_type": "search_query"}, "/v1/embed")).json
    typed = {"texts": ["a"], "input_type": "search_query", "embedding_types": ["float"]}
    by_type = (await served.post(typed, "/v1/embed")).json
    assert (bare["response_type"], by_type["response_type"]) == ("embeddings_floats", "embeddings_by_type")
    assert same(bare["embeddings"], vectors)
    assert isinstance(by_type["embeddings"], dict)
    assert same(by_type["embeddings"]["float"], vectors)


async def test_a_long_text_is_truncated_by_default(served: Stack) -> None:
    long = "x " * 9000
    for truncate in (None, "END"):
        got = (await served.post({"texts": [long], "truncate": truncate}, "/v2/embed")).json
        assert isinstance(got["meta"], dict)
        assert got["meta"]["billed_units"] == {"input_tokens": BATCH_TOKENS}
    refused = await served.post({"texts": [long], "truncate": "NONE"}, "/v2/embed")
    assert (refused.status, "input 0 has" in str(refused.json["message"])) == (400, True)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"texts": ["a"], "embedding_types": ["int8"]}, 422, "embedding_types: must be 'float'"),
        ({"texts": ["a"], "truncate": "START"}, 422, "START is not supported"),
        ({"texts": ["a"], "max_tokens": 10}, 422, "max_tokens: is not supported"),
        ({"images": ["data:image/png;base64,"]}, 422, "input.0: is an image"),
        ({"inputs": [{"content": [{"type": "image_url", "image_url": {}}]}]}, 422, "input.0: has an image"),
        ({"inputs": [*contents("a"), {"content": []}]}, 422, "input.1"),
        ({"texts": ["a"], "input_type": "picture"}, 422, "unknown task 'picture'"),
        ({"texts": ["a"], "model": "embed-v4.0"}, 400, "jina-embeddings-v4"),
        ({"texts": []}, 422, "at least one"),
        ({}, 422, "required"),
        (b"", 400, "not JSON"),
    ],
)
async def test_errors_have_a_message(served: Stack, body: object, status: int, message: str) -> None:
    answer = await served.post(body, "/v2/embed")
    assert (answer.status, set(answer.json)) == (status, {"id", "message"})
    assert message in str(answer.json["message"])
    assert answer.json["id"] == answer.headers["X-Request-ID"]
