"""Spans of requests, sent over OTLP/HTTP by OpenTelemetry's SDK where its standard variables name a receiver.

`otel` alone imports the SDK, and is imported only then.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from proxy.telemetry.requests import RequestRecord
from proxy.telemetry.timing import Timing
from proxy.telemetry.trace_context import TraceContext

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"


class RequestSpan(Protocol):
    """The span of one request, from `Tracer.begin` to `end`. Its `context` is what is sent on."""

    @property
    def context(self) -> TraceContext: ...

    def end(self, record: RequestRecord, timing: Timing | None) -> None: ...


class Tracer(Protocol):
    """Begins the span of each request: in the trace that its client names, or in a new one. `close` sends the last."""

    def begin(self, method: str, route: str, given: TraceContext | None) -> RequestSpan: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def tracing(service: str, variables: Mapping[str, str]) -> AsyncIterator[Tracer | None]:
    """Send the spans of requests for the duration of the block; None if the variables name no receiver.

    Whatever is wrong with them is logged, and the requests are served without.
    """
    tracer = _tracer(service, variables) if is_wanted(variables) else None
    try:
        yield tracer
    finally:
        if tracer:
            await tracer.close()


def is_wanted(variables: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's standard variables ask for traces over OTLP."""
    off = variables.get("OTEL_SDK_DISABLED", "").lower() == "true"
    exporters = variables.get("OTEL_TRACES_EXPORTER") or "otlp"
    if off or "otlp" not in exporters or not any(variables.get(name) for name in ENDPOINTS):
        return False
    protocol = next((given for name in PROTOCOLS if (given := variables.get(name))), PROTOCOL)
    if protocol != PROTOCOL:
        log.warning("no traces are sent: the OTLP protocol %s is not supported, only %s", protocol, PROTOCOL)
    return protocol == PROTOCOL


def _tracer(service: str, variables: Mapping[str, str]) -> Tracer | None:
    try:
        from proxy.telemetry.otel import OtelTracer  # noqa: PLC0415 # an extra, and half a second to import

        return OtelTracer(service)
    except ImportError as error:
        named = ", ".join(name for name in ENDPOINTS if variables.get(name))
        log.warning("no traces are sent: %s: pip install 'trillama[otel]', or remove the variable %s", error, named)
    except Exception as error:  # noqa: BLE001 # the SDK refuses its variables in many ways; requests need none of them
        log.warning("no traces are sent: OpenTelemetry refuses its variables (OTEL_…): %s", error)
    return None
