"""The wire contract of what is refused: one error body for every fault, keys, limits and bad headers."""

import asyncio
import re

import pytest

from tests.support.servers.stack import (
    BACKENDS,
    BATCH_TOKENS,
    FAMILY_FILE,
    Stack,
    proxy,
    raw_answer,
    raw_status,
    unused_port,
)

ENGINE_KINDS = ("embedded",)  # these tests do not depend on the engine


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "message"),
    [
        (b"{", 400, "INVALID_JSON", None, "not JSON"),
        (b"\xff\xfe", 400, "INVALID_JSON", None, "not JSON"),
        (b'{"input":' + b"[" * 1000 + b"]" * 1000 + b"}", 422, "VALIDATION_ERROR", "input", "input.0"),
        ([1], 422, "VALIDATION_ERROR", "body", "must be a JSON object"),
        ({}, 422, "VALIDATION_ERROR", "input", "required"),
        ({"input": []}, 422, "VALIDATION_ERROR", "input", "at least one"),
        ({"input": 5}, 422, "VALIDATION_ERROR", "input", "must be a string"),
        ({"input": ["a", None]}, 422, "VALIDATION_ERROR", "input", "input.1"),
        ({"input": ["a", True]}, 422, "VALIDATION_ERROR", "input", "input.1"),
        ({"input": ["a", {"text": 5}]}, 422, "VALIDATION_ERROR", "input", "input.1"),
        ({"input": ["a", {"image": "https://x/y.png"}]}, 422, "VALIDATION_ERROR", "input", "input.1: is an image"),
        ({"input": "a", "dimensions": 0}, 422, "VALIDATION_ERROR", "dimensions", "1 to 2048"),
        ({"input": "a", "dimensions": 2049}, 422, "VALIDATION_ERROR", "dimensions", "1 to 2048"),
        (
            {"input": ["a", {"text": "b", "image": "https://x/y.png"}]},
            422,
            "VALIDATION_ERROR",
            "input",
            "1: has both a text and an image",
        ),
        ({"input": "a", "dimensions": "many"}, 422, "VALIDATION_ERROR", "dimensions", "integer, not 'many'"),
        ({"input": "a", "dimensions": True}, 422, "VALIDATION_ERROR", "dimensions", "boolean"),
        ({"input": "a", "embedding_type": "int4"}, 422, "VALIDATION_ERROR", "embedding_type", "'ubinary'"),
        ({"input": "a", "embedding_type": []}, 422, "VALIDATION_ERROR", "embedding_type", "at least 1"),
        ({"input": "a", "embedding_type": ["float"] * 5}, 422, "VALIDATION_ERROR", "embedding_type", "there are 4"),
        ({"input": "a", "encoding_format": "flot"}, 422, "VALIDATION_ERROR", "encoding_format", "mean 'float'?"),
        ({"input": "a", "truncate": "maybe"}, 422, "VALIDATION_ERROR", "truncate", "true or false, not 'maybe'"),
        ({"input": "a", "task": 5}, 422, "VALIDATION_ERROR", "task", "must be a string, not 5"),
        ({"input": "a", "on_error": "stop"}, 422, "VALIDATION_ERROR", "on_error", "must be 'fail' or 'partial', not"),
        ({"input": "a", "task": "retrieval.qury"}, 422, "VALIDATION_ERROR", "task", "mean 'retrieval.query'?"),
        ({"input": "a", "model": "x" * 10**6}, 400, "INPUT_MODEL_NOT_FOUND", "model", "jina-embeddings-v4"),
        ({"input": "a", "task": "x" * 10**6}, 422, "VALIDATION_ERROR", "task", "retrieval.query"),
        ({"input": "a", "task": "poetry"}, 422, "VALIDATION_ERROR", "task", "retrieval.query"),
        ({"input": "a", "model": "gpt-4"}, 400, "INPUT_MODEL_NOT_FOUND", "model", "jina-embeddings-v4"),
        (
            {"input": "a", "return_multivector": True},
            422,
            "VALIDATION_ERROR",
            "return_multivector",
            "models pull --mul",
        ),
        ({"input": ["a"] * 2049}, 422, "VALIDATION_ERROR", "input", "at most 2048"),
    ],
)
async def test_bad_input_gets_one_body_that_names_the_field(
    served: Stack, body: object, status: int, code: str, param: str | None, message: str
) -> None:
    answer = await served.post(body)
    got = answer.json
    assert (answer.status, got["code"]) == (status, code)
    assert isinstance(got["detail"], str)
    assert message in got["detail"]
    error = got["error"]
    assert isinstance(error, dict)
    assert (error["message"], error["param"], error["code"]) == (got["detail"], param, code)
    assert error["type"] == "invalid_request_error"
    assert got["request_id"] == answer.headers["X-Request-ID"]
    assert ("errors" in got) == (status == 422)
    assert len(answer.body) < 4000
    assert not re.search("Input should|Value error|[Tt]uple|validation", got["detail"])


