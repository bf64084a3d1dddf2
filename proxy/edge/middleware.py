"""Around every request: an id, the key check, errors into the caller's body, one metric and one log line."""

import asyncio
import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import orjson
from aiohttp import web

from proxy import metrics
from proxy.edge.inflate import ENCODINGS
from proxy.errors import (
    BadRequest,
    Invalid,
    MalformedKey,
    MethodNotAllowed,
    MissingKey,
    NotFound,
    ProxyError,
    Unauthorized,
    UnsupportedEncoding,
)
from proxy.quoting import shown
from proxy.wire.dialect import ErrorRenderer, RenderedError

log = logging.getLogger("proxy.request")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
API_KEYS = web.AppKey("api_keys", tuple[str, ...])
STOPPING = web.AppKey("stopping", asyncio.Event)
REQUEST_ID = web.RequestKey("request_id", str)
SUMMARY = web.RequestKey("summary", str)
CLIENT = web.RequestKey("client", str)  # stands for the API key, which nobody else needs to know
REFUSALS = web.AppKey(
    "refusals", Mapping[str, ErrorRenderer]
)  # by route or `/first/`: dialects with an error body of their own

OPEN_PATHS = frozenset({"/", "/health", "/ready", "/openapi.json", "/docs"})  # to read: they hold no secrets
PROBES = frozenset({"/health", "/ready", "/metrics"})  # asked often: in the log only when they do not say 200
KEY_HEADERS = ("X-API-Key", "api-key", "x-goog-api-key")  # NIM and others; Azure's OpenAI client; Gemini's
LONGEST_PATH = 200  # characters in the log
SAFE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, and write its metric and its line when it is answered or its client has gone."""
    given = request.headers.get("X-Request-ID", "")
    request[REQUEST_ID] = given if SAFE_ID.fullmatch(given) else uuid.uuid4().hex
    started = time.perf_counter()
    status = 499  # nginx's number for a client that left before its answer
    try:
        response = await handler(request)
        status = response.status
    finally:
        # When the answer is on its way: it does not wait for our books.
        asyncio.get_running_loop().call_soon(_record, request, status, time.perf_counter() - started)
    if (request.app[STOPPING].is_set() or not request.content.is_eof()) and not response.prepared:
        response.force_close()  # said in the answer: the client sends its next request over another connection
    return response


async def mark(request: web.Request, response: web.StreamResponse) -> None:
    """Put the request's id on the answer that is about to begin."""
    response.headers["X-Request-ID"] = request[REQUEST_ID]


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what was raised into the error body that the route's clients read."""
    try:
        return await handler(request)
    except ProxyError as error:
        return _refused(error, request)
    except web.HTTPException as error:
        response = _refused(_translated(error, request), request)
        response.headers.update({name: value for name, value in error.headers.items() if name == "Allow"})
        return response
    except Exception:  # the last net: one broken request must not show its insides, nor end the others
        log.exception("%s: unexpected error", request[REQUEST_ID])
        return _refused(ProxyError("internal error; the log has it under this request id"), request)


@web.middleware
async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request pass that brings one of the configured keys; without configured keys, every request."""
    keys = request.app[API_KEYS]
    if keys and not is_open(request.method, request.path):
        key = _given_key(request)
        if True not in [hmac.compare_digest(_bytes(key), _bytes(known)) for known in keys]:  # no early end to time
            raise Unauthorized("the API key is not one of those that this server accepts")
        request[CLIENT] = hashlib.blake2b(_bytes(key), digest_size=8).hexdigest()
    return await handler(request)


def is_open(method: str, path: str) -> bool:
    """Whether this needs no key."""
    return path in OPEN_PATHS and method in {"GET", "HEAD"}


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")  # what a client sends need not be text


def _refused(error: ProxyError, request: web.Request) -> web.Response:
    refusal = _refuse(request)(error, request[REQUEST_ID])
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.queue_tokens is not None:
        headers["X-Queue-Tokens"] = str(error.queue_tokens)
    request[SUMMARY] = f" {error.code}"
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = ", ".join(ENCODINGS)
    body = orjson.dumps(refusal.body)
    response = web.Response(body=body, status=refusal.status, headers=headers, content_type="application/json")
    if error.closes:
        response.force_close()
    return response


def _refuse(request: web.Request) -> ErrorRenderer:
    """Who writes an error of this route; for a path without one, or another method, the dialect of its neighbours."""
    refusals, resource = request.app[REFUSALS], request.match_info.route.resource
    names = [resource.canonical] if resource else [request.path, f"/{request.path.strip('/').partition('/')[0]}/"]
    return next((refusals[name] for name in names if name in refusals), common_refusal)


def common_refusal(error: ProxyError, request_id: str) -> RenderedError:
    """The error body of the contract: `detail` is a flat string for Weaviate and Dify, `error` is for OpenAI's SDK."""
    body: dict[str, object] = {
        "detail": error.message,
        "code": error.code,
        "request_id": request_id,
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
    }
    if isinstance(error, Invalid):
        body["errors"] = error.faults
    return RenderedError(error.status, body)


def _given_key(request: web.Request) -> str:
    for header in KEY_HEADERS:
        if key := request.headers.get(header):
            return key
    authorization = request.headers.get("Authorization")
    if not authorization and (key := request.query.get("key")):  # Gemini's; the log has no queries
        return key
    if not authorization:
        raise MissingKey("no API key: send `Authorization: Bearer <key>`")
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise MalformedKey("the Authorization header is not `Bearer <key>`")
    return key.strip()


def _translated(error: web.HTTPException, request: web.Request) -> ProxyError:
    match error:
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(f"{shown(request.path)} takes {', '.join(sorted(error.allowed_methods))}")
        case web.HTTPNotFound():
            return NotFound(f"there is no {shown(request.path)} here")
        case _:
            return BadRequest(error.reason or HTTPStatus(error.status).phrase)


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unknown"


def _record(request: web.Request, status: int, seconds: float) -> None:
    route = _route(request)
    metrics.REQUESTS.labels(route, status).inc()
    metrics.SECONDS.labels(route).observe(seconds)
    summary = request.get(SUMMARY, "")
    level = logging.DEBUG if request.path in PROBES else logging.INFO
    path, ms = request.rel_url.raw_path[:LONGEST_PATH], seconds * 1e3
    line = f"{request.method} {path} {status} {ms:.1f} ms {request[REQUEST_ID]}{summary}"
    log.log(level, "%s", line)
