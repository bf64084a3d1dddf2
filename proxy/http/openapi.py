"""`/openapi.json`: all routes and wire models as an OpenAPI 3.1 document; a new route or dialect needs nothing here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaValue, models_json_schema

from proxy.contract.settings import TokenIds
from proxy.dialects import jina, ollama, runpod, tei
from proxy.edge.middleware import is_open
from proxy.embedding.tasks import TaskTable
from proxy.http import pages, raw_floats
from proxy.http.batches import described
from proxy.http.responses import PROVENANCE
from proxy.wire.answer_models import ErrorAnswer, HealthAnswer, ModelsAnswer, ReadyAnswer, TokensAnswer
from proxy.wire.dialect import Dialect
from proxy.wire.schema import SCHEMAS, example, media_schemas

Described = tuple[type[BaseModel], Literal["validation", "serialization"]]
DOCUMENT = web.AppKey("document", bytes)

JOB_PATHS = [*runpod.STATUS_PATHS, *runpod.CANCEL_PATHS]
ANSWERS: Mapping[tuple[str, str], type[BaseModel]] = {
    **dict.fromkeys([("GET", path) for path in pages.LISTS], ModelsAnswer),
    **dict.fromkeys([("GET", path) for path in runpod.STATUS_PATHS], runpod.RunAnswer),
    **dict.fromkeys([("POST", path) for path in runpod.CANCEL_PATHS], runpod.RunAnswer),
    ("GET", "/health"): HealthAnswer,
    ("GET", "/ready"): ReadyAnswer,
    ("POST", "/v1/embeddings/count_tokens"): TokensAnswer,
    **described.BATCH_ANSWERS,
}
PAGE_BODIES: Mapping[tuple[str, str], type[BaseModel]] = {
    ("POST", "/api/show"): ollama.OllamaShowBody,
    ("POST", "/api/pull"): ollama.OllamaPullBody,
    ("POST", "/v1/embeddings/count_tokens"): jina.EmbeddingsBody,
    **described.BATCH_BODIES,
}
PAGE_ERRORS: Mapping[str, type[BaseModel]] = {
    **dict.fromkeys(JOB_PATHS, runpod.FailedAnswer),
    **dict.fromkeys(["/api/tags", "/api/ps", "/api/version", "/api/show", "/api/pull"], ollama.OllamaError),
    **dict.fromkeys(["/", "/info"], tei.TeiError),
}
TYPES: Mapping[str, Sequence[str]] = {
    "/": ("text/plain", "text/html"),
    "/metrics": ("text/plain",),
    "/api/pull": ("application/x-ndjson", "application/json"),
    **described.JSONL_PATHS,
}
PLAIN_TYPES = {**TYPES, "/": ("text/plain",)}  # without a console
ERRORS = {
    400: "The body is not JSON, a text is too long, or the model is not served.",
    401: "The API key is missing or wrong.",
    403: "Without API keys: the Host is not known as this server's, or a page of another site sent the request.",
    404: "There is none of that name.",
    408: "The body did not arrive in time.",
    413: "The body is larger than this server accepts.",
    415: "The body's Content-Encoding is not gzip or deflate.",
    417: "The Expect header is not 100-continue.",
    422: "A field is not valid, or a text cannot be computed: `errors` names it.",
    429: "The queue is full, or the memory for requests is used up.",
    500: "A fault of this server.",
    502: "A backend answered with something that is not a vector.",
    503: "A backend is loading, down or stopping.",
    504: "Not done within the deadline, the server's or yours.",
}
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
TOKEN_IDS: Mapping[TokenIds, JsonSchemaValue] = {
    TokenIds.CL100K: {"type": "integer", "minimum": 0, "maximum": 100255, "description": "Of cl100k_base."},
    TokenIds.MODEL: {"type": "integer", "minimum": 0, "description": "Of the model's own vocabulary."},
    TokenIds.REFUSE: {"not": {}, "description": "This server accepts none."},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFacts:
    """What differs between servers."""

    table: TaskTable
    dimensions: int
    token_ids: TokenIds
    multivector: bool
    late_chunking: bool
    images: bool
    needs_key: bool
    console: bool = True


def openapi_document(
    routes: Sequence[web.RouteDef], dialects: Sequence[Dialect], served: ServedFacts
) -> dict[str, object]:
    """The document of a server with those routes, tasks and models."""
    schemas = _schemas(dialects)
    by_path = {("POST", path): one for one in dialects for path in one.paths}
    paths: dict[str, dict[str, object]] = {}
    for route in map(described.without_patterns, routes):
        one = by_path.get((route.method, route.path))
        operation = _dialect(one, schemas) if one else _page(route, schemas, TYPES if served.console else PLAIN_TYPES)
        common = {
            "operationId": _identifier(route),
            "parameters": described.parameters(route.method, route.path, embeds=one is not None),
            "security": _security(route, needs_key=served.needs_key),
        }
        paths.setdefault(route.path, {})[route.method.lower()] = {**operation, **common}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{served.table.model} on trillama", "version": "1", "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {**schemas, **_names(served)}, "securitySchemes": SECURITY},
    }


DESCRIPTION = (
    "Embeddings for the clients of many APIs. In a request null means absent, and fields that are not named here are "
    "ignored. Each response has an `X-Request-ID`, yours if you send one, and your `traceparent` stays in its trace. "
    "`X-Request-Timeout`: the seconds you wait."
)


async def document_json(request: web.Request) -> web.Response:
    """`GET /openapi.json`: this document."""
    return web.Response(body=request.app[DOCUMENT], content_type="application/json")


def _schemas(dialects: Sequence[Dialect]) -> dict[str, JsonSchemaValue]:
    """The schemas of every wire model and response, by name."""
    answers = [*(one.answer for one in dialects), *(one.error or ErrorAnswer for one in dialects), *ANSWERS.values()]
    bodies = [*(one.body for one in dialects), *PAGE_BODIES.values()]
    requests: list[Described] = [(body, "validation") for body in bodies]
    responses: list[Described] = [(model, "serialization") for model in answers]
    defined: dict[str, JsonSchemaValue] = models_json_schema(
        list(dict.fromkeys([*requests, *responses])), ref_template=SCHEMAS + "{model}"
    )[1]["$defs"]
    return defined


def _names(served: ServedFacts) -> dict[str, object]:
    """The schemas that the wire models refer to, as they are on this server."""
    model, tasks = served.table.model, list(served.table.tasks)
    more = ", ".join(f"`{name}`" for name in served.table.task_names if name not in tasks)
    described = f"A task. Also accepted: {more}." if more else "A task."
    usual, instructed = served.table.route(None, None).task, any(one.instruction for one in served.table.tasks.values())
    named = [model, *(f"{model}:{task}" for task in tasks)]
    return {
        "TaskName": {"type": "string", "enum": tasks, "examples": [usual], "description": described},
        "ModelName": {"type": "string", "enum": named, "examples": [model], "description": MODEL_NAMES},
        "Dimensions": {"type": "integer", "minimum": 1, "maximum": served.dimensions},
        "MultiVector": {"type": "boolean"} if served.multivector else {"const": False},
        "LateChunking": {"type": "boolean"} if served.late_chunking else {"const": False},
        **media_schemas(served=served.images),
        "Instruction": {"type": "string"} if instructed else {"not": {}},
        "TokenId": TOKEN_IDS[served.token_ids],
    }


MODEL_NAMES = "The model, with or without a task. Also accepted: the names that the settings map to it."


def _dialect(one: Dialect, schemas: Mapping[str, JsonSchemaValue]) -> dict[str, object]:
    content: dict[str, object] = {"application/json": {"schema": _ref(one.answer)}}
    if one.raw:
        content |= {raw_floats.RAW: {}, raw_floats.NPY: {}}
    return {
        "summary": one.summary,
        "requestBody": _body(one.body, schemas),
        "responses": {
            "200": {
                "description": "The job." if one.asynchronous else "The vectors.",
                "headers": {} if one.asynchronous else _headers(PROVENANCE),
                "content": content,
            },
            **{str(status): _error(status, one.error or ErrorAnswer) for status in ERRORS},
        },
    }


def _body(model: type[BaseModel], schemas: Mapping[str, JsonSchemaValue]) -> dict[str, object]:
    content = {"schema": _ref(model), "example": example(_ref(model), schemas)}
    return {"required": True, "content": {"application/json": content}}


def _page(
    route: web.RouteDef, schemas: Mapping[str, JsonSchemaValue], types: Mapping[str, Sequence[str]]
) -> dict[str, object]:
    """A route that is not a dialect's: from its handler's docstring and the tables above."""
    key, path = (route.method, route.path), route.path
    said = re.sub("^`[A-Z]+ [^`]+`[:,] ", "", (route.handler.__doc__ or "").partition("\n")[0])
    answer, error = ANSWERS.get(key), PAGE_ERRORS.get(path, ErrorAnswer)
    content = {"schema": _ref(answer)} if answer else {}
    answered = {"description": "OK", "content": dict.fromkeys(types.get(path, ("application/json",)), content)}
    responses: dict[str, object] = {"202" if key in described.ACCEPTED else "200": answered}
    responses |= {str(status): _error(status, error) for status in sorted({403, 417, 429, 500, *_more_errors(route)})}
    operation: dict[str, object] = {"summary": said[:1].upper() + said[1:], "responses": responses}
    if body := PAGE_BODIES.get(key):
        operation["requestBody"] = _body(body, schemas)
    if form := described.FORMS.get(key):
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    if path == "/ready":
        responses["503"] = {**answered, "description": "Not ready: the reasons."}
    return operation


def _more_errors(route: web.RouteDef) -> set[int]:
    """The errors that only some pages have."""
    key = route.method, route.path
    statuses = set() if is_open(*key) else {401}
    if key in PAGE_BODIES or key in described.FORMS:
        statuses |= {400, 404, 408, 413, 415, 422, 503}
    if route.path.startswith(described.STORED):
        statuses |= {404, 413}
    if key in described.PAGED:
        statuses.add(422)
    if "{" in route.path:
        statuses.add(404)
    return statuses


def _error(status: int, body: type[BaseModel] = ErrorAnswer) -> dict[str, object]:
    later = {"Retry-After": "Seconds to wait."} if status in {429, 503, 504} else {}
    queue = {"X-Queue-Tokens": "How many tokens wait."} if status in {429, 503} else {}
    headers = _headers({**later, **queue})
    return {"description": ERRORS[status], "headers": headers, "content": {"application/json": {"schema": _ref(body)}}}


def _headers(described: Mapping[str, str]) -> dict[str, object]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in described.items()}


def _ref(model: type[BaseModel]) -> JsonSchemaValue:
    return {"$ref": SCHEMAS + model.__name__}


def _security(route: web.RouteDef, *, needs_key: bool) -> list[dict[str, list[str]]]:
    """The accepted schemes, any one of which suffices; an empty one means that no key is needed."""
    if is_open(route.method, route.path):
        return []
    keys: list[dict[str, list[str]]] = [{name: []} for name in SECURITY]
    return keys if needs_key else [*keys, {}]


def _identifier(route: web.RouteDef) -> str:
    return f"{route.method.lower()}{re.sub('[^a-zA-Z0-9]+', '_', route.path)}"
