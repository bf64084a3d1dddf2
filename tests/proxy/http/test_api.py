"""The wire contract of what is answered: inputs in every shape, token counts, forms and headers."""

import hashlib
import io
import re

import numpy as np
import pytest

from tests.support.engines.engine import LlamaServer
from tests.support.servers.stack import BACKENDS, BATCH_TOKENS, FAMILY_FILE, Answer, Stack, family_of, raw_answer

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


async def test_a_request_id_is_kept_if_it_is_safe_to_log(served: Stack) -> None:
    assert (await served.get("/health", **{"X-Request-ID": "mine-1"})).headers["X-Request-ID"] == "mine-1"
    made = (await served.get("/health", **{"X-Request-ID": "a b <script>"})).headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", made)


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


async def test_one_model_is_shown_by_its_name(served: Stack) -> None:
    found = await served.get("/v1/models/jina-embeddings-v4:code.query")
    missing = await served.get("/v1/models/gpt-4")
    assert (found.status, found.json["id"]) == (200, "jina-embeddings-v4:code.query")
    assert (missing.status, missing.json["code"]) == (404, "INPUT_MODEL_NOT_FOUND")
