"""One function per route: parse, call, render."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from proxy import jina, metrics, provenance, raw_floats
from proxy.config import Family
from proxy.embedding import EmbedResult
from proxy.errors import BackendError, NotJson
from proxy.middleware import SUMMARY, Handler
from proxy.model import ServedModel
from proxy.service import EmbedService
from proxy.wire import Parse

SERVICE = web.AppKey("service", EmbedService)
FAMILY = web.AppKey("family", Family)
NOTICE = web.AppKey("notice", str)
STARTED = int(time.time())


def door(parse: Parse) -> Handler:
    """The handler of one dialect: its JSON in, the vectors in its shape out, or as raw floats for who accepts those."""

    async def embed(request: web.Request) -> web.Response:
        asked = parse(await _json(request))
        result = await request.app[SERVICE].embed(asked.request)
        _observe(request, len(asked.request.inputs), result)
        headers = provenance.headers(result)
        if raw := raw_floats.wanted(request.headers.get("Accept", "")):
            return raw_floats.response(raw, result, headers)
        return _answer(asked.render(result), headers=headers)

    return embed


async def models(request: web.Request) -> web.Response:
    """`GET /v1/models`: the family, and one name per task for clients that can set only the model."""
    service, family = request.app[SERVICE], request.app[FAMILY]
    common: dict[str, object] = {
        "object": "model",
        "created": STARTED,
        "owned_by": family.owned_by,
        "context_length": service.limits.input_tokens,
        "hugging_face_id": family.hugging_face_id,
        "dimensions": family.dimensions,
        "trained_dimensions": family.trained_dimensions,
        "licence": family.licence,
    }
    if notice := request.app[NOTICE]:
        common["notice"] = notice
    rows = {family.name: service.tasks.route(None, None)}
    rows |= {f"{family.name}:{task}": route for task, route in service.tasks.tasks.items()}
    listed = [
        {
            "id": name,
            **common,
            "task": row.task,
            "prefix": row.prefix,
            "provenance": service.models[row.backend].provenance,
        }
        for name, row in rows.items()
    ]
    return _answer({"object": "list", "data": listed})


async def health(_: web.Request) -> web.Response:
    """`GET /health`: the proxy is alive."""
    return _answer({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """`GET /ready`: 200 if every backend would serve a request now, else 503 with each one's reason."""
    served = request.app[SERVICE].models
    reasons = await asyncio.gather(*(_reason(model) for model in served.values()))
    status = 200 if not any(reasons) else 503
    backends = {name: reason or "ready" for name, reason in zip(served, reasons, strict=True)}
    return _answer({"status": "ready" if status == 200 else "not ready", "backends": backends}, status=status)


async def prometheus(_: web.Request) -> web.Response:
    """`GET /metrics`, for Prometheus."""
    return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _json(request: web.Request) -> object:
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise NotJson(f"the body is not JSON: {error}") from error


def _answer(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=content, status=status, headers=headers, content_type="application/json")


def _observe(request: web.Request, inputs: int, result: EmbedResult) -> None:
    request[SUMMARY] = f" {result.task} inputs={inputs} tokens={result.tokens}"
    metrics.INPUTS.labels(result.task).inc(inputs)
    metrics.TOKENS.labels(result.task).inc(result.tokens)


async def _reason(model: ServedModel) -> str | None:
    try:
        await model.check()
    except BackendError as error:
        return error.message
    return None


ROUTES: Sequence[web.RouteDef] = (
    web.post("/v1/embeddings", door(jina.parse)),
    web.post("/embeddings", door(jina.parse)),
    web.get("/v1/models", models),
    web.get("/models", models),
    web.get("/health", health),
    web.get("/ready", ready),
    web.get("/metrics", prometheus),
)
