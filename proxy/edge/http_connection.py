"""aiohttp's HTTP server with what it lacks: connections that are bounded and timed, JSON for what is not HTTP.

By itself it gives a head any time it likes to take, reads for ten seconds what a refused client still sends, writes a
traceback for each bad head, and says "100 Continue" before anybody has looked at the key.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import cast

import orjson
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDict

from proxy import metrics
from proxy.edge.connections import Connections, Phase, peer_of
from proxy.edge.middleware import common_refusal
from proxy.errors import BadRequest, HeadTooLarge, ProxyError, TooSlow
from proxy.quoting import shown

EXPECTED = web.RequestKey("expected", str)  # the request's `Expect`

HEAD_BYTES = 64 * 2**10  # of a whole head; aiohttp bounds its lines, at 128 of 8 KiB each
READ_BYTES = 64 * 2**10  # that a connection may have sent before anybody asks for them, about
LITTLE = 2**20  # bytes of a body that are still read from a refused client: most send all of it before they read why
UNREAD_S = 1.0  # an answer that its client leaves unread for as long may lose its room to another
LINGER_S = 1.0  # how long it has for that, or else to read why before the connection is reset


class HttpConnection(web.RequestHandler):
    """A client's connection."""

    def __init__(self, server: "HttpServer", connections: Connections) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,  # `proxy.edge.body` does, when the key is known
            lingering_time=LINGER_S,
            read_bufsize=READ_BYTES,
        )
        self._connections = connections
        self._head_bytes = 0
        self._body: StreamReader | None = None  # of the request in progress
        self.peer = ""
        self.placed = True  # whether it is within the bounds
        self.unread, self.unread_since = 0, 0.0
        self.enter(Phase.HEAD)

    def enter(self, phase: Phase) -> None:
        """What it does from now on."""
        self.phase, self.since = phase, self._loop.time()

    def begin(self, body: StreamReader) -> None:
        """The head of a request is here."""
        self._body = body
        self.enter(Phase.BUSY)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = peer_of(transport.get_extra_info("peername"))
        self.placed = self._connections.enter(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.IDLE and data:
            self._head_bytes = 0
            self.enter(Phase.HEAD)
        super().data_received(data)
        if self._messages and self._body and not self._body.is_eof():  # no next request, but the parser's error
            self._body.set_exception(web.RequestPayloadError("it is not framed as its head says"))
        if self.phase is Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._loop.call_soon(self._check_head)  # by then a head that was whole is a request

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport:
            self.unread, self.unread_since = self.transport.get_write_buffer_size(), self._loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread = 0

    def expire(self) -> None:
        """Its time is over."""
        if self.phase is Phase.HEAD and self._head_bytes:
            self._refuse(TooSlow("the head of the request did not arrive in time"))
        else:
            self.give_up()

    @property
    def slow(self) -> bool:
        """Whether its client does not read an answer."""
        return bool(self.unread) and self._loop.time() - self.unread_since > UNREAD_S

    def give_up(self) -> None:
        """Close it: another needs its place, or its room."""
        if self.transport:
            self.transport.abort()  # `close` would wait for a client that does not read

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answer; of a body that nobody wanted at most a little is read."""
        done = await super().finish_response(request, resp, start_time)
        self._body = None
        unwanted = not request.content.is_eof()
        self.enter(Phase.BODY if unwanted else Phase.IDLE)
        if unwanted and _rest(request) > LITTLE:
            self._take_no_more()
            await asyncio.sleep(LINGER_S)
            self.force_close()
        return done

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 # the error says it better
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 # may hold whatever was sent
    ) -> web.StreamResponse:
        """The answer to bytes that are no request; no line in the log, as anybody may send them."""
        if not isinstance(exc, HttpProcessingError):
            self.logger.error("an error outside the handlers", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        error = _bad_head(exc) if isinstance(exc, HttpProcessingError) else ProxyError("internal error")
        closing = {"Connection": "close"}  # to what is no request aiohttp answers as to HTTP/1.0, and leaves it out
        response = web.Response(
            status=error.status, body=_body(error), content_type="application/json", headers=closing
        )
        response.force_close()
        return response

    def _check_head(self) -> None:
        if self.phase is Phase.HEAD:
            self._refuse(HeadTooLarge(f"the head of the request is larger than {HEAD_BYTES} bytes"))

    def _refuse(self, error: ProxyError) -> None:
        """Answer although there is no request yet, and close."""
        if self.transport:
            body, reason = _body(error), HTTPStatus(error.status).phrase
            head = f"HTTP/1.1 {error.status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.enter(Phase.IDLE)
        self._take_no_more()
        self._loop.call_later(LINGER_S, self.give_up)

    def _take_no_more(self) -> None:
        """Read nothing more from a client that is about to be closed.

        To close at once would reset a connection on which it is still sending, before it has read why.
        """
        self.close()
        if self.transport:
            self.transport.pause_reading()


class HttpServer(web.Server):
    """Serves by our connections what `inner`, aiohttp's server of an application, would serve."""

    def __init__(self, inner: web.Server, connections: Connections) -> None:
        super().__init__(
            inner.request_handler,
            request_factory=self._begin,
            handler_cancellation=True,  # a client that leaves takes its request out of the queue
        )
        self._make = inner.request_factory
        self._known = connections

    def __call__(self) -> HttpConnection:
        return HttpConnection(self, self._known)

    def _begin(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        """The request whose head is here, with its `Expect` out of aiohttp's sight."""
        cast("HttpConnection", protocol).begin(payload)
        request = self._make(message, payload, protocol, writer, task)
        if expected := request.headers.get(hdrs.EXPECT):
            others = CIMultiDict(request.headers)
            others.popall(hdrs.EXPECT)
            request = request.clone(headers=others)
            if request.version >= HttpVersion11:  # RFC 9110: from HTTP/1.0 it is ignored
                request[EXPECTED] = expected
        return request


@asynccontextmanager
async def running(app: web.Application, connections: Connections, drain_s: float) -> AsyncIterator[web.ServerRunner]:
    """The application over connections of ours; on exit what runs has `drain_s`, then all connections are closed."""
    inner = web.AppRunner(app)
    await inner.setup()
    try:
        server = HttpServer(cast("web.Server", inner.server), connections)  # it is there after setup()
        runner = web.ServerRunner(server, shutdown_timeout=drain_s)
        await runner.setup()
        try:
            async with connections.watched():
                yield runner
        finally:
            await runner.cleanup()
    finally:
        await inner.cleanup()


def connection_of(request: web.BaseRequest) -> HttpConnection:
    """The connection that a request came over; our server has no others."""
    return cast("HttpConnection", request.protocol)


def _rest(request: web.BaseRequest) -> float:
    """How many bytes of the body are still to come, as far as it is known."""
    declared = request.content_length
    return float("inf") if declared is None else declared - request.content.total_bytes


def _bad_head(error: HttpProcessingError) -> ProxyError:
    said = error.message.partition("\n")[0]
    if isinstance(error, LineTooLong) or said.startswith("Too many headers"):
        return HeadTooLarge("a line of the request's head is too long, or it has too many of them")
    return BadRequest(f"this is no HTTP request that is understood here: {shown(ascii(said))}")


def _body(error: ProxyError) -> bytes:
    """The common error body, and the count of it: what is no request has no handler that would see to that."""
    metrics.REQUESTS.labels("unknown", error.status).inc()
    return orjson.dumps(common_refusal(error, uuid.uuid4().hex).body)
