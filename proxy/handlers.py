"""One function per route: parse, call, render."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from proxy import cohere, docs, jina, json_body, metrics, ollama, openapi, provenance, raw_floats, runpod, tei
from proxy.config import Family
from proxy.embedding import EmbedResult
from proxy.errors import BackendError, Invalid, ModelNotServed, NotJson, invalid
from proxy.jobs import Job, Jobs
from proxy.middleware import CLIENT, SUMMARY, Handler
from proxy.model import ServedModel
from proxy.opening import State
from proxy.service import EmbedService
from proxy.tasks import Route
from proxy.wire import Asked, Door, Parse, Refuse
from proxy.writing import send

SERVICE = web.AppKey("service", EmbedService)
JOBS = web.AppKey("jobs", Jobs)
FAMILY = web.AppKey("family", Family)
NOTICE = web.AppKey("notice", str)
STARTED = int(time.time())


def door(parse: Parse) -> Handler:
    """The handler of one dialect: its JSON in, the vectors in its shape out, or as raw floats for who accepts those."""

    async def embed(request: web.Request) -> web.StreamResponse:
        asked = await _asked(request, parse)
        raw = raw_floats.wanted(request.headers.get("Accept", ""))
        if raw and asked.request.multivector:
            message = "has no raw form, as each text has its own number of vectors: leave out `Accept`"
            raise invalid("return_multivector", message, kind="unsupported", given="true")
        # Bare floats have no place for the errors of a part.
        result = await request.app[SERVICE].embed(replace(asked.request, partial=False) if raw else asked.request)
        asyncio.get_running_loop().call_soon(_observe, request, result)  # when the answer is on its way
        headers = provenance.headers(result)
        if raw:
            return raw_floats.response(raw, result, headers)
        return await send(request, asked.render(result), headers=headers)

    return embed


def job_door(parse: Parse) -> Handler:
    """The handler of a dialect whose caller comes back for the answer: its JSON in, a job out, if only a failed one."""

    async def submit(request: web.Request) -> web.StreamResponse:
        jobs = request.app[JOBS]
        try:
            asked = await _asked(request, parse)
        except Invalid as error:
            return await _job_answer(request, jobs.reject(error))
        return await _job_answer(request, jobs.submit(asked))

    return submit


async def job_status(request: web.Request) -> web.StreamResponse:
    """`GET /status/{id}`: a job of `/run`, with its output once it is completed."""
    return await _job_answer(request, request.app[JOBS].fetch(request.match_info["id"]))


async def cancel_job(request: web.Request) -> web.StreamResponse:
    """`POST /cancel/{id}`: stop a job of `/run`."""
    return await _job_answer(request, request.app[JOBS].cancel(request.match_info["id"]))


async def ollama_tags(request: web.Request) -> web.StreamResponse:
    """`GET /api/tags`: the names of `/v1/models`, as Ollama lists them."""
    models = request.app[SERVICE].models
    made = {name: models[row.backend].provenance for name, row in _rows(request).items()}
    return await send(request, ollama.tags(request.app[FAMILY].name, made))


async def ollama_version(request: web.Request) -> web.StreamResponse:
    """`GET /api/version`: the version of Ollama whose API is spoken here."""
    return await send(request, {"version": ollama.API_VERSION})


async def tei_info(request: web.Request) -> web.StreamResponse:
    """`GET /info`: the model of the default task, as text-embeddings-inference tells it."""
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
    """`GET /v1/models/{id}`: one of them."""
    name, rows = request.match_info["id"], _rows(request)
    if name not in rows:
        raise ModelNotServed(f"model {name!r} is not served here; served are: {', '.join(rows)}", param="model")
    return await send(request, _model(request, name, rows[name]))


async def health(request: web.Request) -> web.StreamResponse:
    """`GET /health`: the proxy is alive."""
    return await send(request, {"status": "ok"})


async def ready(request: web.Request) -> web.StreamResponse:
    """`GET /ready`: 200 if every backend would serve a request now, else 503 with each one's reason."""
    served = request.app[SERVICE].models
    reasons = await asyncio.gather(*(_reason(model) for model in served.values()))
    status = 200 if not any(reasons) else 503
    backends = {name: reason or "ready" for name, reason in zip(served, reasons, strict=True)}
    return await send(
        request, {"status": "ready" if status == 200 else "not ready", "backends": backends}, status=status
    )


