"""The console's page at `/` and its files: static, whole in the package, closed to all else by its policy."""

from pathlib import Path

from aiohttp import web

from proxy.errors import NotFound
from proxy.http import pages
from proxy.http.console.api import CONSOLE
from proxy.http.negotiation import preferred

STATIC_FILES = Path(__file__).parents[2] / "console" / "static"
NAMES = frozenset(file.relative_to(STATIC_FILES).as_posix() for file in STATIC_FILES.rglob("*") if file.is_file())
TYPES_BY_SUFFIX = {  # not by the system's table, which may call a script plain text: a browser would not run it
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again with its ETag, as an update changes it
}


async def root(request: web.Request) -> web.StreamResponse:
    """`GET /`: the console for browsers; else Ollama's words, for clients that check whether it is running."""
    accept = ",".join(request.headers.getall("Accept", ()))
    if CONSOLE not in request.app:
        return await pages.ollama_root(request)
    is_browser = preferred(accept, ("text/plain", "text/html")) == "text/html"
    response = _file("index.html") if is_browser else await pages.ollama_root(request)
    response.headers["Vary"] = "Accept"
    return response


async def static_file(request: web.Request) -> web.StreamResponse:
    """`GET /console/static/…`: a script, style sheet or picture of the page."""
    name = request.match_info["name"]
    if name not in NAMES:
        raise NotFound("the console has no such file")
    return _file(name)


async def api_page(_: web.Request) -> web.StreamResponse:
    """`GET /docs`: leads to the API's description in the console."""
    return web.Response(status=302, headers={"Location": "./#api"})


def _file(name: str) -> web.FileResponse:
    file = STATIC_FILES / name
    kind = TYPES_BY_SUFFIX.get(file.suffix, "text/plain")
    return web.FileResponse(file, headers={**SECURITY_HEADERS, "Content-Type": f"{kind}; charset=utf-8"})
