"""RunPod's dialect: what the worker's README shows, jobs from `/run` to their end, and errors."""

import asyncio
import base64

import numpy as np
import pytest

from tests.support.requests.dialects import expected, same
from tests.support.servers.stack import BACKENDS, FAMILY_FILE, Answer, Stack, proxy, unused_port

ENGINE_KINDS = ("embedded",)  # these tests do not depend on the engine

PREFIXES = ["", "/v2/my-endpoint"]
DEADLINE_S = 30


def vectors(answer: Answer) -> list[object]:
    assert (answer.status, answer.json["status"]) == (200, "COMPLETED"), answer.body
    output = answer.json["output"]
    assert isinstance(output, dict)
    assert [row["index"] for row in output["data"]] == list(range(len(output["data"])))
    return [row["embedding"] for row in output["data"]]


async def done(served: Stack, job: object, prefix: str = "") -> Answer:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            answer = await served.get(f"{prefix}/status/{job}")
            if answer.json["status"] not in {"IN_QUEUE", "IN_PROGRESS"}:
                return answer
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_runsync_answers_the_embeddings_api_in_an_envelope(served: Stack, prefix: str) -> None:
    body = {"model": "jina-embeddings-v4", "input": ["Hello, world!", {"text": "How are you?"}], "task": None}
    answer = await served.post({"input": body, "policy": {}, "webhook": None}, prefix + "/runsync")
    assert same(vectors(answer), await expected(served, "Hello, world!", "How are you?", task="retrieval.passage"))
    got = answer.json
    assert got.keys() == {"id", "status", "output", "delayTime", "executionTime"}
    assert isinstance(got["executionTime"], int)
    assert isinstance(got["output"], dict)
    assert got["output"].keys() == {"model", "object", "usage", "data"}
    assert answer.headers["X-Trillama-Task"] == "retrieval.passage"


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({"task": "text-matching"}, "text-matching"),
        ({"model": "jina-embeddings-v4:code.query"}, "code.query"),
        ({"prompt_name": "query"}, "retrieval.query"),
        ({}, "retrieval.passage"),
    ],
)
async def test_the_default_task_gives_way_to_any_that_is_named(
    served: Stack, fields: dict[str, str], task: str
) -> None:
    answer = await served.post({"input": {"input": "a", **fields}}, "/runsync")
    assert answer.headers["X-Trillama-Task"] == task
    assert same(vectors(answer), await expected(served, "a", task=task))


async def test_bits_are_base64_of_the_packed_bytes_by_both_names(served: Stack) -> None:
    types = ["float", "base64", "binary", "ubinary"]
    body = {"input": ["a", "b"], "embedding_type": types, "dimensions": 128}
    for row in vectors(await served.post({"input": body}, "/runsync")):
        assert isinstance(row, dict)
        floats = np.array(row["float"], dtype="<f4")
        assert base64.b64decode(row["base64"]) == floats.tobytes()
        bits = base64.b64encode(np.packbits(floats > 0).tobytes()).decode()
        assert (row["binary"], row["ubinary"]) == (bits, bits)
    (alone,) = vectors(await served.post({"input": {"input": "a", "embedding_type": "binary"}}, "/runsync"))
    assert isinstance(alone, str)
    assert len(base64.b64decode(alone)) == 2048 // 8


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_run_returns_a_job_whose_status_has_the_output(served: Stack, prefix: str) -> None:
    queued = await served.post({"input": {"input": ["a", "b"], "task": "code.passage"}}, prefix + "/run")
    assert (queued.status, queued.json["status"]) == (200, "IN_QUEUE")
    answer = await done(served, queued.json["id"], prefix)
    assert same(vectors(answer), await expected(served, "a", "b", task="code.passage"))
    assert answer.json["id"] == queued.json["id"]
    assert isinstance(answer.json["delayTime"], int)
    assert isinstance(answer.json["executionTime"], int)
    assert answer.headers["X-Trillama-Task"] == "code.passage"
    assert vectors(await done(served, queued.json["id"], prefix)) == vectors(answer)  # RunPod's client polls twice


async def test_a_job_that_fails_says_why(served: Stack) -> None:
    queued = await served.post({"input": {"input": ["ok", "x " * 9000]}}, "/run")
    failed = (await done(served, queued.json["id"])).json
    assert failed["status"] == "FAILED"
    assert "input 1 has" in str(failed["error"])
    assert "output" not in failed


