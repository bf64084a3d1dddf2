"""aiohttp's HTTP server with what it lacks: limits and deadlines for connections, JSON errors for malformed requests.

By itself aiohttp waits for a head without a limit, reads for ten seconds what a refused client still sends, logs a
traceback for each malformed head, and sends "100 Continue" before the key is checked.
"""

import asyncio
import logging
import uuid
from http import HTTPStatus
from typing import cast

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import StreamReader

from proxy import metrics
from proxy.edge.connections import Connections, Phase, peer_of
from proxy.edge.middleware import render_common_error
from proxy.errors import BadRequest, HeadTooLarge, ProxyError, TooSlow
from proxy.quoting import shown

SILENT = logging.getLogger("proxy.access")
SILENT.disabled = True  # the middleware writes the one line of a request

HEAD_BYTES = 64 * 2**10  # of a whole head; aiohttp limits only its lines: 128 of 8 KiB each
READ_BYTES = 64 * 2**10  # about how much is buffered of a connection before a handler reads it
MAX_DISCARDED = 2**20  # bytes of a body that are still read from a refused client: most send all before they read
UNREAD_S = 1.0  # a response left unread for this long may lose its memory to another
_LINGER_S = 1.0  # for a refused client to finish sending, or to read the error, before the connection is reset


class HttpConnection(web.RequestHandler):
    """A client's connection."""

    def __init__(self, server: web.Server, connections: Connections) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=SILENT,
            auto_decompress=False,  # `proxy.edge.body` does it, after the key was checked
            lingering_time=_LINGER_S,
            read_bufsize=READ_BYTES,
        )
        self._connections = connections
        self._head_bytes = 0
        self._body: StreamReader | None = None  # of the request in progress
        self.peer = ""
        self.unread, self.unread_since = 0, 0.0
        self.enter(Phase.HEAD)

    def enter(self, phase: Phase) -> None:
        self.phase, self.since = phase, self._loop.time()

    def admits_request(self) -> bool:
        """Whether its request is within the limits; connections that wait for their clients may be closed for it."""
        return self._connections.admits(self)

    def begin(self, body: StreamReader) -> None:
        """Called when the head of a request is complete."""
        self._body = body
        self.enter(Phase.BUSY)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = peer_of(transport.get_extra_info("peername"))
        self._connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.IDLE and data:
            self._head_bytes = 0
            self.enter(Phase.HEAD)
        super().data_received(data)
        if self._messages and self._body and not self._body.is_eof():  # not the next request, but the parser's error
            self._body.set_exception(web.RequestPayloadError("its framing is not as its head says"))
        if self.phase is Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._loop.call_soon(self._check_head)  # by then a complete head has become a request

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport:
            self.unread, self.unread_since = self.transport.get_write_buffer_size(), self._loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread = 0

    def expire(self) -> None:
        """Close it: its deadline has passed."""
        if self.phase is Phase.HEAD and self._head_bytes:
            self._refuse(TooSlow("the head of the request did not arrive in time"))
        else:
            self.give_up()

    @property
    def slow(self) -> bool:
        """Whether its client does not read a response."""
        return bool(self.unread) and self._loop.time() - self.unread_since > UNREAD_S

    def give_up(self) -> None:
        """Close it to make room for another, or to free its memory."""
        if self.transport:
            self.transport.abort()  # `close` would wait for a client that does not read

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response; of a body that was not read, discard at most MAX_DISCARDED bytes."""
        done = await super().finish_response(request, resp, start_time)
        self._body = None
        unread_body = not request.content.is_eof()
        self.enter(Phase.BODY if unread_body else Phase.IDLE)
        if unread_body and _remaining(request) > MAX_DISCARDED:
            self._stop_reading()
            await asyncio.sleep(_LINGER_S)
            self.force_close()
        return done

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 # `exc` has it
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 # may contain what was sent
    ) -> web.StreamResponse:
        """The response to bytes that are not a request; not logged, as anybody may send them.

        Raises ConnectionError if the client has left.
        """
        if isinstance(exc, ConnectionError) and (self.transport is None or self.transport.is_closing()):
            raise exc
        if not isinstance(exc, HttpProcessingError):
            self.logger.error("an error outside the handlers", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has started")
        error = _bad_head(exc) if isinstance(exc, HttpProcessingError) else ProxyError("internal error")
        closing = {"Connection": "close"}  # aiohttp answers such bytes as HTTP/1.0, and leaves this header out
        response = web.Response(
            status=error.status, body=_body(error), content_type="application/json", headers=closing
        )
        response.force_close()
        return response

    def _check_head(self) -> None:
        if self.phase is Phase.HEAD:
            self._refuse(HeadTooLarge(f"the head of the request is larger than {HEAD_BYTES} bytes"))

    def _refuse(self, error: ProxyError) -> None:
        """Send an error before there is a request, and close."""
        if self.transport:
            body, reason = _body(error), HTTPStatus(error.status).phrase
            head = f"HTTP/1.1 {error.status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.enter(Phase.IDLE)
        self._stop_reading()
        self._loop.call_later(_LINGER_S, self.give_up)

    def _stop_reading(self) -> None:
        """Read nothing more from a connection that is about to be closed.

        Closing at once would reset it while the client is still sending, before it has read the error.
        """
        self.close()
        if self.transport:
            self.transport.pause_reading()


def connection_of(request: web.BaseRequest) -> HttpConnection:
    """The connection of a request; our server has no other kind."""
    return cast("HttpConnection", request.protocol)


def _remaining(request: web.BaseRequest) -> float:
    """How many bytes of the body are still to be received; infinite if unknown."""
    declared = request.content_length
    return float("inf") if declared is None else declared - request.content.total_bytes


def _bad_head(error: HttpProcessingError) -> ProxyError:
    said = error.message.partition("\n")[0]
    if isinstance(error, LineTooLong) or said.startswith("Too many headers"):
        return HeadTooLarge("a line of the request's head is too long, or it has too many lines")
    return BadRequest(f"this is not a valid HTTP request: {shown(ascii(said))}")


def _body(error: ProxyError) -> bytes:
    """The common error body, counted in the metrics here, as no handler does it without a request."""
    metrics.REQUESTS.labels("unknown", error.status).inc()
    return orjson.dumps(render_common_error(error, uuid.uuid4().hex).body)
