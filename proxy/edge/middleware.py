"""What surrounds every handler: the key check, and errors rendered for the client."""

import hmac
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import orjson
from aiohttp import web

from proxy.edge.inflate import ENCODINGS
from proxy.errors import (
    BadRequest,
    MalformedKey,
    MethodNotAllowed,
    MissingKey,
    NotFound,
    ProxyError,
    Unauthorized,
    UnsupportedEncoding,
)
from proxy.faults import Invalid
from proxy.quoting import shown
from proxy.telemetry.observe import CLIENT, ERROR_CODE, REQUEST_ID, Handler
from proxy.types import client_of
from proxy.wire.dialect import ErrorRenderer, RenderedError

log = logging.getLogger("proxy.request")

API_KEYS = web.AppKey("api_keys", tuple[str, ...])
ADMIN_KEYS = web.AppKey("admin_keys", tuple[str, ...])
ADMIN = web.RequestKey("admin", bool)  # whether it came with an admin key
# By route or `/first/`: dialects with an error body of their own.
ERROR_RENDERERS = web.AppKey("error_renderers", Mapping[str, ErrorRenderer])

OPEN_PATHS = frozenset({"/", "/health", "/ready", "/openapi.json", "/docs"})  # readable without a key: no secrets
STATIC = "/console/static/"  # the console's page without what it shows: needs no key
KEY_HEADERS = ("X-API-Key", "api-key", "x-goog-api-key")  # NIM and others; Azure's OpenAI client; Gemini's


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Render any exception as the error body of the route's API."""
    try:
        return await handler(request)
    except ProxyError as error:
        return await _error_response(error, request)
    except web.HTTPException as error:
        response = await _error_response(_translated(error, request), request)
        response.headers.update({name: value for name, value in error.headers.items() if name == "Allow"})
        return response
    except Exception as error:  # the last resort: a broken request must not leak a traceback, nor affect other requests
        if isinstance(error, ConnectionError) and _has_left(request):
            raise  # nobody reads an answer
        log.exception("%s: unexpected error", request[REQUEST_ID])
        return await _error_response(ProxyError("internal error; the log has it under this request id"), request)


def _has_left(request: web.Request) -> bool:
    """Whether the client has disconnected."""
    return request.transport is None or request.transport.is_closing()


@web.middleware
async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises Unauthorized unless the request has one of the configured keys, or none are configured.

    An admin key is an API key, too; where clients need no key it is only looked for.
    """
    keys, admins = request.app[API_KEYS], request.app[ADMIN_KEYS]
    if not (keys or admins) or is_open(request.method, request.path):
        return await handler(request)
    key = _given_key(request) if keys else _key_if_given(request)
    known, request[ADMIN] = _is_one_of(key, keys), _is_one_of(key, admins)
    if keys:
        if not (known or request[ADMIN]):
            raise Unauthorized("the API key is not one of those that this server accepts")
        request[CLIENT] = client_of(key)
    return await handler(request)


def is_open(method: str, path: str) -> bool:
    """Whether the route needs no key."""
    return (path in OPEN_PATHS or path.startswith(STATIC)) and method in {"GET", "HEAD"}


def _is_one_of(key: str, known: Sequence[str]) -> bool:
    return True in [hmac.compare_digest(_bytes(key), _bytes(one)) for one in known]  # in constant time


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")  # a header can hold bytes that are not text


async def _error_response(error: ProxyError, request: web.Request) -> web.Response:
    rendered = (await _renderer(request))(error, request[REQUEST_ID])
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.queue_tokens is not None:
        headers["X-Queue-Tokens"] = str(error.queue_tokens)
    request[ERROR_CODE] = error.code
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = ", ".join(ENCODINGS)
    body = orjson.dumps(rendered.body)
    response = web.Response(body=body, status=rendered.status, headers=headers, content_type="application/json")
    if error.closes:
        response.force_close()
    return response


async def _renderer(request: web.Request) -> ErrorRenderer:
    """The renderer of the path's errors; of an unknown path, that of the paths beside it."""
    path = await _path_of_route(request) or f"/{request.path.strip('/').partition('/')[0]}/"
    return request.app[ERROR_RENDERERS].get(path, render_common_error)


async def _path_of_route(request: web.Request) -> str | None:
    """The path of its route as it is declared, whatever the method; None if there is none."""
    if resource := request.match_info.route.resource:
        return resource.canonical
    for one in request.app.router.resources():  # of another method
        _, methods = await one.resolve(request)
        if methods:
            return one.canonical
    return None


def render_common_error(error: ProxyError, request_id: str) -> RenderedError:
    """The common error body: `detail` is a flat string for Weaviate and Dify, `error` is for OpenAI's SDK."""
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
    if not authorization and (key := request.query.get("key")):  # Gemini's; the log leaves out query strings
        return key
    if not authorization:
        raise MissingKey("no API key: send `Authorization: Bearer <key>`")
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise MalformedKey("the Authorization header is not `Bearer <key>`")
    return key.strip()


def _key_if_given(request: web.Request) -> str:
    try:
        return _given_key(request)
    except Unauthorized:
        return ""


def _translated(error: web.HTTPException, request: web.Request) -> ProxyError:
    match error:
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(f"{shown(request.path)} takes {', '.join(sorted(error.allowed_methods))}")
        case web.HTTPNotFound():
            return NotFound(f"there is no {shown(request.path)} on this server")
        case _:
            return BadRequest(error.reason or HTTPStatus(error.status).phrase)
