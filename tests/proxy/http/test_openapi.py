"""The OpenAPI document: whole, and true of the server."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import jsonschema_rs
import pytest
import pytest_asyncio

from proxy.contract.settings import TokenIds
from proxy.embedding.tasks import TaskTable
from proxy.http.batches.described import without_patterns
from proxy.http.openapi import ServedFacts, openapi_document
from proxy.http.routes import DIALECTS, ROUTES
from tests.support.models.families import write_family
from tests.support.servers.stack import Stack, family_of, small_family, stack

KEY = {"Authorization": "Bearer right"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Small models behind a proxy with a key. One engine suffices: its results do not matter here."""
    folder = tmp_path_factory.mktemp("small")
    family, models = small_family(folder)
    async with stack("embedded", models, family=family, api_keys=["right"], batches_dir=str(folder / "b")) as running:
        yield running


async def described(small: Stack) -> dict[str, dict[str, dict[str, object]]]:
    paths = (await small.get("/openapi.json")).json["paths"]
    assert isinstance(paths, dict)
    return paths


async def test_every_route_is_described_and_the_document_needs_no_key(small: Stack) -> None:
    found = {(method, path) for path, methods in (await described(small)).items() for method in methods}
    assert found == {(route.method.lower(), without_patterns(route).path) for route in ROUTES}
    assert (await small.get("/openapi.json")).status == 200
    assert (await small.get("/v1/models")).status == 401


@pytest.mark.parametrize("path", [path for dialect in DIALECTS for path in dialect.paths])
async def test_the_example_of_each_dialect_is_answered(small: Stack, path: str) -> None:
    content = (await described(small))[path]["post"]["requestBody"]
    assert isinstance(content, dict)
    example = content["content"]["application/json"]["example"]
    asked = path.replace("{endpoint}", "e").replace("{model}", "jina-embeddings-v4")
    assert (await small.post(example, asked, **KEY)).status == 200


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ({"input": "a"}, True),
        ({"content": ["a", {"text": "b"}, [1, 2]], "input": None}, True),
        ({"texts": [5, 6], "encoding_format": ["base64", "binary"], "user": "u"}, True),
        ({"input": "a", "embedding_types": "ubinary", "output_dimensionality": 3, "task_type": "code.query"}, True),
        ({"input": "a", "truncation": True, "input_type": None, "normalized": None, "late_chunking": False}, True),
        ({"input": "a", "model": "jina-embeddings-v4:code.query", "dimensions": None}, True),
        ({}, False),
        ({"input": None, "texts": None}, False),
        ({"input": []}, False),
        ({"input": [[]]}, False),
        ({"input": [-1]}, False),
        ({"input": {"image": "https://x/y.png"}}, False),
        ({"input": "a", "dimensions": 0}, False),
        ({"input": "a", "dimensions": 65}, False),
        ({"input": "a", "task": "poetry"}, False),
        ({"input": "a", "model": "gpt-4"}, False),
        ({"input": "a", "embedding_type": "int4"}, False),
        ({"input": "a", "late_chunking": True}, True),
        ({"input": "a", "return_multivector": True}, False),
    ],
)
async def test_the_schema_and_the_server_agree(small: Stack, body: object, valid: bool) -> None:
    document = (await small.get("/openapi.json")).json
    schema = {"$ref": "#/components/schemas/EmbeddingsBody", "components": document["components"]}
    assert jsonschema_rs.is_valid(schema, body) is valid
    assert ((await small.post(body, **KEY)).status == 200) is valid


async def test_no_two_values_of_an_enum_are_one_constant_to_a_generator(small: Stack) -> None:
    """openapi-python-client makes constants of them, and fails if two are equal."""
    enums = list(found((await small.get("/openapi.json")).json, "enum"))
    assert len(enums) > 3
    for values in enums:
        assert isinstance(values, list)
        constants = [re.sub(r"\W", "_", str(value)).upper() for value in values]
        assert len(set(constants)) == len(constants), values


async def test_the_other_names_of_a_task_are_listed_and_accepted(small: Stack) -> None:
    (told,) = found((await small.get("/openapi.json")).json, "TaskName")
    names = re.findall("`([^`]+)`", str(told))
    assert {"query", "search_document", "RETRIEVAL_QUERY", "CLASSIFICATION"} <= set(names)
    for name in names:
        assert (await small.post({"input": "a", "task": name}, **KEY)).status == 200


async def test_the_document_speaks_of_the_family_that_is_served(tmp_path: Path) -> None:
    """One without aliases, and with a task that no other has."""
    family = family_of(write_family(tmp_path / "f.toml", {"architecture": "qwen3"}, tasks={"haiku": {"prefix": ""}}))
    served = ServedFacts(
        table=TaskTable(family),
        dimensions=64,
        token_ids=TokenIds.MODEL,
        multivector=False,
        late_chunking=False,
        images=False,
        needs_key=False,
    )
    document = openapi_document(ROUTES, DIALECTS, served)
    (told,) = found(document, "TaskName")
    assert told == {"type": "string", "enum": ["haiku"], "examples": ["haiku"], "description": "A task."}
    assert "retrieval.query" not in json.dumps(document)
    assert list(found(document, "LateChunking")) == [{"const": False}]


async def test_every_field_of_a_body_is_described(small: Stack) -> None:
    document = (await small.get("/openapi.json")).json
    for body in {one.body for one in DIALECTS}:
        properties = next(found(next(found(document, body.__name__)), "properties"))
        assert isinstance(properties, dict)
        assert len(properties) >= len(body.model_fields), body


def found(value: object, key: str) -> Iterator[object]:
    """The values of that key anywhere in a JSON value."""
    inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    if isinstance(value, dict) and key in value:
        yield value[key]
    for one in inner:
        yield from found(one, key)


async def test_queries_and_the_lane_are_described(small: Stack) -> None:
    paths = await described(small)
    found: dict[str, set[tuple[str, str]]] = {}
    for route in ("get /v1/files", "get /v1/batches", "post /v1/embeddings", "post /v1/files"):
        method, _, name = route.partition(" ")
        given = paths[name][method]["parameters"]
        assert isinstance(given, list)
        found[route] = {(one["in"], one["name"]) for one in given}
    assert found == {
        "get /v1/files": {("query", name) for name in ("limit", "after", "order", "purpose")},
        "get /v1/batches": {("query", "limit"), ("query", "after")},
        "post /v1/embeddings": {("header", "X-Trillama-Lane")},
        "post /v1/files": set(),
    }


async def test_another_method_gets_the_allowed_ones(small: Stack) -> None:
    answer = await small.request("DELETE", "/v1/embeddings", None, KEY)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
