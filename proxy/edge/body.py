"""Reads a request's body, into memory or piece by piece: bounded in bytes, in time and in its inflated size."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.streams import StreamReader

from proxy.edge.connections import Phase
from proxy.edge.http_connection import HttpConnection, connection_of
from proxy.edge.http_server import EXPECTED
from proxy.edge.inflate import ENCODINGS, BadData, Inflater
from proxy.errors import BadRequest, BodyTooLarge, Crowded, NotJson, ProxyError, TooSlow, UnsupportedEncoding
from proxy.faults import invalid
from proxy.quoting import quoted, shown
from proxy.scheduling.memory_budget import Reservation
from proxy.wire.form import BadForm, Form, FormReader

SLOW_AFTER_S = 1.0  # from then on a body slower than SLOW_RATE, bytes a second, may lose its memory to another
SLOW_RATE = 128 * 2**10
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """The limits of one body: bytes, as sent and as inflated, and seconds."""

    max_bytes: int
    timeout_s: float
    min_rate: float  # bytes a second: received bytes extend the time
    advice: str = "send fewer texts at a time"  # where a body is too large

    def seconds(self, received: int) -> float:
        """How long a body may take, given the bytes received so far."""
        return self.timeout_s + received / self.min_rate

    def check(self, size: int) -> None:
        """Raises BodyTooLarge."""
        if size > self.max_bytes:
            raise BodyTooLarge(f"the body is larger than {self.max_bytes} bytes: {self.advice}")


async def read_body(request: web.Request, room: Reservation, limits: BodyLimits) -> bytes:
    """The whole body, inflated, its bytes counted in `room`.

    Raises UnsupportedEncoding, BodyTooLarge and Crowded, before reading if the headers suffice; TooSlow; NotJson if the
    body is broken.
    """
    inflater = _inflater(", ".join(request.headers.getall("Content-Encoding", ())))
    declared = request.content_length or 0
    limits.check(declared)
    if not inflater:
        room.grow(declared)
    connection = await _begin(request)
    try:
        async with asyncio.timeout(limits.seconds(0)) as clock:
            body = _Body(clock, room, limits)
            with room.used_by(body):
                await body.receive(request.content, inflater)
    except TimeoutError as error:
        raise body.timeout_error from error
    except (BadData, web.RequestPayloadError) as error:
        raise NotJson(f"the body cannot be read: {error}") from error
    connection.enter(Phase.BUSY)
    return b"".join(body.parts)


async def read_form(request: web.Request, limits: BodyLimits, write: Callable[[bytes], object]) -> Form:
    """A multipart form whose field `file` is written piece by piece, and never in memory as a whole; `write` may block.

    Raises Invalid for another type of body, UnsupportedEncoding, BodyTooLarge, TooSlow, BadRequest if it is broken, and
    what `write` raises.
    """
    if request.content_type != "multipart/form-data":
        raise invalid("file", "must be uploaded as multipart/form-data", given=request.content_type)
    if _inflater(", ".join(request.headers.getall("Content-Encoding", ()))):
        raise UnsupportedEncoding("an uploaded file cannot be compressed: leave out Content-Encoding")
    limits.check(request.content_length or 0)
    received, loop = request.content, asyncio.get_running_loop()
    try:
        reader = FormReader(request.headers["Content-Type"], write)
        connection, started = await _begin(request), loop.time()
        async with asyncio.timeout(limits.seconds(0)) as clock:
            while chunk := await received.readany():
                limits.check(received.total_bytes)
                clock.reschedule(started + limits.seconds(received.total_bytes))
                await asyncio.to_thread(reader.feed, chunk)
        form = reader.end()
    except TimeoutError as error:
        raise TooSlow(f"the body did not arrive in time: {received.total_bytes} bytes were received") from error
    except (web.RequestPayloadError, BadForm) as error:
        raise BadRequest(f"the body is not a valid multipart/form-data: {shown(str(error))}") from error
    connection.enter(Phase.BUSY)
    return form


async def _begin(request: web.Request) -> HttpConnection:
    """Let the client send the body."""
    if request.get(EXPECTED):
        await request.writer.write(CONTINUE)
        request.writer.output_size = 0  # the response itself has not started
    connection = connection_of(request)
    connection.enter(Phase.BODY)
    return connection


class _Body:
    """A body that is being received."""

    def __init__(self, clock: asyncio.Timeout, room: Reservation, limits: BodyLimits) -> None:
        self.parts: list[bytes] = []
        self._clock, self._room, self._limits = clock, room, limits
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._received = self._size = 0
        self._given_up = False

    async def receive(self, content: StreamReader, inflater: Inflater | None) -> None:
        while chunk := await content.readany():
            self._received += len(chunk)
            self._limits.check(self._received)
            if not self._given_up:
                self._clock.reschedule(self._started + self._limits.seconds(self._received))
            if not inflater:
                self._add(chunk)
                continue
            parts = inflater.inflate(chunk)
            while (part := await asyncio.to_thread(next, parts, None)) is not None:
                self._add(part)
        if inflater:
            inflater.check_end()

    @property
    def slow(self) -> bool:
        seconds = self._loop.time() - self._started
        return not self._given_up and seconds > SLOW_AFTER_S and self._received < seconds * SLOW_RATE

    def give_up(self) -> None:
        self._given_up = True
        self._clock.reschedule(self._loop.time())

    @property
    def timeout_error(self) -> ProxyError:
        """Why reading stopped before the end."""
        if self._given_up:
            message = "the body arrived slowly while others needed its memory: send it again"
            return Crowded(message, retry_after_s=self._room.budget.retry_after_s())
        return TooSlow(f"the body did not arrive in time: {self._received} bytes were received")

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        self._limits.check(self._size)
        if self._size > self._room.size:
            self._room.grow(self._size - self._room.size)
        self.parts.append(part)


def _inflater(encoding: str) -> Inflater | None:
    """Raises UnsupportedEncoding."""
    name = encoding.strip().lower().removeprefix("x-")
    if name in {"", "identity"}:
        return None
    if name not in ENCODINGS:
        raise UnsupportedEncoding(
            f"Content-Encoding {quoted(encoding)} is not supported: send {', '.join(ENCODINGS)}, or leave it out"
        )
    return Inflater(name)
