"""Checks before the key: the limit on connections, the host, and the origin of a page in a browser."""

import asyncio
import socket
from collections.abc import Iterable
from contextlib import suppress

from aiohttp import web

from proxy.edge.http_connection import connection_of
from proxy.edge.http_server import EXPECTED
from proxy.edge.origins import Origins
from proxy.errors import Crowded, ExpectationFailed, ForeignOrigin
from proxy.quoting import quoted
from proxy.telemetry.observe import PROBES, Handler

ORIGINS = web.AppKey("origins", Origins)
LOOKUP_S = 1.0  # for this machine's full name; usually it is in /etc/hosts
_RETRY_AFTER_S = 2
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "*, Authorization",  # the star does not include Authorization
    "Access-Control-Allow-Private-Network": "true",
    "Access-Control-Max-Age": "600",
}


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises Crowded, BadRequest, ForeignHost, ForeignOrigin or ExpectationFailed; answers a browser's preflight."""
    if not connection_of(request).admits_request() and request.path not in PROBES:
        raise Crowded("too many connections: try again later, or keep fewer open", retry_after_s=_RETRY_AFTER_S)
    origins, headers = request.app[ORIGINS], request.headers
    for host in {request.host, headers.get("Host", request.host)}:  # two if the request line names another host
        origins.check(request.method, host, headers)
    if (expected := request.get(EXPECTED, "100-continue")).lower() != "100-continue":
        raise ExpectationFailed(f"Expect {quoted(expected)} is not supported: only 100-continue is")
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in headers:
        if not origins.allows(headers.get("Origin", "")):
            raise ForeignOrigin("pages of this origin may not use this server: see cors_origins under [proxy]")
        return web.Response(status=204, headers=PREFLIGHT)
    return await handler(request)


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Let the pages in `cors_origins` read the response that is about to start."""
    response.headers["Vary"] = ", ".join(filter(None, (response.headers.get("Vary"), "Origin")))
    origin = request.headers.get("Origin", "")
    if origin and request.app[ORIGINS].allows(origin):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "*"


async def host_names(configured: Iterable[str]) -> frozenset[str]:
    """The configured names and those that the system gives this machine, in lower case."""
    name = socket.gethostname()
    names = [*configured, name]
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(LOOKUP_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, flags=socket.AI_CANONNAME)
        names += [canonical for _, _, _, canonical, _ in found if canonical]
    return frozenset(name.lower().removesuffix(".") for name in names)
