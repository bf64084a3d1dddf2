"""The wire contract: requests, responses and errors."""

import asyncio
import hashlib
import io
import re

import numpy as np
import pytest

from tests.support.engine import LlamaServer
from tests.support.stack import (
    BACKENDS,
    BATCH_TOKENS,
    FAMILY_FILE,
    Answer,
    Stack,
    family_of,
    proxy,
    raw_answer,
    raw_status,
    unused_port,
)

ENGINE_KINDS = ("embedded",)  # these tests do not depend on the engine

FAMILY = family_of(FAMILY_FILE)


def rows(answer: Answer) -> list[dict[str, object]]:
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert isinstance(data, list)
    return data


async def prompt_tokens(served: Stack, **body: object) -> int:
    usage = (await served.post(body)).json["usage"]
    assert isinstance(usage, dict)
    assert usage["prompt_tokens"] == usage["total_tokens"]
    return int(usage["prompt_tokens"])


@pytest.mark.parametrize("more", [{}, {"task": "retrieval.query"}, {"truncate": True}])
async def test_tokens_can_be_counted_without_vectors(served: Stack, more: dict[str, object]) -> None:
    body = {"input": ["one text", "another text " * 20], **more}
    counted = await served.post(body, "/v1/embeddings/count_tokens")
    assert counted.json == {"input_tokens": await prompt_tokens(served, **body)}
    assert (await served.post({"input": []}, "/v1/embeddings/count_tokens")).status == 422


async def test_the_answer_has_the_contracts_shape(served: Stack) -> None:
    answer = await served.post({"model": "jina-embeddings-v4", "input": ["a", "b"], "dimensions": 3})
    body = answer.json
    assert (body["model"], body["object"]) == ("jina-embeddings-v4", "list")
    assert [(row["object"], row["index"]) for row in rows(answer)] == [("embedding", 0), ("embedding", 1)]
    assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
@pytest.mark.parametrize("field", ["input", "content", "texts"])
async def test_both_paths_take_input_by_all_its_names(served: Stack, path: str, field: str) -> None:
    assert len(rows(await served.post({field: ["a", {"text": "b"}, "c"]}, path))) == 3


@pytest.mark.parametrize("value", ["a", {"text": "a"}, ["a"], [{"text": "a"}]])
async def test_one_text_in_any_shape_is_the_same_text(served: Stack, value: object) -> None:
    plain = rows(await served.post({"input": "a"}))
    assert rows(await served.post({"input": value})) == plain


async def test_an_empty_text_is_embedded_because_its_prefix_is_not(served: Stack) -> None:
    assert len(rows(await served.post({"input": ["", "a"]}))) == 2


async def test_null_means_absent_and_unknown_fields_are_ignored(served: Stack) -> None:
    nulls = dict.fromkeys(("model", "task", "dimensions", "normalized", "truncate", "late_chunking", "embedding_type"))
    plain = rows(await served.post({"input": "a"}))
    assert rows(await served.post({"input": "a", "user": "u", "priority": 1, "drop_params": True, **nulls})) == plain


async def test_an_explicit_false_for_an_unsupported_option_passes(served: Stack) -> None:
    assert rows(await served.post({"input": "a", "late_chunking": False, "return_multivector": False}))


@pytest.mark.parametrize("name", ["dimensions", "output_dimension", "output_dimensionality"])
async def test_dimensions_go_by_several_names(served: Stack, name: str) -> None:
    (row,) = rows(await served.post({"input": "a", name: 17}))
    assert isinstance(row["embedding"], list)
    assert len(row["embedding"]) == 17


@pytest.mark.parametrize("name", ["embedding_type", "encoding_type", "encoding_format", "embedding_types"])
async def test_the_encoding_goes_by_several_names_and_one_in_a_list_is_unwrapped(served: Stack, name: str) -> None:
    (plain,) = rows(await served.post({"input": "a", name: "base64"}))
    (listed,) = rows(await served.post({"input": "a", name: ["base64"]}))
    assert isinstance(plain["embedding"], str)
    assert plain == listed


