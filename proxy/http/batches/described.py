"""What the OpenAPI document says of the routes of the batch APIs, by method and path."""

import re
from collections.abc import Mapping

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaValue

from proxy.batches import apis
from proxy.http.batches.shared import JSONL
from proxy.wire.answer_models import (
    BatchAnswer,
    BatchesAnswer,
    BatchStatusAnswer,
    DeletedAnswer,
    FileAnswer,
    FilesAnswer,
)
from proxy.wire.schema import SCHEMAS

BATCH_ANSWERS: Mapping[tuple[str, str], type[BaseModel]] = {
    ("POST", "/v1/files"): FileAnswer,
    ("GET", "/v1/files"): FilesAnswer,
    ("GET", "/v1/files/{id}"): FileAnswer,
    ("DELETE", "/v1/files/{id}"): DeletedAnswer,
    ("POST", "/v1/batches"): BatchAnswer,
    ("GET", "/v1/batches"): BatchesAnswer,
    ("GET", "/v1/batches/{id}"): BatchAnswer,
    ("POST", "/v1/batches/{id}/cancel"): BatchAnswer,
    ("POST", "/v1/batch/embeddings"): BatchStatusAnswer,
    ("GET", "/v1/batch/{id}"): BatchStatusAnswer,
    ("DELETE", "/v1/batch/{id}"): BatchStatusAnswer,
}
BATCH_BODIES: Mapping[tuple[str, str], type[BaseModel]] = {
    ("POST", "/v1/batches"): apis.CreateBatchBody,
    ("POST", "/v1/batch/embeddings"): apis.BatchEmbeddingsBody,
}
JSONL_PATHS = dict.fromkeys(("/v1/files/{id}/content", "/v1/batch/{id}/output", "/v1/batch/{id}/errors"), (JSONL,))
UPLOAD: JsonSchemaValue = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "JSON Lines, a request of a batch each."},
        "purpose": {"const": apis.PURPOSE},
    },
}
FORMS: Mapping[tuple[str, str], JsonSchemaValue] = {("POST", "/v1/files"): UPLOAD}
ACCEPTED = frozenset({("POST", "/v1/batch/embeddings")})  # 202 is their success
STORED = ("/v1/files", "/v1/batch")  # these paths can be off, and their disk can be full
LIMIT = "How many rows at most."
AFTER: tuple[str, JsonSchemaValue] = ("Begin behind the row of this id.", {"type": "string"})
PAGED: Mapping[tuple[str, str], Mapping[str, tuple[str, JsonSchemaValue]]] = {
    ("GET", "/v1/files"): {
        "limit": (LIMIT, {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 10_000}),
        "after": AFTER,
        "order": ("By the time of the upload or result.", {"enum": ["asc", "desc"], "default": "desc"}),
        "purpose": ("Only files of this purpose.", {"enum": [apis.PURPOSE, apis.RESULT_PURPOSE]}),
    },
    ("GET", "/v1/batches"): {
        "limit": (LIMIT, {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
        "after": AFTER,
    },
}
LANE_PARAMETER = {
    "name": "X-Trillama-Lane",
    "in": "header",
    "description": "`bulk`: the request is in no hurry. Absent: its size decides.",
    "schema": {"const": "bulk"},
}


def without_patterns(route: web.RouteDef) -> web.RouteDef:
    """The route with its path as a document has it: without the patterns that its variables match."""
    return web.RouteDef(route.method, re.sub(r"{(\w+):[^}]+}", r"{\1}", route.path), route.handler, route.kwargs)


def parameters(method: str, path: str, *, embeds: bool) -> list[object]:
    """Those of the path, of the query, and the lane's header where vectors are asked for."""
    kinds: dict[str, JsonSchemaValue] = {"model": {"$ref": SCHEMAS + "ModelName"}}
    of_path = [
        {"name": name, "in": "path", "required": True, "schema": kinds.get(name, {"type": "string"})}
        for name in re.findall(r"{(\w+)", path)
    ]
    of_query = [
        {"name": name, "in": "query", "description": text, "schema": schema}
        for name, (text, schema) in PAGED.get((method, path), {}).items()
    ]
    return [*of_path, *of_query, *([LANE_PARAMETER] if embeds else [])]
