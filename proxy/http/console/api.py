"""What the console's page asks for, below `/console/`: the state, its stream, pieces of texts, actions."""

import ipaddress
from contextlib import suppress
from typing import Annotated

import orjson
from aiohttp import HttpVersion11, web
from pydantic import Field

from proxy.console import pieces, stream
from proxy.console.actions import Verb
from proxy.console.console import Console
from proxy.console.watcher import Watcher
from proxy.edge.admission import ORIGINS
from proxy.edge.middleware import ADMIN, ADMIN_KEYS, API_KEYS
from proxy.edge.origins import host_of
from proxy.errors import NotAdmin, NotFound
from proxy.http.pages import SERVICE
from proxy.http.responses import send
from proxy.quoting import quoted
from proxy.telemetry.observe import CLIENT, STOPPING
from proxy.wire.dialect import MAX_INSTRUCTION, Wire

CONSOLE = web.AppKey("console", Console)
EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
# What the names of headers begin with, in lower case, that reverse proxies add; no client sends them for itself.
FORWARDED = ("forwarded", "via", "x-forwarded", "x-real-ip", "x-client-ip", "x-original", "true-client-ip", "cf-")
PAGES = ("Origin", "Referer")  # which page a browser sent it for
MAX_TEXTS, MAX_CHARACTERS = 64, 2**18  # of each text: more than the longest that a model takes


class TokensBody(Wire):
    """Texts to show in pieces."""

    input: Annotated[list[Annotated[str, Field(max_length=MAX_CHARACTERS)]], Field(min_length=1, max_length=MAX_TEXTS)]
    task: str | None = None
    instruction: Annotated[str, Field(max_length=MAX_INSTRUCTION)] | None = None


async def state(request: web.Request) -> web.StreamResponse:
    """`GET /console/state`: everything that the page shows of backends, routes and clients."""
    document = await request.app[CONSOLE].document(_watcher(request))
    return web.Response(body=orjson.dumps(document), content_type="application/json")


async def event_stream(request: web.Request) -> web.StreamResponse:
    """`GET /console/events`: the same each second, with new requests; `?logs=NAME`: and the log of that backend."""
    console, log_of, watcher = request.app[CONSOLE], request.query.get("logs"), _watcher(request)
    if log_of is not None and not watcher.operator:
        raise _not_admin(request, "a log line may quote a text, so reading logs")
    events = stream.events(console, watcher, log_of=log_of, stopping=request.app[STOPPING])
    with console.watched(watcher):
        first = await anext(events)  # before the response begins: it may be an error
        response = web.StreamResponse(headers=EVENTS)
        with suppress(ConnectionError):  # the page was closed
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            await response.write(first)
            async for event in events:
                await response.write(event)
            await response.write_eof()
    return response


async def tokens(request: web.Request, wire: TokensBody) -> web.StreamResponse:
    """`POST /console/tokens`: each text in the pieces that its tokens stand for, with its task's prefix."""
    service = request.app[SERVICE]
    row = service.tasks.route(None, wire.task)
    model, prefix = request.app[CONSOLE].state.models[row.backend], row.prefix_with(wire.instruction)
    form = service.tasks.unicode_normalization
    texts = [await pieces.pieces_of(text, prefix, form, model) for text in wire.input]
    return await send(request, {"task": row.task, "limit": service.limits.input_tokens, "texts": texts})


async def act(request: web.Request) -> web.StreamResponse:
    """`POST /console/backends/{name}/restart`, `/pause` and `/resume`: begun, and seen in the state when done."""
    name = request.match_info["name"]
    _check_may_act(request)
    if name not in request.app[CONSOLE].state.models:
        raise NotFound(f"there is no backend {quoted(name)}")
    return _begun(request, Verb(request.match_info["verb"]), name)


async def reload_configuration(request: web.Request) -> web.StreamResponse:
    """`POST /console/reload`: read the configuration again; begun, and seen in the state when done."""
    _check_may_act(request)
    return _begun(request, Verb.RELOAD)


def _begun(request: web.Request, verb: Verb, backend: str = "") -> web.Response:
    action = request.app[CONSOLE].actions.begin(verb, backend)
    return web.Response(status=202, body=orjson.dumps(action), content_type="application/json")


def _check_may_act(request: web.Request) -> None:
    """Raises ForeignOrigin for what another site's page sent, NotAdmin for anybody but an operator."""
    request.app[ORIGINS].check_own_page(request.host, request.headers)
    if not _may_act(request):
        raise _not_admin(request, "this")


def _watcher(request: web.Request) -> Watcher:
    """Where there are keys, only an operator sees what other clients send."""
    operator, has_keys = _may_act(request), bool(request.app[API_KEYS] or request.app[ADMIN_KEYS])
    name = request.get(CLIENT) or request.remote or ""
    return Watcher(name, operator=operator, sees_all=operator or not has_keys)


def _may_act(request: web.Request) -> bool:
    """Whether it has an admin key; without any keys, whether it comes from this machine."""
    if request.app[ADMIN_KEYS]:
        return ADMIN in request and request[ADMIN]
    return not request.app[API_KEYS] and _is_local(request)


def _is_local(request: web.Request) -> bool:
    """Whether a process of this machine sent it for itself, and did not pass it on for somebody else.

    Reverse proxies need not say that they are one: HAProxy and Caddy keep the public Host, nginx speaks HTTP/1.0. Of a
    page that came through one, a browser names the public address.
    """
    if request.version < HttpVersion11 or any(name.lower().startswith(FORWARDED) for name in request.headers):
        return False
    pages = (page.partition("://")[2].partition("/")[0] for name in PAGES if (page := request.headers.get(name)))
    hosts = (host_of(host) for host in (request.host, request.headers.get("Host", ""), *pages))
    return all(_is_loopback(one or "") for one in (*hosts, (request.remote or "").partition("%")[0]))


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    return False


def _not_admin(request: web.Request, what: str) -> NotAdmin:
    if request.app[ADMIN_KEYS]:
        return NotAdmin(f"{what} needs one of the admin_keys under [proxy]")
    return NotAdmin(f"{what} needs an admin key: set admin_keys under [proxy]")
