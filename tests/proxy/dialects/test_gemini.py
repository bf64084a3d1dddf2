"""Gemini's dialect."""

import pytest

from tests.support.requests.dialects import expected, same
from tests.support.servers.stack import BATCH_TOKENS, Stack

ENGINE_KINDS = ("embedded",)  # these tests do not depend on the engine

MODEL = "/v1beta/models/jina-embeddings-v4"
ONE, BATCH = f"{MODEL}:embedContent", f"{MODEL}:batchEmbedContents"


def content(*texts: str) -> dict[str, object]:
    return {"role": "user", "parts": [{"text": text} for text in texts]}


def batch(*texts: str, **settings: object) -> dict[str, list[dict[str, object]]]:
    model = "models/jina-embeddings-v4"
    return {"requests": [{"model": model, "content": content(text), **settings} for text in texts]}


def values(answer: object) -> object:
    """The vectors of either response."""
    assert isinstance(answer, dict)
    assert isinstance(answer["usageMetadata"]["promptTokenCount"], int)
    return [one["values"] for one in answer.get("embeddings", [answer.get("embedding")])]


@pytest.mark.parametrize("version", ["v1beta", "v1"])
async def test_one_content_has_one_vector(served: Stack, version: str) -> None:
    body = {"content": content("hello ", "world"), "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 64}
    got = (await served.post(body, ONE.replace("v1beta", version))).json
    assert got.keys() == {"embedding", "usageMetadata"}
    assert same(values(got), await expected(served, "hello world", task="retrieval.query", dimensions=64))


@pytest.mark.parametrize("version", ["v1beta", "v1"])
async def test_a_batch_has_a_vector_for_each_in_order(served: Stack, version: str) -> None:
    body = batch("a", "b", "c", taskType="RETRIEVAL_DOCUMENT", unknown=1, outputDimensionality=None)
    got = (await served.post(body, BATCH.replace("v1beta", version))).json
    assert got.keys() == {"embeddings", "usageMetadata"}
    assert same(values(got), await expected(served, "a", "b", "c", task="retrieval.passage"))
    plain = (await served.post({"input": ["a", "b", "c"], "task": "retrieval.passage"})).json["usage"]
    assert isinstance(plain, dict)
    assert got["usageMetadata"] == {"promptTokenCount": plain["prompt_tokens"]}


@pytest.mark.parametrize(
    "settings",
    [
        {"task_type": "CODE_RETRIEVAL_QUERY", "output_dimensionality": 32},
        {"embedContentConfig": {"taskType": "CODE_RETRIEVAL_QUERY", "outputDimensionality": 32}},
        {"embed_content_config": {"task_type": "CLUSTERING", "output_dimensionality": 32}, "taskType": "code.query"},
    ],
)
async def test_settings_are_read_wherever_google_reads_them(served: Stack, settings: dict[str, object]) -> None:
    got = (await served.post({"content": content("a"), **settings}, ONE)).json
    assert same(values(got), await expected(served, "a", task="code.query", dimensions=32))


async def test_no_task_is_the_default_and_the_models_name_can_have_one(served: Stack) -> None:
    got = await served.post({"content": content("a"), "taskType": "TASK_TYPE_UNSPECIFIED"}, ONE)
    named = await served.post(batch("a"), "/v1/models/jina-embeddings-v4:code.passage:batchEmbedContents")
    assert (got.headers["X-Trillama-Task"], named.headers["X-Trillama-Task"]) == ("text-matching", "code.passage")
    assert same(values(named.json), await expected(served, "a", task="code.passage"))


async def test_a_title_is_the_first_line_of_its_document(served: Stack) -> None:
    body = batch("a", "b", taskType="RETRIEVAL_DOCUMENT")
    body["requests"][1]["title"] = "On letters"
    got = (await served.post(body, BATCH)).json
    assert same(values(got), await expected(served, "a", "On letters\nb", task="retrieval.passage"))


async def test_a_long_text_is_truncated_by_default(served: Stack) -> None:
    cut = await served.post({"content": content("x " * 9000)}, ONE)
    assert cut.json["usageMetadata"] == {"promptTokenCount": BATCH_TOKENS}
    refused = await served.post({"content": content("x " * 9000), "autoTruncate": False}, ONE)
    assert (refused.status, "input 0 has" in str(refused.json["error"])) == (400, True)


@pytest.mark.parametrize(
    ("path", "body", "code", "status", "said"),
    [
        (ONE, b"{", 400, "INVALID_ARGUMENT", "not JSON"),
        (ONE, {}, 400, "INVALID_ARGUMENT", "content"),
        (ONE, {"content": "a"}, 400, "INVALID_ARGUMENT", "parts"),
        (ONE, {"content": {"parts": []}}, 400, "INVALID_ARGUMENT", "parts"),
        (ONE, {"content": {"parts": [{"text": "a"}, {"inlineData": {}}]}}, 400, "INVALID_ARGUMENT", "text-only"),
        (ONE, {"content": content("a"), "title": "t"}, 400, "INVALID_ARGUMENT", "title: is for the taskType"),
        (ONE, {"content": content("a"), "outputDimensionality": 0}, 400, "INVALID_ARGUMENT", "1 to 2048"),
        (ONE, {"content": content("a"), "taskType": "POETRY"}, 400, "INVALID_ARGUMENT", "unknown task 'POETRY'"),
        (BATCH, {"requests": []}, 400, "INVALID_ARGUMENT", "requests"),
        (BATCH, {"requests": [{"content": content("a")}, {}]}, 400, "INVALID_ARGUMENT", "requests.1.content"),
        (BATCH, batch("a", title="t"), 400, "INVALID_ARGUMENT", "requests.0.title: is for the taskType"),
        (
            BATCH,
            {"requests": [*batch("a")["requests"], *batch("b", outputDimensionality=8)["requests"]]},
            400,
            "INVALID_ARGUMENT",
            "requests.1: must have",
        ),
        ("/v1beta/models/gemini-embedding-001:embedContent", {"content": content("a")}, 404, "NOT_FOUND", "served are"),
        (f"{MODEL}:generateContent", {}, 404, "NOT_FOUND", "there is no"),
    ],
)
async def test_errors_are_in_googles_format(
    served: Stack, path: str, body: object, code: int, status: str, said: str
) -> None:
    answer = await served.post(body, path)
    error = answer.json["error"]
    assert isinstance(error, dict)
    assert (answer.status, error["code"], error["status"]) == (code, code, status)
    assert said in error["message"]
