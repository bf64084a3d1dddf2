"""aiohttp's server of an application, over connections of ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.edge.connections import Connections
from proxy.edge.http_connection import HttpConnection

EXPECTED = web.RequestKey("expected", str)  # the request's `Expect`


@asynccontextmanager
async def running_server(
    app: web.Application, connections: Connections, drain_s: float
) -> AsyncIterator[web.ServerRunner]:
    """Run the application over our connections; on exit, requests have `drain_s`, then all connections are closed."""
    inner = web.AppRunner(app)
    await inner.setup()
    try:
        server = HttpServer(cast("web.Server", inner.server), connections)  # it exists after setup()
        runner = web.ServerRunner(server, shutdown_timeout=drain_s)
        await runner.setup()
        try:
            async with connections.watched():
                yield runner
        finally:
            await runner.cleanup()
    finally:
        await inner.cleanup()


class HttpServer(web.Server):
    """Serves the application of `inner`, aiohttp's own server, over our connections."""

    def __init__(self, inner: web.Server, connections: Connections) -> None:
        super().__init__(
            inner.request_handler,
            request_factory=self._begin,
            handler_cancellation=True,  # the request of a client that disconnects leaves the queue
        )
        self._request_factory = inner.request_factory
        self._limits = connections

    def __call__(self) -> HttpConnection:
        return HttpConnection(self, self._limits)

    def _begin(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        """The request whose head is complete, with its `Expect` hidden from aiohttp."""
        cast("HttpConnection", protocol).begin(payload)
        expected = message.headers.get(hdrs.EXPECT)
        head = _without_expect(message) if expected else message
        request = self._request_factory(head, payload, protocol, writer, task)
        if expected and message.version >= HttpVersion11:  # RFC 9110: from HTTP/1.0 it is ignored
            request[EXPECTED] = expected
        return request


def _without_expect(message: RawRequestMessage) -> RawRequestMessage:
    """The same head without `Expect`. Not by `clone`, which raises if a header is not UTF-8."""
    others = CIMultiDict(message.headers)
    others.popall(hdrs.EXPECT)
    return RawRequestMessage(
        message.method,
        message.path,
        message.version,
        CIMultiDictProxy(others),
        message.raw_headers,
        message.should_close,
        message.compression,
        message.upgrade,
        message.chunked,
        message.url,
    )
