"""The control server of a running launcher: HTTP on a socket in its private folder, which only its user can enter."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict

import psutil
from aiohttp import web

from launcher import __version__
from launcher.control.status import EXIT_CODE, BackendView, EngineView, View
from launcher.errors import LauncherError
from launcher.fleet.fleet import Fleet
from launcher.processes.runtime_folder import CONTROL_SOCKET
from launcher.proxies.admin import QueueState
from proxy.contract.admin import BackendProcess, LauncherReport

Reload = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)


@asynccontextmanager
async def control_server(fleet: Fleet, reload: Reload) -> AsyncIterator[None]:
    """Serve the socket for as long as the block lasts.

    `GET /status`; `GET /processes`, which the proxy asks, so that it does not ask the proxy; `POST
    /backends/{name}/restart`, answered once it is ready again or has failed; `POST /backends/{name}/pause`, answered
    once nothing is in flight there, and `/resume`; `POST /reload`.
    """
    runner = web.AppRunner(_application(fleet, reload), access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(fleet.folder / CONTROL_SOCKET)).start()
        yield
    finally:
        await runner.cleanup()


def _application(fleet: Fleet, reload: Reload) -> web.Application:
    started = time.time()

    async def current_status() -> web.Response:
        view = _view(fleet, await fleet.proxy_admins.queues(), started)
        return web.Response(text=view.model_dump_json(), content_type="application/json")

    async def status(_: web.Request) -> web.Response:
        return await current_status()

    async def processes(_: web.Request) -> web.Response:
        return web.Response(text=_report(fleet).model_dump_json(), content_type="application/json")

    def of_backend(act: Callable[[str], Awaitable[None]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            await act(request.match_info["name"])
            return await current_status()

        return handler

    async def reload_(_: web.Request) -> web.Response:
        await reload()
        return await current_status()

    app = web.Application(middlewares=[_error_as_text])
    app.add_routes(
        [
            web.get("/status", status),
            web.get("/processes", processes),
            web.post("/backends/{name}/restart", of_backend(fleet.restart)),
            web.post("/backends/{name}/pause", of_backend(fleet.pause)),
            web.post("/backends/{name}/resume", of_backend(fleet.resume)),
            web.post("/reload", reload_),
        ]
    )
    return app


@web.middleware
async def _error_as_text(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as error:  # noqa: BLE001 # the client gets the reason, and what runs is not touched
        code = error.exit_code if isinstance(error, LauncherError) else LauncherError.exit_code
        return web.Response(text=reason_of(error), status=409, headers={EXIT_CODE: str(code)})


def reason_of(error: Exception) -> str:
    """An error's message: ours and the system's explain themselves, any other is logged with its traceback."""
    if isinstance(error, LauncherError | OSError):
        return str(error)
    log.error("unexpected error", exc_info=error)
    return f"unexpected error: {error!r}; please report it with the traceback in the log"


def _view(fleet: Fleet, queues: Mapping[str, QueueState], started: float) -> View:
    deployment = fleet.deployment
    return View(
        version=__version__,
        url=deployment.url,
        port=deployment.settings.host.port,
        since=started,
        family=deployment.settings.family.name,
        logs=str(deployment.logs),
        engine=EngineView(origin=deployment.engine.origin, version=deployment.engine.version),
        backends=tuple(_backend(_process(fleet, name), queues.get(name)) for name in fleet.backends),
    )


def _report(fleet: Fleet) -> LauncherReport:
    processes = tuple(_process(fleet, name) for name in fleet.backends)
    return LauncherReport(version=__version__, logs=str(fleet.deployment.logs), backends=processes)


def _process(fleet: Fleet, name: str) -> BackendProcess:
    backend = fleet.backends[name]
    placement = backend.spec.placement
    return BackendProcess(
        **asdict(backend.status),
        model=str(placement.model),
        batch_tokens=placement.batch_tokens,
        slots=placement.slots,
        on_demand=backend.spec.on_demand,
        paused=name in fleet.paused_by_operator,
        devices=placement.devices,
        planned_bytes=dict(backend.spec.memory),
        resident_bytes=_resident(backend.status.pid),
    )


def _backend(process: BackendProcess, queue: QueueState | None) -> BackendView:
    return BackendView(
        **process.model_dump(),
        waiting_texts=queue.waiting_texts if queue else None,
        waiting_tokens=queue.waiting_tokens if queue else None,
        tokens_per_s=queue.tokens_per_s if queue else None,
    )


def _resident(pid: int | None) -> int | None:
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else None
    except psutil.Error:
        return None
