"""A minimal HTTP/1.1 client on a UNIX socket: kept-alive connections to a local llama-server.

Half a millisecond less per request than aiohttp's client (measured), which is still used for everything else. It
understands what llama-server sends, an answer with its length, and raises `NeedsFullClient` for anything else.
"""

import asyncio
from typing import NamedTuple, cast

HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"
CONNECTIONS = 8  # at most: with more than the server has threads, one waits for up to 35 s (trap T3)


class NotListening(ConnectionError):
    """No process listens on the socket."""


class NeedsFullClient(Exception):
    """The answer has no length: send the request with a full HTTP client."""


class Reply(NamedTuple):
    status: int
    content: bytes


class UnixHttpClient:
    """POSTs to one UNIX socket, also concurrently. A connection that was idle for `keepalive_s` is not used again."""

    def __init__(self, socket: str, *, headers: bytes, keepalive_s: float) -> None:
        self._socket = socket
        self._headers = headers
        self._keepalive_s = keepalive_s
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[_Idle] = []  # the one used last is last

    async def post(self, path: str, data: bytes) -> Reply:
        """Send the body. Raises NotListening, NeedsFullClient, ConnectionResetError without a whole answer."""
        async with self._room:
            return await self._post(path, data)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().connection.close()

    async def _post(self, path: str, data: bytes) -> Reply:
        connection = self._reusable() or await self._connect()
        reply = connection.send(
            b"POST %b HTTP/1.1\r\nHost: llama-server\r\n%bContent-Length: %d\r\n\r\n%b"
            % (path.encode(), self._headers, len(data), data)
        )
        try:
            answer = await reply
        except BaseException:  # cancelled, too
            connection.close()  # its late answer must not reach another request
            self.close()  # if the server ended, the others are stale, too: a retry needs a new one
            raise
        self._idle.append(_Idle(connection, asyncio.get_running_loop().time()))
        return answer

    def _reusable(self) -> "_Connection | None":
        """Take the most recently used idle connection, if there is one. Stale ones are closed."""
        usable_from = asyncio.get_running_loop().time() - self._keepalive_s
        stale = [one for one in self._idle if not one.connection.open or one.used <= usable_from]
        self._idle = [one for one in self._idle if one not in stale]
        for one in stale:
            one.connection.close()
        return self._idle.pop().connection if self._idle else None

    async def _connect(self) -> "_Connection":
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(_Connection, self._socket)
        except OSError as error:
            raise NotListening(str(error)) from error
        return connection


class _Idle(NamedTuple):
    connection: "_Connection"
    used: float


class _Connection(asyncio.Protocol):
    """Receives one answer at a time."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._head = -1  # where the body begins, once known
        self._length = 0
        self._reply: asyncio.Future[Reply] | None = None

    def send(self, request: bytes) -> asyncio.Future[Reply]:
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._reply

    def close(self) -> None:
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.open = cast("asyncio.Transport", transport), True

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._head < 0:
            self._read_head()
        if self._head >= 0 and len(self._received) >= self._head + self._length:
            status = int(self._received[9:12])
            content = bytes(memoryview(self._received)[self._head : self._head + self._length])
            self._received.clear()
            self._head = -1
            self._finish(Reply(status, content))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._finish(ConnectionResetError(str(exc or "closed before the answer")))

    def _read_head(self) -> None:
        end = self._received.find(HEAD_END)
        if end < 0:
            return
        head = bytes(self._received[: end + 2]).lower()
        at = head.find(LENGTH)
        if at < 0 or b"\r\ntransfer-encoding:" in head or b"\r\ncontent-encoding:" in head:
            self._finish(NeedsFullClient())
            self.close()
            return
        self._head, self._length = end + len(HEAD_END), int(head[at + len(LENGTH) : head.index(b"\r\n", at + 2)])
        self.open = b"\r\nconnection: close\r\n" not in head

    def _finish(self, outcome: Reply | Exception) -> None:
        reply, self._reply = self._reply, None
        if reply is None or reply.done():
            return
        if isinstance(outcome, Exception):
            reply.set_exception(outcome)
        else:
            reply.set_result(outcome)
