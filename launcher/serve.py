"""From settings to a ready set: find, fetch, check, start; and back."""

import asyncio
import shlex
import signal
import socket
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from launcher import __version__, engine, health, models, notify, supervisor
from launcher.backend import Status
from launcher.config import Settings, cache_dir
from launcher.demo import demo_models
from launcher.display import Display
from launcher.supervisor import Launch

T = TypeVar("T")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


async def run(settings: Settings, *, out: Console, err: Console) -> None:
    """Serve until SIGINT or SIGTERM, which end everything in order. Raises LauncherError."""
    display = Display(err)

    statuses: dict[str, Status] = {}

    def report(status: Status) -> None:
        statuses[status.name] = status
        display.status(status)
        notify.tell(STATUS=", ".join(f"{one.name} {one.state}" for one in statuses.values()))

    async def session() -> None:
        with supervisor.listen(settings.host) as listener, display.live():
            launch = await prepare(settings, listener, display)

            async def ready() -> None:
                display.hide()
                _announce(launch, out)
                notify.tell(READY="1")
                await notify.feed_watchdog(partial(health.proxy_up, launch.url))
                await asyncio.Event().wait()

            await supervisor.serve(launch, report, ready)

    await until_signal(session())


async def prepare(
    settings: Settings, listener: socket.socket, display: Display, *, only: Sequence[str] | None = None
) -> Launch:
    """Everything that can be known before a process starts: the engine, and each model's file, here and checked.

    `only` limits the models to those backends. Raises EngineError or ModelError.
    """
    address, port = listener.getsockname()[:2]  # systemd's socket unit may say other ones than our configuration
    settings = settings.with_host(host=address, port=port)
    names = only or tuple(settings.family.weights.models)
    found = await engine.find(settings.host.engine.llama_server)
    files = await _files(settings, names, display)
    return Launch(settings=settings, listener=listener, engine=found, models=files)


async def until_signal(session: Coroutine[None, None, T]) -> T | None:
    """What the session returns; None if SIGINT or SIGTERM cancelled it, which is a normal end."""
    task = asyncio.create_task(session)
    stopped = asyncio.Event()

    def stop() -> None:
        notify.tell(STOPPING="1")
        stopped.set()
        task.cancel()

    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
        return None


async def _files(settings: Settings, names: Sequence[str], display: Display) -> dict[str, Path]:
    if settings.host.demo:
        made = await asyncio.to_thread(demo_models, cache_dir() / "demo")
        return {name: made[name] for name in names}
    family = settings.family
    paths = {}
    for wanted in models.wanted(family, settings.host.models):
        if wanted.backend in names:
            paths[wanted.backend] = path = await models.locate(wanted, report=display.downloading)
            models.check(path, architecture=family.weights.architecture, dimensions=family.dimensions)
    return paths


def _announce(launch: Launch, out: Console) -> None:
    """One line that says where, with what; and one to paste."""
    host, family = launch.settings.host, launch.settings.family
    if host.notice:
        out.print(host.notice, style="yellow", soft_wrap=True, highlight=False)
    if host.host not in LOOPBACK and not host.proxy.get("api_keys"):
        warning = f"anyone who reaches {host.host}:{host.port} is served: set api_keys under [proxy]"
        out.print(warning, style="yellow", soft_wrap=True, highlight=False)
    served = f"{family.name}, {launch.engine.origin} llama.cpp {launch.engine.version}"
    out.print(f"trillama {__version__} is ready at {launch.url} ({served})", soft_wrap=True, highlight=False)
    key = ' -H "Authorization: Bearer $KEY"' if host.proxy.get("api_keys") else ""
    body = f'{{"model":"{family.name}","task":"retrieval.query","input":["overheating lightsaber"]}}'
    command = f"curl {launch.url}/v1/embeddings -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}"
    out.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)
