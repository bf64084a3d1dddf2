"""Ollama's dialect."""

import re
from datetime import UTC, datetime

import orjson
import pytest

from tests.support.requests.dialects import expected, same
from tests.support.servers.stack import BATCH_TOKENS, Stack

ENGINE_KINDS = ("embedded",)  # these tests do not depend on the engine

DETAILS = {"parent_model", "format", "family", "families", "parameter_size", "quantization_level"}


@pytest.mark.parametrize("model", ["jina-embeddings-v4", "jina-embeddings-v4:latest", None])
async def test_embed_answers_in_ollamas_shape_with_the_models_vectors(served: Stack, model: str | None) -> None:
    body = {"model": model, "input": ["a", "b"], "options": {"num_ctx": 99}, "keep_alive": "5m", "dimensions": 8}
    got = (await served.post(body, "/api/embed")).json
    assert same(got["embeddings"], await expected(served, "a", "b", dimensions=8))
    assert got["model"] == (model or "jina-embeddings-v4")
    assert isinstance(got["total_duration"], int)
    assert got["total_duration"] > 1000
    assert got["load_duration"] == 0
    usage = (await served.post({"input": ["a", "b"]})).json["usage"]
    assert usage == {"prompt_tokens": got["prompt_eval_count"], "total_tokens": got["prompt_eval_count"]}


async def test_one_text_is_a_list_of_one_vector(served: Stack) -> None:
    got = (await served.post({"model": "jina-embeddings-v4", "input": "a"}, "/api/embed")).json
    assert same(got["embeddings"], await expected(served, "a"))


async def test_a_tag_names_the_task(served: Stack) -> None:
    got = await served.post({"model": "jina-embeddings-v4:code.query", "input": "a"}, "/api/embed")
    assert same(got.json["embeddings"], await expected(served, "a", task="code.query"))
    assert got.headers["X-Trillama-Task"] == "code.query"


async def test_the_older_route_returns_one_bare_vector(served: Stack) -> None:
    got = (await served.post({"model": "jina-embeddings-v4:latest", "prompt": "a"}, "/api/embeddings")).json
    assert got.keys() == {"embedding"}
    assert same([got["embedding"]], await expected(served, "a"))


async def test_a_long_text_is_truncated_by_default(served: Stack) -> None:
    cut = await served.post({"input": "x " * 9000}, "/api/embed")
    assert cut.json["prompt_eval_count"] == BATCH_TOKENS
    refused = await served.post({"input": "x " * 9000, "truncate": False}, "/api/embed")
    assert refused.status == 400
    assert "input 0 has" in str(refused.json["error"])


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/api/embed", {"model": "llama3", "input": "a"}, 404, 'model "llama3" not found, try pulling it first'),
        ("/api/embeddings", {"model": "m:v", "prompt": "a"}, 404, 'model "m:v" not found, try pulling it first'),
        ("/api/embed", b"{", 400, "not JSON"),
        ("/api/embed", {"model": None}, 422, "input: is required"),
        ("/api/embed", {"input": []}, 422, "at least one"),
        ("/api/embed", {"input": [{"image": "x"}]}, 422, "image"),
        ("/api/embed", {"input": "a", "dimensions": 0}, 422, "1 to 2048"),
        ("/api/embeddings", {"prompt": ["a", "b"]}, 422, "one text"),
        ("/api/embed", {"input": [[10**9]]}, 422, "not in the vocabulary"),
    ],
)
async def test_errors_are_one_string(served: Stack, path: str, body: object, status: int, error: str) -> None:
    answer = await served.post(body, path)
    got = answer.json
    assert (answer.status, set(got)) == (status, {"error"})
    assert error in str(got["error"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/embed", 405), ("POST", "/api/tags", 405), ("POST", "/api/nothing", 404), ("GET", "/api/", 404)],
)
async def test_errors_of_other_methods_and_paths_are_one_string_too(
    served: Stack, method: str, path: str, status: int
) -> None:
    answer = await served.request(method, path, None, {})
    assert answer.status == status
    assert isinstance(answer.json["error"], str)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_says_that_it_is_running(served: Stack, method: str) -> None:
    """AnythingLLM gives up unless it is 2xx; others look for Ollama's words."""
    answer = await served.request(method, "/", None, {})
    assert (answer.status, answer.body) == (200, b"Ollama is running" if method == "GET" else b"")


async def test_the_models_are_listed_with_a_tag_each(served: Stack) -> None:
    models = (await served.get("/api/tags")).json["models"]
    assert isinstance(models, list)
    assert [one["name"] for one in models][:2] == ["jina-embeddings-v4:latest", "jina-embeddings-v4:retrieval.query"]
    for one in models:
        assert (await served.post({"model": one["model"], "input": "a"}, "/api/embed")).status == 200
        assert len(one["digest"]) == 64
        assert one["size"] > 10**6
        assert datetime.fromisoformat(one["modified_at"]) <= datetime.now(UTC)
        assert one["details"].keys() == DETAILS
        assert re.fullmatch(r"[\d.]+M", one["details"]["parameter_size"])
    version = (await served.get("/api/version")).json["version"]
    assert isinstance(version, str)


async def test_loaded_models_are_listed_with_their_expiry(served: Stack) -> None:
    loaded, listed = [(await served.get(path)).json["models"] for path in ("/api/ps", "/api/tags")]
    assert isinstance(loaded, list)
    assert isinstance(listed, list)
    assert [one["name"] for one in loaded] == [one["name"] for one in listed]
    for one in loaded:
        assert datetime.fromisoformat(one["expires_at"]).astimezone() > datetime.now(UTC)
        assert {"size", "size_vram", "digest", "context_length"} <= one.keys()


@pytest.mark.parametrize("field", ["model", "name"])
async def test_show_has_what_clients_select_models_by(served: Stack, field: str) -> None:
    """Langflow keeps models with the capability, Roo Code reads the details and the length."""
    shown = (await served.post({field: "jina-embeddings-v4:code.passage"}, "/api/show")).json
    assert (shown["capabilities"], shown["template"]) == (["embedding"], "Passage: {{ .Prompt }}")
    details, about = shown["details"], shown["model_info"]
    assert isinstance(details, dict)
    assert isinstance(about, dict)
    assert details.keys() == DETAILS
    kind = about["general.architecture"]
    assert (about[f"{kind}.embedding_length"], about[f"{kind}.context_length"]) == (2048, BATCH_TOKENS)
    assert about["general.parameter_count"] > 10**6


async def test_a_served_model_is_already_pulled(served: Stack) -> None:
    pulled = await served.post({"model": "jina-embeddings-v4:latest"}, "/api/pull")
    assert pulled.headers["Content-Type"] == "application/x-ndjson"
    assert orjson.loads(pulled.body.splitlines()[-1]) == {"status": "success"}
    at_once = await served.post({"name": "jina-embeddings-v4", "stream": False}, "/api/pull")
    assert at_once.json == {"status": "success"}


@pytest.mark.parametrize("path", ["/api/show", "/api/pull"])
async def test_a_model_that_is_not_served_is_a_404_in_one_string(served: Stack, path: str) -> None:
    answer = await served.post({"model": "llama3"}, path)
    assert (answer.status, set(answer.json)) == (404, {"error"})
    assert "llama3" in str(answer.json["error"])