async def test_an_unknown_path_gets_our_error_body(served: Stack) -> None:
    missing, wrong = await served.get("/nothing"), await served.get("/v1/embeddings")
    assert (missing.status, missing.json["code"]) == (404, "NOT_FOUND")
    assert (wrong.status, wrong.json["code"]) == (405, "METHOD_NOT_ALLOWED")
    for path, keys in (
        ("/v1beta/openai/embeddings", wrong.json.keys()),  # below Gemini's /v1beta/
        ("/v1beta/models/any:embedContent", {"error"}),
        ("/v2/any/runsync", {"id", "status", "error"}),
    ):
        answer = await served.get(path)
        assert (answer.status, answer.json.keys()) == (405, keys)


KEYS: list[tuple[dict[str, str], str | None]] = [
    ({}, "AUTH_MISSING_API_KEY"),
    ({"Authorization": "Basic eA=="}, "AUTH_INVALID_FORMAT"),
    ({"Authorization": "Bearer "}, "AUTH_INVALID_FORMAT"),
    ({"Authorization": "Bearer wrong"}, "AUTH_INVALID_API_KEY"),
    ({"X-API-Key": "wröng"}, "AUTH_INVALID_API_KEY"),
    ({"Authorization": "Bearer right"}, None),
    ({"X-API-Key": "right"}, None),
    ({"api-key": "also right"}, None),
    ({"x-goog-api-key": "right"}, None),
]


async def test_keys_are_required_when_configured(served: Stack) -> None:
    backends = {name: {"url": one.url, "batch_tokens": BATCH_TOKENS} for name, one in served.engines.items()}
    config = {"family": str(FAMILY_FILE), "backends": backends, "api_keys": ["right", "also right"]}
    async with proxy(config) as url:
        locked = Stack(url=url, models=served.models, engines=served.engines)
        assert (await locked.get("/health")).status == 200
        assert (await locked.get("/")).status == 200
        assert (await locked.post({"inputs": "a"}, "/")).status == 401
        assert await raw_status(url, b"Authorization: Bearer \xff\xfe\r\n") == 401
        for query, status in {"?key=right": 200, "?key=wrong": 401, "?key=": 401, "?key=%FF": 401}.items():
            assert (await locked.post({"input": "a", "dimensions": 2}, f"/v1/embeddings{query}")).status == status
        for headers, code in KEYS:
            answer = await locked.post({"input": "a", "dimensions": 2}, **headers)
            assert (answer.status, answer.json.get("code")) == (401 if code else 200, code), headers


async def test_a_body_over_the_limit_is_413_and_the_backend_is_not_needed_for_it(served: Stack) -> None:
    nowhere = {"url": f"http://127.0.0.1:{unused_port()}"}
    config = {"family": str(FAMILY_FILE), "backends": dict.fromkeys(BACKENDS, nowhere), "max_body_bytes": 1000}
    async with proxy(config, wait=False) as url:
        down = Stack(url=url, models={}, engines={})
        large, small, ready = await asyncio.gather(
            down.post({"input": "x" * 2000}), down.post({"input": "x"}), down.get("/ready")
        )
    assert (large.status, large.json["code"]) == (413, "BODY_TOO_LARGE")
    assert (small.status, small.json["code"]) == (503, "BACKEND_UNAVAILABLE")
    assert int(small.headers["Retry-After"]) > 0
    assert ready.status == 503


@pytest.mark.parametrize("given", [b"\xff\xfe", "é".encode(), b"9" * 400, b"1e-1 s"])
async def test_an_invalid_deadline_is_a_422_that_names_it(served: Stack, given: bytes) -> None:
    answer = await raw_answer(served.url, b"X-Request-Timeout: %b\r\n" % given, b'{"input": "a"}')
    assert answer.startswith(b"HTTP/1.1 422")
    assert b'"param":"X-Request-Timeout"' in answer


async def test_an_empty_deadline_is_none(served: Stack) -> None:
    assert await raw_status(served.url, b"X-Request-Timeout: \r\n", b'{"input": "a"}') == 200


async def test_a_body_that_is_not_encoded_as_it_says_is_a_400(served: Stack) -> None:
    assert await raw_status(served.url, b"Content-Encoding: gzip\r\n", b'{"input": "a"}') == 400


async def test_a_huge_text_is_refused_or_cut_without_reading_it_all(served: Stack) -> None:
    text = "far too long " * 2_000_000
    refused = await served.post({"input": ["a", text]})
    assert (refused.status, refused.json["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    assert "input 1 has more than" in str(refused.json["detail"])
    cut = await served.post({"input": text, "truncate": True, "dimensions": 2})
    assert cut.json["usage"] == {"prompt_tokens": BATCH_TOKENS, "total_tokens": BATCH_TOKENS}


@pytest.mark.parametrize(("lane", "status"), [(b"bulk", 200), (b"", 200), (b"interactive", 422)])
async def test_a_request_may_say_that_it_is_in_no_hurry(served: Stack, lane: bytes, status: int) -> None:
    assert await raw_status(served.url, b"X-Trillama-Lane: %b\r\n" % lane, b'{"input": "a"}') == status
