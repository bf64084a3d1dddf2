"""The routes beside embeddings: the models, as each API lists them, health, readiness and metrics."""

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.contract.admin import SPACES_HEADER
from proxy.contract.family import Family
from proxy.dialects import ollama, tei
from proxy.embedding.tasks import Route
from proxy.errors import ModelNotFound, ModelNotServed
from proxy.http.responses import load_headers, send
from proxy.http.service import EmbeddingService
from proxy.monitoring.scrape import Scrape
from proxy.quoting import quoted
from proxy.types import Provenance

SERVICE: web.AppKey[EmbeddingService] = web.AppKey("service", EmbeddingService)
FAMILY = web.AppKey("family", Family)
SCRAPE = web.AppKey("scrape", Scrape)
STARTED = int(time.time())
LISTS = ("/v1/models", "/models", "/openai/models", "/openai/v1/models", "/v1beta/openai/models")  # Azure's, Gemini's


async def ollama_root(_: web.Request) -> web.StreamResponse:
    """Ollama's words, for clients that check whether it is running."""
    return web.Response(text=ollama.RUNNING)


async def ollama_tags(request: web.Request) -> web.StreamResponse:
    """`GET /api/tags`: the names of `/v1/models`, as Ollama lists them."""
    return await send(request, ollama.tags(request.app[FAMILY].name, _made(request), _started()))


async def ollama_running(request: web.Request) -> web.StreamResponse:
    """`GET /api/ps`: the models that are loaded now, as Ollama lists them."""
    service = request.app[SERVICE]
    loaded = [name for name, row in _rows(request).items() if service.is_loaded(row.backend)]
    made = {name: made for name, made in _made(request).items() if name in loaded}
    tokens = service.limits.input_tokens
    return await send(request, ollama.running_models(request.app[FAMILY].name, made, tokens))


async def ollama_show(request: web.Request, wire: ollama.OllamaShowBody) -> web.StreamResponse:
    """`POST /api/show`: the details of a model."""
    service = request.app[SERVICE]
    row = service.tasks.route(ollama.name_of(wire.model), None)
    made, tokens = service.provenance(row.backend), service.limits.input_tokens
    return await send(request, ollama.model_details(request.app[FAMILY], row, made, tokens, _started()))


async def ollama_pull(request: web.Request, wire: ollama.OllamaPullBody) -> web.StreamResponse:
    """`POST /api/pull`: success for a model that is served; no other can be pulled."""
    try:
        request.app[SERVICE].tasks.route(ollama.name_of(wire.model), None)
    except ModelNotFound as error:  # Ollama's message for it would advise to pull
        raise ModelNotServed(error.message, param="model") from error
    if not wire.stream:
        return await send(request, ollama.PULLED[-1])
    lines = b"".join(orjson.dumps(status, option=orjson.OPT_APPEND_NEWLINE) for status in ollama.PULLED)
    return web.Response(body=lines, content_type="application/x-ndjson")


async def ollama_version(request: web.Request) -> web.StreamResponse:
    """`GET /api/version`: the version of Ollama whose API this server implements."""
    return await send(request, {"version": ollama.API_VERSION})


async def tei_info(request: web.Request) -> web.StreamResponse:
    """`GET /info`: the model of the default task, as text-embeddings-inference describes it."""
    service = request.app[SERVICE]
    made = service.provenance(service.tasks.route(None, None).backend)
    limits = service.limits
    return await send(
        request, tei.info(request.app[FAMILY].hugging_face_id, made, tokens=limits.input_tokens, items=limits.items)
    )


async def models(request: web.Request) -> web.StreamResponse:
    """`GET /v1/models`: the family, and one name per task for clients that can set only the model."""
    return await send(
        request, {"object": "list", "data": [_model(request, name, row) for name, row in _rows(request).items()]}
    )


async def model(request: web.Request) -> web.StreamResponse:
    """`GET /v1/models/{id}`: one model."""
    name, rows = request.match_info["id"], _rows(request)
    if name not in rows:
        raise ModelNotServed(f"model {quoted(name)} is not served here; served are: {', '.join(rows)}", param="model")
    return await send(request, _model(request, name, rows[name]))


async def health(request: web.Request) -> web.StreamResponse:
    """`GET /health`: the proxy is alive."""
    return await send(request, {"status": "ok"})


async def ready(request: web.Request) -> web.StreamResponse:
    """`GET /ready`: 200 if every backend can serve a request now, or one node of a Front, else 503 with the reasons."""
    service = request.app[SERVICE]
    report = await service.readiness()
    backends = dict.fromkeys(row.backend for row in service.tasks.tasks.values())
    made = {name: service.provenance(name) for name in backends}
    body = {
        "status": "ready" if report.ready else "not ready",
        "backends": report.backends,
        **({"nodes": report.nodes} if report.nodes else {}),
        "spaces": {
            name: {
                "space": one.space,
                "quantization": one.quantization,
                **({"images": one.image_space} if one.image_space else {}),
            }
            for name, one in made.items()
        },
    }
    images = {f"{name} images": one.image_space for name, one in made.items() if one.image_space}
    spaces = _digest_of({name: one.space for name, one in made.items()} | images)
    headers = {SPACES_HEADER: spaces, **load_headers(service.load())}
    return await send(request, body, status=200 if report.ready else 503, headers=headers)


async def prometheus(request: web.Request) -> web.StreamResponse:
    """`GET /metrics`, for Prometheus."""
    return web.Response(body=await request.app[SCRAPE].text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _model(request: web.Request, name: str, row: Route) -> dict[str, object]:
    service, family = request.app[SERVICE], request.app[FAMILY]
    return {
        "id": name,
        "object": "model",
        "created": STARTED,
        "owned_by": family.owned_by,
        "context_length": service.limits.input_tokens,
        "hugging_face_id": family.hugging_face_id,
        "dimensions": family.dimensions,
        "trained_dimensions": family.trained_dimensions,
        "licence": family.licence,
        "task": row.task,
        "prefix": row.prefix,
        **({} if row.instruction is None else {"instruction": row.instruction}),
        "provenance": service.provenance(row.backend),
        **({"notice": service.notice} if service.notice else {}),
    }


def _rows(request: web.Request) -> dict[str, Route]:
    """The family's name, and one name per task."""
    tasks, name = request.app[SERVICE].tasks, request.app[FAMILY].name
    return {name: tasks.route(None, None), **{f"{name}:{task}": route for task, route in tasks.tasks.items()}}


def _made(request: web.Request) -> dict[str, Provenance]:
    service = request.app[SERVICE]
    return {name: service.provenance(row.backend) for name, row in _rows(request).items()}


def _started() -> datetime:
    return datetime.fromtimestamp(STARTED, UTC)


def _digest_of(spaces: Mapping[str, str]) -> str:
    """One id for the vector spaces of all backends: two servers with the same can stand in for each other."""
    return hashlib.sha256(json.dumps(spaces, sort_keys=True).encode()).hexdigest()[:16]