async def prometheus(_: web.Request) -> web.StreamResponse:
    """`GET /metrics`, for Prometheus."""
    return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _asked(request: web.Request, parse: Parse) -> Asked:
    body = await _body(request)
    return _called(request, await json_body.parsed(body, parse, request.app[SERVICE].limits.items))


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.RequestPayloadError as error:  # e.g. a Content-Encoding that the body does not have
        raise NotJson(f"the body cannot be read: {error}") from error


def _called(request: web.Request, asked: Asked) -> Asked:
    """What was asked, with who asks and until when it makes sense to answer. Raises Invalid."""
    client, timeout_s = request.get(CLIENT, ""), None
    if given := request.headers.get("X-Request-Timeout"):
        timeout_s = _seconds(given)
    if not client and timeout_s is None:
        return asked
    return Asked(replace(asked.request, client=client, timeout_s=timeout_s), asked.render)


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise invalid("X-Request-Timeout", "must be a number of seconds above 0", kind="out_of_range", given=given)
    return seconds


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
        "provenance": service.models[row.backend].provenance,
        **({"notice": notice} if notice else {}),
    }


def _rows(request: web.Request) -> dict[str, Route]:
    """The family's name, and one name per task."""
    tasks, name = request.app[SERVICE].tasks, request.app[FAMILY].name
    return {name: tasks.route(None, None), **{f"{name}:{task}": route for task, route in tasks.tasks.items()}}


async def _job_answer(request: web.Request, job: Job) -> web.StreamResponse:
    return await send(request, runpod.state_of(job), headers=provenance.headers(job.result) if job.result else None)


def _observe(request: web.Request, result: EmbedResult) -> None:
    request[SUMMARY] = f" {result.task} inputs={result.inputs} tokens={result.tokens}"
    metrics.INPUTS.labels(result.task).inc(result.inputs)
    metrics.TOKENS.labels(result.task).inc(result.tokens)


async def _reason(model: ServedModel) -> str | None:
    if model.report().state is State.HELD:  # it comes when it is asked for, or in a moment: a request waits
        return None
    try:
        await model.check()
    except BackendError as error:
        return error.message
    return None


DOORS: Sequence[Door] = (jina.DOOR, *runpod.DOORS, *ollama.DOORS, tei.DOOR, *cohere.DOORS)
ROUTES: Sequence[web.RouteDef] = (
    *(web.post(path, (job_door if one.later else door)(one.parse)) for one in DOORS for path in one.paths),
    *(web.get(prefix + "/status/{id}", job_status) for prefix in runpod.PREFIXES),
    *(web.post(prefix + "/cancel/{id}", cancel_job) for prefix in runpod.PREFIXES),
    web.get("/api/tags", ollama_tags),
    web.get("/api/version", ollama_version),
    web.get("/info", tei_info),
    web.get("/v1/models", models),
    web.get("/v1/models/{id}", model),
    web.get("/models", models),
    web.get("/health", health),
    web.get("/ready", ready),
    web.get("/metrics", prometheus),
    web.get("/openapi.json", openapi.document_json),
    web.get("/docs", docs.page),
)

# Who writes the errors of a route; everywhere else it is the common body.
REFUSALS: Mapping[str, Refuse] = {
    **{path: one.refuse for one in DOORS if one.refuse for path in one.paths},
    **{prefix + path: runpod.refuse for prefix in runpod.PREFIXES for path in ("/status/{id}", "/cancel/{id}")},
    **dict.fromkeys(("/api/tags", "/api/version"), ollama.refuse),
    "/info": tei.refuse,
}
