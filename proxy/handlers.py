"""One function per route: parse, call, render."""

import asyncio
import time
from collections.abc import Sequence

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from proxy import jina, metrics
from proxy.config import Family
from proxy.errors import BackendError, NotJson
from proxy.middleware import SUMMARY
from proxy.model import ServedModel
from proxy.service import EmbedService

SERVICE = web.AppKey("service", EmbedService)
FAMILY = web.AppKey("family", Family)
NOTICE = web.AppKey("notice", str)
STARTED = int(time.time())


async def embeddings(request: web.Request) -> web.Response:
    """`POST /v1/embeddings`, of Jina and of OpenAI."""
    wanted = jina.parse(await _json(request))
    result = await request.app[SERVICE].embed(wanted)
    request[SUMMARY] = f" {result.task} texts={len(wanted.texts)} tokens={result.tokens}"
    metrics.TEXTS.labels(result.task).inc(len(wanted.texts))
    metrics.TOKENS.labels(result.task).inc(result.tokens)
    return _answer(jina.render(result, wanted.encodings))


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
    names = [family.name, *(f"{family.name}:{task}" for task in service.tasks.tasks)]
    return _answer({"object": "list", "data": [{"id": name, **common} for name in names]})


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


def _answer(body: object, *, status: int = 200) -> web.Response:
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=content, status=status, content_type="application/json")


async def _reason(model: ServedModel) -> str | None:
    try:
        await model.check()
    except BackendError as error:
        return error.message
    return None


ROUTES: Sequence[web.RouteDef] = (
    web.post("/v1/embeddings", embeddings),
    web.post("/embeddings", embeddings),
    web.get("/v1/models", models),
    web.get("/models", models),
    web.get("/health", health),
    web.get("/ready", ready),
    web.get("/metrics", prometheus),
)
