"""The routes beside embeddings: the models, as each API lists them, health, readiness and metrics."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.contract.admin import State
from proxy.contract.family import Family
from proxy.dialects import ollama, tei
from proxy.embedding.service import EmbedService
from proxy.embedding.tasks import Route
from proxy.errors import BackendError, ModelNotFound, ModelNotServed
from proxy.http.responses import send
from proxy.models.served_model import ServedModel
from proxy.monitoring.scrape import Scrape
from proxy.quoting import quoted
from proxy.types import Provenance
from proxy.wire.dialect import validated

SERVICE = web.AppKey("service", EmbedService)
FAMILY = web.AppKey("family", Family)
NOTICE = web.AppKey("notice", str)
SCRAPE = web.AppKey("scrape", Scrape)
STARTED = int(time.time())
LISTS = ("/v1/models", "/models", "/openai/models", "/openai/v1/models", "/v1beta/openai/models")  # Azure's, Gemini's

Page = Callable[[web.Request, object], Awaitable[web.StreamResponse]]  # with the JSON body of the request


async def ollama_root(_: web.Request) -> web.StreamResponse:
    """Ollama's words, for clients that check whether it is running."""
    return web.Response(text=ollama.RUNNING)


async def ollama_tags(request: web.Request) -> web.StreamResponse:
    """`GET /api/tags`: the names of `/v1/models`, as Ollama lists them."""
    return await send(request, ollama.tags(request.app[FAMILY].name, _made(request), _started()))


async def ollama_running(request: web.Request) -> web.StreamResponse:
    """`GET /api/ps`: the models that are loaded now, as Ollama lists them."""
    models, rows = request.app[SERVICE].models, _rows(request)
    loaded = [name for name, row in rows.items() if models[row.backend].report().state is State.READY]
    made = {name: made for name, made in _made(request).items() if name in loaded}
    tokens = request.app[SERVICE].limits.input_tokens
    return await send(request, ollama.running_models(request.app[FAMILY].name, made, tokens))


async def ollama_show(request: web.Request, body: object) -> web.StreamResponse:
    """`POST /api/show`: the details of a model."""
    service = request.app[SERVICE]
    row = service.tasks.route(ollama.name_of(validated(ollama.OllamaShowBody, body).model), None)
    made, tokens = service.models[row.backend].provenance, service.limits.input_tokens
    return await send(request, ollama.model_details(request.app[FAMILY], row, made, tokens, _started()))


async def ollama_pull(request: web.Request, body: object) -> web.StreamResponse:
    """`POST /api/pull`: success for a model that is served; no other can be pulled."""
    wire = validated(ollama.OllamaPullBody, body)
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
    made = service.models[service.tasks.route(None, None).backend].provenance
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
    """`GET /ready`: 200 if every backend can serve a request now, else 503 with each one's reason."""
    served = request.app[SERVICE].all_models
    reasons = await asyncio.gather(*(_reason(model) for model in served.values()))
    status = 200 if not any(reasons) else 503
    backends = {name: reason or "ready" for name, reason in zip(served, reasons, strict=True)}
    return await send(
        request, {"status": "ready" if status == 200 else "not ready", "backends": backends}, status=status
    )


async def prometheus(request: web.Request) -> web.StreamResponse:
    """`GET /metrics`, for Prometheus."""
    return web.Response(body=await request.app[SCRAPE].text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _model(request: web.Request, name: str, row: Route) -> dict[str, object]:
    service, family, notice = request.app[SERVICE], request.app[FAMILY], request.app[NOTICE]
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
        "provenance": service.models[row.backend].provenance,
        **({"notice": notice} if notice else {}),
    }


def _rows(request: web.Request) -> dict[str, Route]:
    """The family's name, and one name per task."""
    tasks, name = request.app[SERVICE].tasks, request.app[FAMILY].name
    return {name: tasks.route(None, None), **{f"{name}:{task}": route for task, route in tasks.tasks.items()}}


def _made(request: web.Request) -> dict[str, Provenance]:
    models = request.app[SERVICE].models
    return {name: models[row.backend].provenance for name, row in _rows(request).items()}


def _started() -> datetime:
    return datetime.fromtimestamp(STARTED, UTC)


async def _reason(model: ServedModel) -> str | None:
    if model.report().state is State.PAUSED:  # starts on demand, or resumes in a moment: requests wait for it
        return None
    try:
        await model.check()
    except BackendError as error:
        return error.message
    return None
