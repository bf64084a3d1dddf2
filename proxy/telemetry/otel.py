"""OpenTelemetry's SDK. The only module that imports it: the extra `trillama[otel]`."""

import asyncio
import os
import threading
import time
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, TraceState

from proxy.telemetry.requests import RequestRecord
from proxy.telemetry.timing import Timing
from proxy.telemetry.trace_context import TraceContext

_DISTRIBUTION = "trillama"
CLOSE_S = 2.0  # for the last spans, when the process ends


class OtelTracer:
    """Keeps ended spans in a bounded queue, which a thread sends; what finds no room is dropped."""

    def __init__(self, service: str) -> None:
        named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create(
            {"service.version": version(_DISTRIBUTION), **({} if named else {SERVICE_NAME: service})}
        )
        # Not at the interpreter's exit, where a receiver that does not answer would hold the process for 30 s.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(_DISTRIBUTION)

    def begin(self, method: str, route: str, given: TraceContext | None) -> "OtelSpan":
        return OtelSpan(self._tracer, method, route, given)

    async def close(self) -> None:
        """Send what is left, for at most CLOSE_S."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, CLOSE_S)


class OtelSpan:
    """The span of one request, with its queue's times as children."""

    def __init__(self, tracer: trace.Tracer, method: str, route: str, given: TraceContext | None) -> None:
        self._tracer = tracer
        self._began, self._began_ns = time.monotonic(), time.time_ns()
        self._span = tracer.start_span(
            f"{method} {route}",
            context=_parent(given),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
            start_time=self._began_ns,
        )

    @property
    def context(self) -> TraceContext:
        ours = self._span.get_span_context()
        ids = trace.format_trace_id(ours.trace_id), trace.format_span_id(ours.span_id)
        return TraceContext(*ids, f"{ours.trace_flags:02x}", ours.trace_state.to_header())

    def end(self, record: RequestRecord, timing: Timing | None) -> None:
        if self._span.is_recording():
            self._describe(record)
            if timing and timing.computed:
                self._add_parts(timing, self._began + record.seconds)
        self._span.end(self._ns(self._began + record.seconds))

    def _describe(self, record: RequestRecord) -> None:
        self._span.set_attributes({"http.response.status_code": record.status, "trillama.request_id": record.id})
        if usage := record.usage:
            self._span.set_attributes(
                {"trillama.task": usage.task, "trillama.inputs": usage.inputs, "trillama.tokens": usage.tokens}
            )
        if record.status >= 400:
            self._span.set_attribute("error.type", record.error or str(record.status))
        if record.status >= 500:
            self._span.set_status(StatusCode.ERROR)

    def _add_parts(self, timing: Timing, ended: float) -> None:
        lane = "interactive" if timing.interactive else "bulk"
        self._add_part("prepare", self._began, timing.arrived, {})
        self._add_part("wait", timing.arrived, timing.sent, {"trillama.lane": lane})
        self._add_part("compute", timing.sent, timing.done, {"trillama.backend": timing.backend})
        self._add_part("respond", timing.done, ended, {})

    def _add_part(self, name: str, begin: float, end: float, attributes: dict[str, str]) -> None:
        inside = trace.set_span_in_context(self._span)
        part = self._tracer.start_span(name, context=inside, attributes=attributes, start_time=self._ns(begin))
        part.end(self._ns(end))

    def _ns(self, at: float) -> int:
        """A time of the loop's clock as OpenTelemetry counts it."""
        return self._began_ns + round((at - self._began) * 1e9)


def _parent(given: TraceContext | None) -> Context:
    """The parent of a request's span; an empty context begins a new trace."""
    if given is None:
        return Context()
    remote = trace.SpanContext(
        trace_id=int(given.trace_id, 16),
        span_id=int(given.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(given.flags, 16)),
        trace_state=TraceState.from_header([given.state] if given.state else []),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())