@pytest.mark.parametrize("task", FAMILY.tasks)
async def test_the_prefix_is_counted_and_the_backend_tokenises_the_same(served: Stack, task: str) -> None:
    row = FAMILY.tasks[task]
    engine: LlamaServer = served.engines[row.backend]
    expected = len(await engine.tokenize(row.prefix + "some <|im_end|> text"))
    assert await prompt_tokens(served, input="some <|im_end|> text", task=task) == expected


async def test_exactly_the_served_length_passes_and_one_more_is_named_by_index_and_count(served: Stack) -> None:
    prefix = len(await served.engines["code"].tokenize("Query: "))
    fits, over = "\n!" * BATCH_TOKENS, ""
    while len(await served.engines["code"].tokenize("Query: " + fits)) > BATCH_TOKENS:
        over, fits = fits, fits[:-1]
    assert prefix < BATCH_TOKENS
    assert await prompt_tokens(served, input=fits, task="code.query") == BATCH_TOKENS
    answer = await served.post({"input": ["ok", over], "task": "code.query"})
    assert (answer.status, answer.json["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    assert f"input 1 has {BATCH_TOKENS + 1} tokens" in str(answer.json["detail"])


async def test_truncate_counts_what_the_model_processed(served: Stack) -> None:
    assert await prompt_tokens(served, input=["x " * 9000, "y"], truncate=True) < 2 * BATCH_TOKENS
    assert await prompt_tokens(served, input="x " * 9000, truncate=True) == BATCH_TOKENS


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


async def test_2048_texts_are_answered_in_order(served: Stack) -> None:
    texts = [f"text {number % 300}" for number in range(2048)]  # repeated texts are computed once
    answer = await served.post({"input": texts, "dimensions": 8, "task": "code.passage"})
    data = rows(answer)
    assert [row["index"] for row in data] == list(range(2048))
    for index in (0, 1, 1000, 2047):
        (alone,) = rows(await served.post({"input": texts[index], "dimensions": 8, "task": "code.passage"}))
        assert data[index]["embedding"] == pytest.approx(alone["embedding"], abs=1e-3)


async def test_models_lists_the_family_and_a_name_per_task(served: Stack) -> None:
    listed = rows(await served.get("/v1/models"))
    assert [one["id"] for one in listed] == [FAMILY.name, *(f"{FAMILY.name}:{task}" for task in FAMILY.tasks)]
    assert listed[0]["context_length"] == BATCH_TOKENS
    assert {"object", "created", "owned_by", "hugging_face_id"} <= listed[0].keys()


async def test_health_and_ready_and_metrics(served: Stack) -> None:
    assert (await served.get("/health")).status == 200
    ready = await served.get("/ready")
    assert (ready.status, ready.json["backends"]) == (200, dict.fromkeys(BACKENDS, "ready"))
    await served.post({"input": "a"})
    assert b'trillama_requests_total{route="/v1/embeddings",status="200"}' in (await served.get("/metrics")).body


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


async def test_a_request_id_is_kept_if_it_is_safe_to_log(served: Stack) -> None:
    assert (await served.get("/health", **{"X-Request-ID": "mine-1"})).headers["X-Request-ID"] == "mine-1"
    made = (await served.get("/health", **{"X-Request-ID": "a b <script>"})).headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", made)


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


async def test_raw_floats_are_the_same_matrix(served: Stack) -> None:
    body = {"input": ["a", "b", "c"], "dimensions": 7, "task": "code.query"}
    expected = [row["embedding"] for row in rows(await served.post(body))]
    raw = await served.post(body, Accept="application/octet-stream")
    npy = await served.post(body, Accept="text/html, application/x-npy;q=0.9")
    assert (raw.headers["X-Embedding-Shape"], raw.headers["Content-Type"]) == ("3,7", "application/octet-stream")
    assert int(raw.headers["X-Usage-Tokens"]) > 0
    matrix = np.frombuffer(raw.body, dtype="<f4").reshape(3, 7)
    np.testing.assert_allclose(matrix, np.load(io.BytesIO(npy.body)), atol=1e-4)
    np.testing.assert_allclose(matrix, np.array(expected, dtype=np.float32), atol=1e-4)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (["application/octet-stream;q=0, application/json"], "application/json"),
        (["application/octet-stream;q=0.5, */*"], "application/json"),
        (["application/json;q=0.5", "application/octet-stream"], "application/octet-stream"),
        (["application/octet-stream;q=\xff,image/png"], "application/json"),
    ],
)
async def test_accept_is_read_by_weight_and_order_and_is_never_an_error(
    served: Stack, accept: list[str], kind: str
) -> None:
    headers = b"".join(b"Accept: %b\r\n" % one.encode("latin-1") for one in accept)
    answer = await raw_answer(served.url, headers, b'{"input": "a", "dimensions": 2}')
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\nContent-Type: %b" % kind.encode() in answer


