"""docs/dialects.md is true, all dialects share one core, and requests for older models are answered."""

import asyncio
import base64
import re
from pathlib import Path

import numpy as np
import orjson
import pytest

from proxy.http.routes import DIALECTS, RENDERERS_BY_PATH, ROUTES
from tests.support.requests.dialects import embeddings, expected, same
from tests.support.servers.stack import BATCH_TOKENS, FAMILY_FILE, Stack, proxy

ENGINE_KINDS = ("embedded",)  # these tests do not depend on the engine

PAGE = Path(__file__).parents[3] / "docs" / "dialects.md"
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
FIELDS = {"/runsync": "input", "/api/embed": "input", "/embed": "inputs", "/v2/embed": "texts", "/v1/embed": "texts"}


def asking(path: str, inputs: list[object]) -> dict[str, object]:
    """The dialect's body with these inputs."""
    body: dict[str, object] = {FIELDS[path]: inputs}
    return {"input": body} if path == "/runsync" else body


@pytest.mark.parametrize("command", COMMANDS, ids=[re.findall(r"8080(\S+)", one)[0] for one in COMMANDS])
async def test_a_command_of_the_page_works_as_written(served: Stack, command: str) -> None:
    line = command.replace("http://127.0.0.1:8080", served.url).replace("curl ", "curl --silent --fail-with-body ")
    shell = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE)
    output, _ = await shell.communicate()
    assert shell.returncode == 0, output
    assert b"0." in output


def test_the_page_names_every_dialect() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for one in DIALECTS:
        assert any(f"`{path}`" in text for path in one.paths), one.paths


def test_every_error_body_of_a_dialect_belongs_to_a_route() -> None:
    routes = {route.path for route in ROUTES}
    assert all(any(path.startswith(key) for path in routes) for key in RENDERERS_BY_PATH)
    assert {key for key in RENDERERS_BY_PATH if not key.endswith("/")} <= routes


@pytest.mark.parametrize("path", FIELDS)
async def test_every_dialect_reads_token_ids_and_gives_raw_floats(served: Stack, path: str) -> None:
    ids = [15339, 1917]  # cl100k: "hello world"
    answer = await served.post(asking(path, [ids, {"text": "b"}]), path, Accept="application/octet-stream")
    task = answer.headers["X-Trillama-Task"]
    got = np.frombuffer(answer.body, dtype="<f4").reshape(2, 2048)
    assert same(got, await expected(served, "hello world", "b", task=task))


@pytest.mark.parametrize("path", FIELDS)
async def test_every_dialect_refuses_an_image_by_its_index(served: Stack, path: str) -> None:
    answer = await served.post(asking(path, ["a", {"image": "https://x/y.png"}]), path)
    assert b"input.1: is an image" in answer.body


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
async def test_voyages_bits_are_lists_or_arrays_in_base64(served: Stack, dtype: str) -> None:
    body = {"input": ["a"], "input_type": "document", "truncation": True, "output_dimension": 64}
    bits = np.packbits(await expected(served, "a", task="retrieval.passage", dimensions=64) > 0, axis=1)
    values = bits.tolist() if dtype == "ubinary" else (bits.astype(int) - 128).tolist()
    for encoding in (None, "base64"):
        answer = await served.post({**body, "output_dtype": dtype, "encoding_format": encoding})
        (got,) = embeddings(answer)
        if isinstance(got, str):
            assert encoding
            got = np.frombuffer(base64.b64decode(got), np.int8 if dtype == "binary" else np.uint8).tolist()
        assert got == values[0]


async def test_voyages_nulls_and_whole_numbers(served: Stack) -> None:
    nulls = dict.fromkeys(("input_type", "output_dtype", "output_dimension", "encoding_format"))
    answer = await served.post({"input": ["a"], "model": "jina-embeddings-v4", "truncation": True, **nulls})
    assert same(embeddings(answer), await expected(served, "a"))
    refused = await served.post({"input": ["a"], "output_dtype": "int8"})
    assert (refused.status, refused.json["code"]) == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize(("word", "status"), [("END", 200), ("NONE", 400), ("START", 422)])
async def test_nims_names_for_truncation(served: Stack, word: str, status: int) -> None:
    answer = await served.post({"input": "x " * 9000, "input_type": "query", "truncate": word})
    assert answer.status == status


DEPLOYED = "/openai/deployments/{}/embeddings?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("deployment", "model", "task"),
    [
        ("jina-embeddings-v4:code.query", None, "code.query"),
        ("jina-embeddings-v4%3Acode.query", None, "code.query"),
        ("jinaai%2Fjina-embeddings-v4", None, "text-matching"),
        ("jina-embeddings-v4:code.query", "text-embedding-ada-002", "code.query"),  # LangChain's default beside it
        ("our-own-name", "jina-embeddings-v4:code.query", "code.query"),
    ],
)
async def test_azures_deployment_is_the_model(served: Stack, deployment: str, model: str | None, task: str) -> None:
    answer = await served.post({"input": ["a"], "model": model}, DEPLOYED.format(deployment))
    assert same(embeddings(answer), await expected(served, "a", task=task))


async def test_an_unknown_deployment_is_named_in_the_error(served: Stack) -> None:
    answer = await served.post({"input": ["a"]}, DEPLOYED.format("gpt-4"))
    assert (answer.status, answer.json["code"]) == (400, "INPUT_MODEL_NOT_FOUND")
    assert "'gpt-4' is not served here" in str(answer.json["detail"])


@pytest.mark.parametrize("path", ["/openai/v1/embeddings", "/v1beta/openai/embeddings"])
async def test_the_paths_of_openais_api_elsewhere(served: Stack, path: str) -> None:
    assert len(embeddings(await served.post({"input": ["a", "b"], "dimensions": 2}, path))) == 2


async def test_requests_for_older_models_are_answered_where_the_names_are_mapped(served: Stack) -> None:
    old = ("jina-embeddings-v3", "jina-embeddings-v2-base-en", "text-embedding-3-small")
    backends = {name: {"url": one.url, "batch_tokens": BATCH_TOKENS} for name, one in served.engines.items()}
    aliases = dict.fromkeys(old, "jina-embeddings-v4")
    async with proxy({"family": str(FAMILY_FILE), "backends": backends, "model_aliases": aliases}) as url:
        mapped = Stack(url=url, models=served.models, engines=served.engines)
        for model in old:
            body = {"input": ["a"], "model": model, "task": "separation", "dimensions": 768, "normalized": True}
            answer = await mapped.post(body)
            assert answer.headers["X-Trillama-Model"] == answer.json["model"] == "jina-embeddings-v4"
            assert answer.headers["X-Trillama-Task"] == "text-matching"
            assert same(embeddings(answer), await expected(served, "a", dimensions=768))
        tagged = await mapped.post({"model": "jina-embeddings-v3:latest", "input": "a"}, "/api/embed")
        assert tagged.json["model"] == "jina-embeddings-v3:latest"
    unmapped = await served.post({"input": "a", "model": old[0]})
    assert (unmapped.status, orjson.loads(unmapped.body)["code"]) == (400, "INPUT_MODEL_NOT_FOUND")
