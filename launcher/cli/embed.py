"""`trillama embed`: one call, of the running server or of one started for it."""

import io
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import aiohttp
import numpy as np
import orjson
from rich.console import Console

from launcher.control.address import server_url
from launcher.errors import ArgumentError, ConfigError, LauncherError, NotRunning, StartError
from launcher.fleet import fleet as supervisor
from launcher.fleet.fleet import Fleet
from launcher.fleet.listener import listen
from launcher.fleet.prepare import prepare
from launcher.settings.config import HostConfig, Settings
from launcher.settings.family import Family
from launcher.supervision import probes
from launcher.supervision.deployment import url_of
from launcher.terminal.progress import Display

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    texts: tuple[str, ...]
    task: str | None
    dimensions: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of the API's answer, as JSON."""

    body: bytes

    def npy(self) -> bytes:
        """The vectors as a NumPy file: float32, shape (n, dimensions)."""
        file = io.BytesIO()
        try:
            rows = [row["embedding"] for row in orjson.loads(self.body)["data"]]
            np.save(file, np.array(rows, dtype=np.float32))
        except (ValueError, KeyError, TypeError) as error:
            raise LauncherError("what answered is no trillama: its answer has no vectors; check --url") from error
        return file.getvalue()


async def run(settings: Settings, wanted: Wanted, *, url: str | None, api_key: str | None, err: Console) -> Answer:
    """The answer for `wanted`. Raises LauncherError with the server's own words if it refuses."""
    headers = authorization(settings.host, api_key)
    return await served(settings, wanted.task, partial(_ask, headers, wanted), url=url, err=err)


async def served(
    settings: Settings, task: str | None, use: Callable[[str], Awaitable[T]], *, url: str | None, err: Console
) -> T:
    """What `use` makes of the address of a server for that task: the running one, or one that is there for it only.

    Raises LauncherError where nobody answers at the `url` that was given, or what keeps it from starting.
    """
    at = server_url(url) if url is not None else url_of(settings.host)
    if await probes.backends_ready(at) is not None:
        return await use(at)
    if url is not None:
        raise NotRunning(f"no trillama answers at {at}: start it with `trillama serve`, or leave out --url")
    return await _started(settings, task, use, Display(err))


async def _started(settings: Settings, task: str | None, use: Callable[[str], Awaitable[T]], display: Display) -> T:
    """Start the one backend that the task needs, and a proxy on a free port; both are gone when this returns."""
    needed = _backend_of(settings.family, task)
    settings = settings.with_host(
        host="127.0.0.1",
        port=0,
        proxy=settings.host.proxy.model_copy(update={"log_level": "warning"}),
        supervision=settings.host.supervision.model_copy(update={"max_failures": 0}),  # one call: no second try
    )
    answers: list[T] = []
    with listen(settings.host) as listener, display.live():
        launch = await prepare(settings, listener, display, only=(needed,))
        launch = replace(launch, logs=launch.logs / "embed")  # a server that starts meanwhile has its own

        async def ask(fleet: Fleet) -> None:
            await fleet.ready()
            answers.append(await use(launch.url))

        await supervisor.serve(launch, display.status, ask)
    return answers[0]


def _backend_of(family: Family, task: str | None) -> str:
    try:
        return family.backend_of(task or family.default_task)
    except ConfigError as error:
        raise ArgumentError(f"--task: {error}") from error


async def _ask(authorized: Mapping[str, str], wanted: Wanted, url: str) -> Answer:
    asked = {"input": wanted.texts, "task": wanted.task, "dimensions": wanted.dimensions}
    headers = {"Content-Type": "application/json", **authorized}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(f"{url}/v1/embeddings", data=orjson.dumps(asked), headers=headers) as response,
        ):
            body = await response.read()
    except aiohttp.ClientError as error:
        raise LauncherError(f"{url} broke off: {error}") from error
    if response.status != 200:
        raise _refusal(response.status)(f"{url} refused: {_detail(body)}")
    return Answer(body)


def authorization(host: HostConfig, api_key: str | None) -> dict[str, str]:
    """The header with that key, or the configuration's; none where there is none. Raises ArgumentError."""
    key = api_key or next(iter(host.proxy.api_keys), None)
    if key and not (key.isascii() and key.isprintable()):
        raise ArgumentError("the API key has characters that no header may have: check --api-key and TRILLAMA_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _refusal(status: int) -> type[LauncherError]:
    """What the user gave is wrong, or there is no room now."""
    if status in (408, 429, 503, 504):
        return StartError
    return ArgumentError if 400 <= status < 500 else LauncherError


def _detail(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
