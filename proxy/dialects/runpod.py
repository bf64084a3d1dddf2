"""RunPod's worker API: Jina's body inside `input`, synchronous (`/runsync`) or as a job (`/run`, `/status/{id}`).

Sources: the README, parser and engine of the public RunPod worker for jina-embeddings-v4 (its default task, its base64
of packed bits); the package `runpod` 1.12 (paths, final states, how its clients handle each status).
"""

import time
import uuid
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from proxy.dialects import jina
from proxy.dialects.jobs import Job, JobStatus
from proxy.errors import (
    BackendUnavailable,
    BodyTooLarge,
    Draining,
    ExpectationFailed,
    ForeignHost,
    ForeignOrigin,
    MethodNotAllowed,
    NotFound,
    NotJson,
    Overloaded,
    ProxyError,
    TooSlow,
    Unauthorized,
    UnsupportedEncoding,
)
from proxy.types import EmbedResult
from proxy.wire import encodings as encode
from proxy.wire.answer_models import EmbeddingsAnswer
from proxy.wire.dialect import Dialect, ParsedRequest, RenderedError, Wire, validated

DEFAULT_TASK = "retrieval.passage"

# A failed job is HTTP 200 to RunPod's clients. Errors before a job exists, and errors worth a retry, stay HTTP errors:
# the clients take a failed job's missing output for an answer, but an HTTP error for an error.
HTTP_ERRORS = (
    Unauthorized,
    ForeignHost,
    ForeignOrigin,
    NotFound,
    MethodNotAllowed,
    TooSlow,
    BodyTooLarge,
    UnsupportedEncoding,
    ExpectationFailed,
    NotJson,
    Overloaded,
    BackendUnavailable,
    Draining,
)


def _no_webhook(_: object) -> object:
    raise ValueError("is not supported: poll /status/{id}, or use /runsync")


class RunBody(Wire):
    """The request of the embeddings API in RunPod's envelope; `task` is `retrieval.passage` if the family has that."""

    input: jina.EmbeddingsBody
    webhook: Annotated[object, AfterValidator(_no_webhook), WithJsonSchema({"type": "null"})] = Field(
        None, description="Not supported: rejected."
    )


class RunAnswer(BaseModel):
    """The state of a request; `output` if it completed, `error` if it failed. Times are in milliseconds."""

    id: str
    status: JobStatus
    output: EmbeddingsAnswer | None = None
    error: str | None = None
    delayTime: int | None = None  # noqa: N815 # the wire's own name
    executionTime: int | None = None  # noqa: N815


class FailedAnswer(BaseModel):
    id: str
    status: Literal["FAILED"]
    error: str


def parse(body: object) -> ParsedRequest:
    """`/runsync`: the request, rendered in the envelope of a completed job. Raises Invalid."""
    parsed, started = parse_job(body), time.perf_counter()

    def render(result: EmbedResult) -> object:
        return {
            "id": f"sync-{uuid.uuid4()}",
            "status": JobStatus.COMPLETED,
            "output": parsed.render(result),
            "delayTime": 0,
            "executionTime": _ms(time.perf_counter() - started),
        }

    return ParsedRequest(parsed.request, render)


def parse_job(body: object) -> ParsedRequest:
    """`/run`: the request, rendered as the job's `output`. Raises Invalid."""
    request = replace(jina.embed_request(validated(RunBody, body).input), default_task=DEFAULT_TASK)
    encodings = request.encodings  # not the request itself: a job keeps its renderer, which must not keep the texts
    return ParsedRequest(request, lambda result: jina.render(result, encodings, encode.BITS_PACKED_BASE64))


def state_of(job: Job) -> dict[str, object]:
    """The body of `/status/{id}`."""
    body: dict[str, object] = {"id": job.id, "status": job.status}
    if job.result is not None:
        body["output"] = job.render(job.result)
    if job.error is not None:
        body["error"] = job.error
    if job.started is not None:
        body["delayTime"] = _ms(job.started - job.submitted)
        if job.ended is not None:
            body["executionTime"] = _ms(job.ended - job.started)
    return body


def render_error(error: ProxyError, request_id: str) -> RenderedError:
    """An error as a failed job."""
    status = error.status if isinstance(error, HTTP_ERRORS) else 200
    return RenderedError(status, {"id": request_id, "status": JobStatus.FAILED, "error": error.message})


def _ms(seconds: float) -> int:
    return round(seconds * 1e3)


PREFIXES = ("", "/v2/{endpoint}")  # as the worker itself serves it, and as RunPod's API does
STATUS_PATHS = [prefix + "/status/{id}" for prefix in PREFIXES]
CANCEL_PATHS = [prefix + "/cancel/{id}" for prefix in PREFIXES]
DIALECTS = (
    Dialect(
        paths=[prefix + "/runsync" for prefix in PREFIXES],
        summary="Embed texts: RunPod's worker",
        parse=parse,
        body=RunBody,
        answer=RunAnswer,
        render_error=render_error,
        error=FailedAnswer,
    ),
    Dialect(
        paths=[prefix + "/run" for prefix in PREFIXES],
        summary="Embed texts as a job of RunPod's worker",
        parse=parse_job,
        body=RunBody,
        answer=RunAnswer,
        raw=False,
        asynchronous=True,
        render_error=render_error,
        error=FailedAnswer,
    ),
)
