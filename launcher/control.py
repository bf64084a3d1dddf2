"""How a running launcher is asked and told: HTTP on a socket in its private folder, which only its user can enter."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import aiohttp
import psutil
from aiohttp import web
from pydantic import ValidationError

from launcher import __version__
from launcher.backend import Backend
from launcher.config import Settings
from launcher.errors import LauncherError, NotRunning
from launcher.folders import runtime_base
from launcher.lanes import Lane
from launcher.supervisor import Fleet
from launcher.trusted_socket import is_ours, is_served_by_its_owner
from launcher.view import BackendView, EngineView, View

SOCKET = "control.sock"
SYSTEM_FOLDER = Path("/run/trillama")  # RuntimeDirectory= of configs/systemd/trillama.service
LOOK = aiohttp.ClientTimeout(total=5)
ACT = aiohttp.ClientTimeout(total=None, sock_connect=2)  # loading models takes what it takes

Reload = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)


@asynccontextmanager
async def answering(fleet: Fleet, reload: Reload) -> AsyncIterator[None]:
    """Answer on the socket for as long as the block lasts.

    `GET /status`; `POST /backends/{name}/restart`, answered when it is ready again or has failed; `POST /reload`.
    """
    started = time.time()

    async def seen() -> web.Response:
        view = _view(fleet, await fleet.lanes.look(), started)
        return web.Response(text=view.model_dump_json(), content_type="application/json")

    async def status(_: web.Request) -> web.Response:
        return await seen()

    async def restart(request: web.Request) -> web.Response:
        await fleet.restart(request.match_info["name"])
        return await seen()

    async def reload_(_: web.Request) -> web.Response:
        await reload()
        return await seen()

    app = web.Application(middlewares=[_refused])
    app.add_routes(
        [web.get("/status", status), web.post("/backends/{name}/restart", restart), web.post("/reload", reload_)]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(fleet.folder / SOCKET)).start()
        yield
    finally:
        await runner.cleanup()


async def ask(settings: Settings, method: str, path: str) -> View:
    """What the trillama that runs with these settings says: the one on their port, else the only one there is.

    Raises NotRunning if there is none that this user may ask, LauncherError with its words if it refuses.
    """
    host = settings.host
    running = await _running(host.runtime_dir or runtime_base())
    chosen = [socket for socket, view in running.items() if view.port == host.port] or list(running)
    if len(chosen) > 1:
        urls = ", ".join(view.url for view in running.values())
        raise NotRunning(f"several run here ({urls}): name one by its configuration with --config")
    view = running[chosen[0]] if path == "/status" else await _asked(chosen[0], method, path)
    if view is None:
        raise NotRunning("trillama ended before it answered")
    return view


async def _running(base: Path) -> dict[Path, View]:
    """What each of those says that this user may ask. Raises NotRunning if there is none."""
    running, silent, foreign = dict[Path, View](), list[Path](), list[Path]()
    for socket in _sockets(base):
        try:
            if not is_ours(socket) or not await asyncio.to_thread(is_served_by_its_owner, socket):
                foreign.append(socket)
            elif view := await _asked(socket, "GET", "/status"):
                running[socket] = view
        except (TimeoutError, BlockingIOError):  # it answers nobody, or accepts nobody any more
            silent.append(socket)
        except OSError:  # what is left of one that was killed
            continue
    if not running and silent:
        raise NotRunning(
            f"the trillama of {silent[0].parent} does not answer: it is stopped or stuck, so end it by kill"
        )
    if not running:
        others = f"; {foreign[0].parent} is somebody else's and was not asked" if foreign else ""
        raise NotRunning(
            f"no trillama that you may ask runs here: start it with `trillama serve` (a service: use sudo){others}"
        )
    return running


def _sockets(base: Path) -> list[Path]:
    return [path for folder in dict.fromkeys((base, SYSTEM_FOLDER)) for path in folder.glob(f"trillama-*/{SOCKET}")]


async def _asked(socket: Path, method: str, path: str) -> View | None:
    """None if nobody is there. Raises TimeoutError for one that does not answer a look."""
    timeout = LOOK if method == "GET" else ACT
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=timeout) as session,
            session.request(method, f"http://trillama{path}") as response,
        ):
            body = await response.read()
    except TimeoutError:
        raise
    except (aiohttp.ClientError, OSError):
        return None
    if response.status != 200:
        raise LauncherError(body.decode(errors="replace"))
    try:
        return View.model_validate_json(body)
    except ValidationError as error:
        raise LauncherError(
            f"what runs is another version of trillama than this {__version__}: start it anew"
        ) from error


@web.middleware
async def _refused(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as error:  # noqa: BLE001 # whoever asked is told, and what runs is not touched
        return web.Response(text=reason_of(error), status=409)


def reason_of(error: Exception) -> str:
    """What is said of an error: ours and the system's explain themselves, any other has its traceback in the log."""
    if isinstance(error, LauncherError | OSError):
        return str(error)
    log.error("unexpected error", exc_info=error)
    return f"unexpected error: {error!r}; please report it with the traceback in the log"


def _view(fleet: Fleet, lanes: Mapping[str, Lane], started: float) -> View:
    launch = fleet.launch
    return View(
        version=__version__,
        url=launch.url,
        port=launch.settings.host.port,
        since=started,
        family=launch.settings.family.name,
        logs=str(launch.logs),
        engine=EngineView(origin=launch.engine.origin, version=launch.engine.version),
        backends=tuple(_backend(one, lanes.get(name)) for name, one in fleet.backends.items()),
    )


def _backend(backend: Backend, lane: Lane | None) -> BackendView:
    placement = backend.spec.placement
    return BackendView(
        **asdict(backend.status),
        model=str(placement.model),
        batch_tokens=placement.batch_tokens,
        slots=placement.slots,
        on_demand=backend.spec.on_demand,
        devices=placement.devices,
        planned_bytes=dict(backend.spec.memory),
        resident_bytes=_resident(backend.status.pid),
        waiting_texts=lane.waiting_texts if lane else None,
        waiting_tokens=lane.waiting_tokens if lane else None,
        tokens_per_s=lane.tokens_per_s if lane else None,
    )


def _resident(pid: int | None) -> int | None:
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else None
    except psutil.Error:
        return None
