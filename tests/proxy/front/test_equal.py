"""The answers of a Front are those of the node behind it, in every dialect, errors included."""

import re
from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal

from tests.support.nodes.front import RunningFront, front
from tests.support.requests.dialects import embeddings, expected, same
from tests.support.servers.stack import Answer, Stack

ENGINE_KINDS = ("embedded",)
OWN = {"Date", "Server", "X-Queue-Tokens", "X-Tokens-Per-Second", "Content-Length"}
CASES: dict[str, tuple[str, object]] = {
    "one text": ("/v1/embeddings", {"input": "hello"}),
    "base64": ("/v1/embeddings", {"input": ["hello", "world"], "encoding_format": "base64", "dimensions": 64}),
    "bits": ("/v1/embeddings", {"input": ["hello"], "embedding_type": ["binary", "ubinary"]}),
    "a task by model": ("/v1/embeddings", {"input": "hello", "model": "jina-embeddings-v4:code.query"}),
    "not normalised": ("/v1/embeddings", {"input": "hello", "normalized": False, "dimensions": 128}),
    "token ids": ("/v1/embeddings", {"input": [[15339, 1917], [1]]}),
    "late chunking": ("/v1/embeddings", {"input": ["one two", "three"], "late_chunking": True}),
    "partial": ("/v1/embeddings", {"input": ["hello", {"image": "x"}, "w " * 2000], "on_error": "partial"}),
    "nothing left of it": ("/v1/embeddings", {"input": [{"image": "x"}, "w " * 2000], "on_error": "partial"}),
    "too long": ("/v1/embeddings", {"input": ["hello", *["w " * 2000] * 40]}),
    "too many dimensions": ("/v1/embeddings", {"input": "hello", "dimensions": 4096}),
    "another model": ("/v1/embeddings", {"input": "hello", "model": "gpt"}),
    "an unknown task": ("/v1/embeddings", {"input": "hello", "task": "dance"}),
    "an instruction": ("/v1/embeddings", {"input": "hello", "instruction": "find"}),
    "multi-vectors": ("/v1/embeddings", {"input": "hello", "return_multivector": True}),
    "no JSON": ("/v1/embeddings", b"{"),
    "RunPod": ("/runsync", {"input": {"input": ["hello"], "embedding_type": "ubinary"}}),
    "Ollama": ("/api/embed", {"model": "jina-embeddings-v4", "input": ["hello", "world"]}),
    "Ollama, another model": ("/api/embed", {"model": "nomic", "input": "hello"}),
    "TEI": ("/embed", {"inputs": ["hello", "world"]}),
    "TEI, too long": ("/embed", {"inputs": ["hello", "w " * 2000]}),
    "Cohere": (
        "/v2/embed",
        {"texts": ["hello"], "input_type": "search_query", "embedding_types": ["float", "ubinary"]},
    ),
    "Gemini": (
        "/v1beta/models/jina-embeddings-v4:batchEmbedContents",
        {"requests": [{"model": "models/jina-embeddings-v4", "content": {"parts": [{"text": "hello"}]}}]},
    ),
}
PAGES = ("/v1/models", "/v1/models/jina-embeddings-v4", "/info", "/api/tags", "/api/ps")
CHANGING = re.compile(rb'"(created|delayTime|executionTime|total_duration|load_duration)":\d+|"modified_at":"[^"]+"')


@pytest.fixture(scope="module")
def before(served: Stack) -> Iterator[RunningFront]:
    """A Front before the stack's proxy."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(front({"a": served.url})) as running:
        yield running


def shown(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """What must be the same."""
    headers = {name: value for name, value in answer.headers.items() if name not in OWN}
    return answer.status, headers, re.sub(rb'"id":"(sync-)?[0-9a-f-]{36}"', b"", CHANGING.sub(b"", answer.body))


@pytest.mark.parametrize("case", CASES)
async def test_an_answer_is_the_nodes_byte_for_byte(case: str, served: Stack, before: RunningFront) -> None:
    path, body = CASES[case]
    front_ = Stack(url=before.url, models={}, engines={})
    through = await front_.post(body, path, **{"X-Request-ID": "mine"})
    assert shown(through) == shown(await served.post(body, path, **{"X-Request-ID": "mine"}))


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_the_nodes(path: str, served: Stack, before: RunningFront) -> None:
    front_ = Stack(url=before.url, models={}, engines={})
    through = await front_.get(path, **{"X-Request-ID": "mine"})
    assert shown(through) == shown(await served.get(path, **{"X-Request-ID": "mine"}))


async def test_the_rows_of_several_pieces_are_the_nodes_in_order(served: Stack, before: RunningFront) -> None:
    texts: list[object] = [f"text {at}" for at in range(40)]
    body = {"input": texts, "task": "retrieval.passage"}
    through = await Stack(url=before.url, models={}, engines={}).post(body)
    assert same(embeddings(through), await expected(served, *texts, task="retrieval.passage"))
    assert through.json["usage"] == (await served.post(body)).json["usage"]
