"""Every route and its handler. A dialect's handler parses the body, embeds and renders."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from aiohttp import web

from proxy import metrics
from proxy.batches import apis
from proxy.contract.family import Family
from proxy.dialects import cohere, gemini, jina, ollama, runpod, tei, voyage
from proxy.dialects.jobs import Job, Jobs
from proxy.edge import body
from proxy.edge.http_connection import connection_of
from proxy.edge.middleware import STATIC
from proxy.faults import Invalid, invalid
from proxy.http import openapi, pages, raw_floats
from proxy.http.batches import files as batch_files
from proxy.http.batches import jobs as batch_jobs
from proxy.http.console import api, page
from proxy.http.pages import FAMILY, SERVICE
from proxy.http.request_headers import with_headers
from proxy.http.responses import load_headers, provenance_headers, send
from proxy.models.admission import estimate
from proxy.scheduling.memory_budget import MemoryBudget, Reservation
from proxy.telemetry.observe import TIMING, USAGE, Handler
from proxy.telemetry.requests import UsageRecord
from proxy.types import FLOAT_BYTES, EmbedRequest, EmbedResult
from proxy.wire import json_body
from proxy.wire.dialect import Dialect, ErrorRenderer, Parse, ParsedRequest, Wire, validated

T = TypeVar("T")
W = TypeVar("W", bound=Wire)
JOBS = web.AppKey("jobs", Jobs)
BODY_MEMORY = web.AppKey("body_memory", MemoryBudget)
RESPONSE_MEMORY = web.AppKey("response_memory", MemoryBudget)
BODY_LIMITS = web.AppKey("body_limits", body.BodyLimits)


def embed_handler(parse: Parse) -> Handler:
    """Handler of a dialect: returns the vectors in its shape, or as raw floats if the client prefers those."""

    async def embed(request: web.Request) -> web.StreamResponse:
        with request.app[BODY_MEMORY].room() as room:
            parsed = await _parsed_request(request, parse, room)
            raw = raw_floats.preferred_type(",".join(request.headers.getall("Accept", ())))
            if raw and parsed.request.multivector:
                message = "has no raw form, as each text has its own number of vectors: leave out `Accept`"
                raise invalid("return_multivector", message, kind="unsupported", given="true")
            with _response_memory(request, _size(parsed.request, request.app[FAMILY])):
                return await _embedded(request, parsed, raw)

    return embed


async def _embedded(request: web.Request, parsed: ParsedRequest, raw: str | None) -> web.StreamResponse:
    # Raw floats cannot carry the errors of single inputs.
    result = await request.app[SERVICE].embed(replace(parsed.request, partial=False) if raw else parsed.request)
    asyncio.get_running_loop().call_soon(_observe, request, result)  # after the response is sent
    headers = {**provenance_headers(result), **load_headers(request.app[SERVICE].load())}
    if raw:
        return raw_floats.response(raw, result, headers)
    return await send(request, parsed.render(result), headers=headers)


def job_handler(parse: Parse) -> Handler:
    """Handler of an asynchronous dialect: returns a job, or a failed job if the body is invalid."""

    async def submit(request: web.Request) -> web.StreamResponse:
        jobs = request.app[JOBS]
        with request.app[BODY_MEMORY].room() as room:
            try:
                parsed = await _parsed_request(request, parse, room)
            except Invalid as error:
                return await _job_response(request, jobs.reject(error))
            return await _job_response(request, jobs.submit(parsed, room))

    return submit


def with_body(page: Callable[[web.Request, W], Awaitable[web.StreamResponse]], model: type[W]) -> Handler:
    """Handler of a page whose request has a JSON body of that model."""

    @functools.wraps(page)
    async def answer(request: web.Request) -> web.StreamResponse:
        with request.app[BODY_MEMORY].room() as room:
            return await page(request, await _parsed_body(request, functools.partial(validated, model), room))

    return answer


async def count_tokens(request: web.Request) -> web.StreamResponse:
    """`POST /v1/embeddings/count_tokens`: the tokens that the body's texts have; no vector is computed."""
    with request.app[BODY_MEMORY].room() as room:
        parsed = await _parsed_request(request, jina.parse, room)
        return await send(request, {"input_tokens": await request.app[SERVICE].count_tokens(parsed.request)})


async def job_status(request: web.Request) -> web.StreamResponse:
    """`GET /status/{id}`: a job of `/run`, with its output once it is completed."""
    job = request.app[JOBS].fetch(request.match_info["id"])
    with _response_memory(request, job.size):
        return await _job_response(request, job)


async def cancel_job(request: web.Request) -> web.StreamResponse:
    """`POST /cancel/{id}`: stop a job of `/run`."""
    return await _job_response(request, request.app[JOBS].cancel(request.match_info["id"]))


async def _parsed_request(request: web.Request, parse: Parse, room: Reservation) -> ParsedRequest:
    return with_headers(request, await _parsed_body(request, parse, room))


async def _parsed_body(request: web.Request, parse: Callable[[object], T], room: Reservation) -> T:
    read = await body.read_body(request, room, request.app[BODY_LIMITS])
    return await json_body.parsed(read, parse, request.app[SERVICE].limits.items)


