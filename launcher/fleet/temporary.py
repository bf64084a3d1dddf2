"""A server for one use: the one that runs, or one that is started for it and ends with it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import orjson

from launcher.errors import ArgumentError, ConfigError, LauncherError, NotRunning, StartError
from launcher.fleet import fleet as supervisor
from launcher.fleet.address import server_url
from launcher.fleet.fleet import Fleet
from launcher.fleet.listener import listen
from launcher.fleet.prepare import available_settings, prepare
from launcher.printable import Terminal
from launcher.settings.config import HostConfig, Settings
from launcher.settings.family import FamilyFile
from launcher.supervision import probes
from launcher.supervision.deployment import url_of
from launcher.terminal.progress import Display
from proxy.contract.log_lines import LogFormat

T = TypeVar("T")


async def served(
    settings: Settings, task: str | None, use: Callable[[str], Awaitable[T]], *, url: str | None, err: Terminal
) -> T:
    """Call `use` with the URL of a server for that task: the running one, or one started for this call only.

    Returns its result. Raises LauncherError if nothing answers at a given `url`, or if the server cannot start.
    """
    at = server_url(url) if url is not None else url_of(settings.host)
    if await probes.backends_ready(at) is not None:
        return await use(at)
    if url is not None:
        raise NotRunning(f"{at} {await probes.why_unready(at)}; without --url and --port a server is started")
    return await _started(settings, task, use, Display(err))


async def _started(settings: Settings, task: str | None, use: Callable[[str], Awaitable[T]], display: Display) -> T:
    """Start the one backend that the task needs and a proxy on a free port; both have ended when this returns."""
    _backend_of(settings.family, task)  # a wrong task is refused before anything is fetched
    with display.live():
        settings = await available_settings(settings, display)
    settings, needed = for_one_call(settings), _backend_of(settings.family, task)
    results: list[T] = []
    with listen(settings.host) as listener, display.live():
        deployment = await prepare(settings, listener, display, only=(needed,))
        deployment = replace(deployment, logs=deployment.logs / "embed")  # a server has its own

        async def ask(fleet: Fleet) -> None:
            await fleet.ready()
            results.append(await use(deployment.url))

        await supervisor.serve(deployment, display.status, ask)
    return results[0]


def for_one_call(settings: Settings) -> Settings:
    """The settings of a server that ends with the call, so that it must not begin the batches of another."""
    quiet = {"log_level": "warning", "log_format": LogFormat.TEXT, "batches_dir": None}
    return settings.with_host(
        host="127.0.0.1",
        port=0,
        proxy=settings.host.proxy.model_copy(update=quiet),
        supervision=settings.host.supervision.model_copy(update={"max_failures": 0}),  # for one call: no retry
    )


def _backend_of(family: FamilyFile, task: str | None) -> str:
    try:
        return family.backend_of(task or family.default_task)
    except ConfigError as error:
        raise ArgumentError(f"--task: {error}") from error


def authorization(host: HostConfig, api_key: str | None) -> dict[str, str]:
    """The header with that key or the configuration's first; empty without a key. Raises ArgumentError."""
    key = api_key or next(iter(host.proxy.api_keys), None)
    if key and not (key.isascii() and key.isprintable()):
        raise ArgumentError("the API key has characters that no header may have: check --api-key and TRILLAMA_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def refusal_class(status: int) -> type[LauncherError]:
    """The error for an HTTP answer with that status: the user's arguments are wrong, or the server has no room now."""
    if status in (408, 429, 503, 504):
        return StartError
    return ArgumentError if 400 <= status < 500 else LauncherError


def refusal_reason(body: bytes) -> str:
    """The server's own sentence in the body of an error, or its beginning if it has none."""
    try:
        return str(orjson.loads(body)["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
