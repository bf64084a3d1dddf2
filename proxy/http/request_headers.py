"""What the path and the headers of a request add to its body: the model, the client, its timeout, its lane."""

import math
from dataclasses import replace

from aiohttp import web

from proxy.contract.admin import LANE_HEADER
from proxy.faults import invalid
from proxy.http.pages import SERVICE
from proxy.telemetry.observe import CLIENT, REQUEST_ID, TRACE
from proxy.wire.dialect import ParsedRequest


def with_headers(request: web.Request, parsed: ParsedRequest) -> ParsedRequest:
    """The request with the path's model, the client, its timeout and the request's id. Raises Invalid."""
    timeout = request.headers.get("X-Request-Timeout")
    complete = replace(
        parsed.request,
        model=_model(request, parsed.request.model),
        client=request.get(CLIENT, ""),
        timeout_s=_seconds(timeout) if timeout else None,
        bulk=_is_bulk(request.headers.get(LANE_HEADER, "")),
        request_id=request[REQUEST_ID],
        trace=request.get(TRACE),
    )
    return replace(parsed, request=complete)


def _model(request: web.Request, of_body: str | None) -> str | None:
    """The model in Azure's and Gemini's paths; for a deployment of another name, the body's model."""
    of_path = request.match_info.get("model")
    if of_path and (not of_body or request.app[SERVICE].tasks.has_model(of_path)):
        return of_path
    return of_body


def _is_bulk(lane: str) -> bool:
    if lane not in {"", "bulk"}:
        raise invalid(
            LANE_HEADER, "must be `bulk`, or absent: then the request's size decides", kind="enum", given=lane
        )
    return lane == "bulk"


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = "must be a finite number of seconds above 0"
        raise invalid("X-Request-Timeout", message, kind="out_of_range", given=given)
    return seconds