@pytest.mark.parametrize("given", [b"\xff\xfe", "é".encode(), b"9" * 400, b"1e-1 s"])
async def test_an_invalid_deadline_is_a_422_that_names_it(served: Stack, given: bytes) -> None:
    answer = await raw_answer(served.url, b"X-Request-Timeout: %b\r\n" % given, b'{"input": "a"}')
    assert answer.startswith(b"HTTP/1.1 422")
    assert b'"param":"X-Request-Timeout"' in answer


async def test_an_empty_deadline_is_none(served: Stack) -> None:
    assert await raw_status(served.url, b"X-Request-Timeout: \r\n", b'{"input": "a"}') == 200


async def test_the_headers_say_what_served_a_request(served: Stack) -> None:
    query = await served.post({"input": "a", "task": "retrieval.query", "dimensions": 4})
    passage = await served.post({"input": "a", "task": "retrieval.passage"})
    code = await served.post({"input": "a", "task": "code.query"})
    v3 = await served.post({"input": "a", "task": "separation", "dimensions": 768, "normalized": True})
    assert query.headers["X-Trillama-Prefix"] == '"Query: "'
    assert passage.headers["X-Trillama-Prefix"] == '"Passage: "'
    assert (v3.headers["X-Trillama-Model"], v3.headers["X-Trillama-Task"]) == ("jina-embeddings-v4", "text-matching")
    digest = hashlib.sha256(served.models["retrieval"].read_bytes()).hexdigest()
    assert query.headers["X-Trillama-Model-Digest"] == f"sha256:{digest}"
    assert query.headers["X-Trillama-Quantization"] == "F16"
    assert query.headers["X-Trillama-Engine"].partition(" ")[0] == "llama.cpp"
    spaces = [answer.headers["X-Trillama-Vector-Space"] for answer in (query, passage, code)]
    assert spaces[0] == spaces[1] != spaces[2]
    listed = {one["id"]: one for one in rows(await served.get("/v1/models"))}
    provenance = listed["jina-embeddings-v4:code.query"]["provenance"]
    assert isinstance(provenance, dict)
    assert provenance["space"] == spaces[2]


async def test_a_body_that_is_not_encoded_as_it_says_is_a_400(served: Stack) -> None:
    assert await raw_status(served.url, b"Content-Encoding: gzip\r\n", b'{"input": "a"}') == 400


async def test_one_model_is_shown_by_its_name(served: Stack) -> None:
    found = await served.get("/v1/models/jina-embeddings-v4:code.query")
    missing = await served.get("/v1/models/gpt-4")
    assert (found.status, found.json["id"]) == (200, "jina-embeddings-v4:code.query")
    assert (missing.status, missing.json["code"]) == (404, "INPUT_MODEL_NOT_FOUND")


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