async def test_a_job_can_be_cancelled(served: Stack) -> None:
    bulk = {"input": {"input": [f"{number} " * 500 for number in range(500)]}}
    queued = (await served.post(bulk, "/run")).json["id"]
    cancelled = await served.post({}, f"/cancel/{queued}")
    assert cancelled.json["status"] == "CANCELLED"
    assert (await done(served, queued)).json["status"] == "CANCELLED"


async def test_an_invalid_request_is_a_failed_job_with_its_reason(served: Stack) -> None:
    refused = await served.post({"input": {"input": 5}}, "/run")
    assert (await done(served, refused.json["id"])).json == refused.json
    assert refused.json["status"] == "FAILED"


@pytest.mark.parametrize("path", ["/status/", "/v2/x/status/"])
async def test_an_unknown_job_is_404_and_failed(served: Stack, path: str) -> None:
    answer = await served.get(path + "nothing")
    assert (answer.status, answer.json["status"]) == (404, "FAILED")
    assert "no job 'nothing'" in str(answer.json["error"])


@pytest.mark.parametrize("path", ["/runsync", "/run"])
@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"input": {"input": "a", "dimensions": 4096}}, 200, "dimensions: must be from 1 to 2048"),
        ({"input": {"input": "a", "task": "poem"}}, 200, "unknown task 'poem'"),
        ({"input": {"input": "a", "model": "gpt-4"}}, 200, "'gpt-4' is not served here"),
        ({"input": {"input": [{"image": "https://x/y.jpg"}]}}, 200, "this server embeds only text"),
        ({"input": {"input": "a", "return_multivector": True}}, 200, "trillama models pull --multivector"),
        ({"input": {}}, 200, "input.input: is required"),
        ({"input": "a"}, 200, "input"),
        ({}, 200, "input: is required"),
        ({"input": {"input": "a"}, "webhook": "https://x/y"}, 200, "webhook: is not supported"),
        (b"{", 400, "not JSON"),
    ],
)
async def test_a_request_that_fails_is_a_failed_job(
    served: Stack, path: str, body: object, status: int, error: str
) -> None:
    answer = await served.post(body, path)
    if answer.json["status"] == "IN_QUEUE":
        answer = await done(served, answer.json["id"])
    got = answer.json
    assert (answer.status, got["status"]) == (status, "FAILED")
    assert error in str(got["error"])


async def test_the_openai_route_of_an_endpoint_is_the_embeddings_api(served: Stack) -> None:
    plain, routed = [
        await served.post({"input": "a", "dimensions": 4}, path)
        for path in ("/v1/embeddings", "/v2/my-endpoint/openai/v1/embeddings")
    ]
    assert routed.json.keys() == plain.json.keys()


async def test_what_can_be_retried_is_an_http_error(served: Stack) -> None:
    nowhere = {"url": f"http://127.0.0.1:{unused_port()}"}
    config = {"family": str(FAMILY_FILE), "backends": dict.fromkeys(BACKENDS, nowhere), "api_keys": ["key"]}
    async with proxy(config, wait=False) as url:
        down = Stack(url=url, models={}, engines={})
        locked = await down.post({"input": {"input": "a"}}, "/runsync")
        unready = await down.post({"input": {"input": "a"}}, "/runsync", Authorization="Bearer key")
    assert (locked.status, locked.json["status"]) == (401, "FAILED")
    assert (unready.status, unready.json["status"]) == (503, "FAILED")
    assert int(unready.headers["Retry-After"]) > 0


async def test_a_server_stops_at_once_with_unfinished_jobs(served: Stack) -> None:
    backends = {name: {"url": one.url, "batch_tokens": 2048} for name, one in served.engines.items()}
    bulk = {"input": {"input": [f"{number} " * 500 for number in range(500)]}}
    async with asyncio.timeout(DEADLINE_S), proxy({"family": str(FAMILY_FILE), "backends": backends}) as url:
        short = Stack(url=url, models={}, engines={})
        queued = [(await short.post(bulk, "/run")).json["id"] for _ in range(20)]
        states = {(await short.get(f"/status/{job}")).json["status"] for job in queued}
        assert states == {"IN_PROGRESS", "IN_QUEUE"}
