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
PAGED = frozenset({("GET", "/v1/files"), ("GET", "/v1/batches")})


def without_patterns(route: web.RouteDef) -> web.RouteDef:
    """The route with its path as a document has it: without the patterns that its variables match."""
    return web.RouteDef(route.method, re.sub(r"{(\w+):[^}]+}", r"{\1}", route.path), route.handler, route.kwargs)