@contextmanager
def _response_memory(request: web.Request, size: int) -> Iterator[None]:
    """Reserve memory for a response's vectors until it is sent. Raises Crowded."""
    with request.app[RESPONSE_MEMORY].room() as room:
        room.grow(size)
        with room.used_by(connection_of(request)):
            yield


def _size(request: EmbedRequest, family: Family) -> int:
    """About how many bytes the vectors take while they are computed: with all dimensions, whatever was requested."""
    if not request.multivector or not family.multivector:
        return len(request.inputs) * family.dimensions * FLOAT_BYTES
    return estimate(request.inputs) * family.multivector.dimensions * FLOAT_BYTES


async def _job_response(request: web.Request, job: Job) -> web.StreamResponse:
    return await send(request, runpod.state_of(job), headers=provenance_headers(job.result) if job.result else None)


def _observe(request: web.Request, result: EmbedResult) -> None:
    request[TIMING] = result.timing
    request[USAGE] = UsageRecord(
        task=result.task,
        inputs=result.inputs,
        tokens=result.tokens,
        wait_s=result.timing.wait_s,
        compute_s=result.timing.compute_s,
    )
    metrics.INPUTS.labels(result.task).inc(result.inputs)
    metrics.TOKENS.labels(result.task).inc(result.tokens)


DIALECTS: Sequence[Dialect] = (
    *jina.DIALECTS,
    *runpod.DIALECTS,
    *ollama.DIALECTS,
    *tei.DIALECTS,
    *cohere.DIALECTS,
    *gemini.DIALECTS,
    *voyage.DIALECTS,
)
ROUTES: Sequence[web.RouteDef] = (
    *(
        web.post(path, (job_handler if one.asynchronous else embed_handler)(one.parse))
        for one in DIALECTS
        for path in one.paths
    ),
    *(web.get(path, job_status) for path in runpod.STATUS_PATHS),
    *(web.post(path, cancel_job) for path in runpod.CANCEL_PATHS),
    web.get("/", page.root),
    web.get("/api/tags", pages.ollama_tags),
    web.get("/api/ps", pages.ollama_running),
    web.post("/api/show", with_body(pages.ollama_show, ollama.OllamaShowBody)),
    web.post("/api/pull", with_body(pages.ollama_pull, ollama.OllamaPullBody)),
    web.get("/api/version", pages.ollama_version),
    web.get("/info", pages.tei_info),
    web.post("/v1/embeddings/count_tokens", count_tokens),
    *(web.get(path, pages.models) for path in pages.LISTS),
    web.get("/v1/models/{id}", pages.model),
    web.post("/v1/files", batch_files.upload_file),
    web.get("/v1/files", batch_files.list_files),
    web.get("/v1/files/{id}", batch_files.get_file),
    web.delete("/v1/files/{id}", batch_files.delete_file),
    web.get("/v1/files/{id}/content", batch_files.file_content),
    web.post("/v1/batches", with_body(batch_jobs.create_batch, apis.CreateBatchBody)),
    web.get("/v1/batches", batch_jobs.list_batches),
    web.get("/v1/batches/{id}", batch_jobs.get_batch),
    web.post("/v1/batches/{id}/cancel", batch_jobs.cancel_batch),
    web.post("/v1/batch/embeddings", with_body(batch_jobs.submit_batch, apis.BatchEmbeddingsBody)),
    web.get("/v1/batch/{id:batch_[^/]+}", batch_jobs.batch_status),
    web.delete("/v1/batch/{id:batch_[^/]+}", batch_jobs.delete_batch),
    web.get("/v1/batch/{id:batch_[^/]+}/output", batch_jobs.batch_output),
    web.get("/v1/batch/{id:batch_[^/]+}/errors", batch_jobs.batch_errors),
    web.get("/health", pages.health),
    web.get("/ready", pages.ready),
    web.get("/metrics", pages.prometheus),
    web.get("/openapi.json", openapi.document_json),
)
CONSOLE_ROUTES: Sequence[web.RouteDef] = (
    web.get(f"{STATIC}{{name:.+}}", page.static_file),
    web.get("/docs", page.api_page),
    web.get("/console/state", api.state),
    web.get("/console/events", api.event_stream),
    web.post("/console/tokens", with_body(api.tokens, api.TokensBody)),
    web.post("/console/reload", api.reload_configuration),
    web.post("/console/backends/{name}/{verb:restart|pause|resume}", api.act),
)

# The error renderer of a route, or of unknown paths below a prefix; all others use the common error body.
RENDERERS_BY_PATH: Mapping[str, ErrorRenderer] = {
    **{path: one.render_error for one in DIALECTS if one.render_error for path in one.paths},
    **dict.fromkeys((*runpod.STATUS_PATHS, *runpod.CANCEL_PATHS), runpod.render_error),
    **dict.fromkeys(("/api/tags", "/api/ps", "/api/show", "/api/pull", "/api/version", "/api/"), ollama.render_error),
    "/v1beta/": gemini.render_error,
    "/info": tei.render_error,
}
