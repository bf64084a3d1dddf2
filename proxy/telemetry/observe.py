"""The outermost middleware: a request gets its id and its trace, and is recorded once it is answered."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy import metrics
from proxy.telemetry.request_line import RequestLine
from proxy.telemetry.requests import RequestLog, RequestRecord, UsageRecord
from proxy.telemetry.spans import RequestSpan, Tracer
from proxy.telemetry.timing import Timing
from proxy.telemetry.trace_context import TraceContext, given_context

log = logging.getLogger("proxy.request")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
REQUEST_LOG = web.AppKey("request_log", RequestLog)  # absent without a console
TRACER = web.AppKey("tracer", Tracer)  # absent unless spans are sent somewhere
STOPPING = web.AppKey("stopping", asyncio.Event)
REQUEST_ID = web.RequestKey("request_id", str)
TRACE = web.RequestKey("trace", TraceContext)  # absent where there is none
CLIENT = web.RequestKey("client", str)  # a hash of the API key: the key itself goes no further
ERROR_CODE = web.RequestKey("error_code", str)
USAGE = web.RequestKey("usage", UsageRecord)
TIMING = web.RequestKey("timing", Timing)
_SPAN = web.RequestKey("span", RequestSpan)

PROBES = frozenset({"/health", "/ready", "/metrics"})  # requested often: logged at DEBUG
OF_CONSOLE = "/console/"  # not in the list of requests that it shows; logged at DEBUG but for an operator's actions
SAFE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id; record its metric and its log line when it is answered or its client disconnected."""
    given = request.headers.get("X-Request-ID", "")
    request[REQUEST_ID] = given if SAFE_ID.fullmatch(given) else uuid.uuid4().hex
    started = time.perf_counter()
    _begin_trace(request)
    status = 499  # nginx's status for a client that disconnected before the response
    try:
        response = await handler(request)
        status = response.status
    finally:
        # After the response is sent, which must not wait for it.
        asyncio.get_running_loop().call_soon(_record, request, status, time.perf_counter() - started)
    if (request.app[STOPPING].is_set() or not request.content.is_eof()) and not response.prepared:
        response.force_close()  # with `Connection: close`: the client opens a new connection for its next request
    return response


async def add_ids(request: web.Request, response: web.StreamResponse) -> None:
    """Name the request and its trace in the head of the response that is about to start."""
    response.headers["X-Request-ID"] = request[REQUEST_ID]
    if trace := request.get(TRACE):
        response.headers["traceparent"] = trace.traceparent


def _begin_trace(request: web.Request) -> None:
    """Take up the trace that the client names; where spans are sent, begin ours in it, or in a new one."""
    trace = given_context(request.headers)
    if TRACER in request.app and not _of_operators(request):
        span = request[_SPAN] = request.app[TRACER].begin(request.method, _route(request), trace)
        trace = span.context
    if trace:
        request[TRACE] = trace


def _record(request: web.Request, status: int, seconds: float) -> None:
    record = _recorded(request, status, seconds)
    metrics.REQUESTS.labels(record.route, status).inc()
    metrics.SECONDS.labels(record.route).observe(seconds)
    of_operators = _of_operators(request)
    if REQUEST_LOG in request.app and not of_operators and (record.route, record.method) != ("/", "GET"):
        request.app[REQUEST_LOG].add(record)
    if span := request.get(_SPAN):
        span.end(record, request.get(TIMING))
    acts = request.path.startswith(OF_CONSOLE) and request.method != "GET"
    level = logging.INFO if acts or not of_operators else logging.DEBUG
    log.log(level, RequestLine(record, request.rel_url.raw_path))


def _of_operators(request: web.Request) -> bool:
    """Whether it serves to watch the server, and is no client's."""
    return request.path in PROBES or request.path.startswith(OF_CONSOLE)


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unknown"


def _recorded(request: web.Request, status: int, seconds: float) -> RequestRecord:
    trace = request.get(TRACE)
    return RequestRecord(
        id=request[REQUEST_ID],
        at=time.time() - seconds,
        method=request.method,
        route=_route(request),
        status=status,
        seconds=seconds,
        client=request.get(CLIENT) or request.remote or "",
        error=request.get(ERROR_CODE, ""),
        usage=request.get(USAGE),
        trace=trace.trace_id if trace else "",
    )
