"""A receiver of OTLP over HTTP on loopback, which keeps the spans that it gets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE_S = 60.0


@dataclass(slots=True)
class Receiver:
    """`spans` by the name of their service; `raw` is all that was sent, as it came."""

    url: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)
    raw: bytes = b""

    async def receive(self, request: web.Request) -> web.Response:
        content = await request.read()
        self.raw += content
        for sent in ExportTraceServiceRequest.FromString(content).resource_spans:
            service = next(one.value.string_value for one in sent.resource.attributes if one.key == "service.name")
            self.spans += [(service, span) for scope in sent.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    async def of_trace(self, trace_id: str, names: set[str]) -> dict[str, Span]:
        """The spans of a trace by `SERVICE NAME`, once all of these are here."""
        async with asyncio.timeout(PATIENCE_S):
            while not names <= (found := self._of_trace(trace_id)).keys():
                await asyncio.sleep(0.01)
        return found

    def _of_trace(self, trace_id: str) -> dict[str, Span]:
        return {f"{service} {one.name}": one for service, one in self.spans if one.trace_id.hex() == trace_id}


def attributes_of(span: Span) -> dict[str, object]:
    """The attributes by name, as strings and whole numbers."""
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[Receiver]:
    """A receiver for the block."""
    receiver = Receiver()
    app = web.Application()
    app.add_routes([web.post("/v1/traces", receiver.receive)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        receiver.url = f"http://{host}:{port}"
        yield receiver
    finally:
        await runner.cleanup()
