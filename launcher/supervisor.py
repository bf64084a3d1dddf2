"""The set: three llama-servers and the proxy, from decided to gone."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from platformdirs import user_log_path

from launcher import health
from launcher.backend import POLL_S, Backend, Report
from launcher.child import running
from launcher.command import Placement
from launcher.config import HostConfig, Settings, runtime_base
from launcher.engine import Engine
from launcher.errors import ChildExited, ConfigError, StartError, cause_of
from launcher.runtime import private_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """All that is decided before a process starts: `models` has a checked file for each backend to be started."""

    settings: Settings
    engine: Engine
    models: Mapping[str, Path]

    @property
    def url(self) -> str:
        """Where a client on this machine finds the proxy."""
        return url_of(self.settings.host)


async def serve(launch: Launch, report: Report, when_ready: Callable[[], Awaitable[None]]) -> None:
    """Run the set while `when_ready` runs, which starts when every started backend answers through the proxy.

    Whatever ends it, the proxy goes first: its connections would keep a llama-server from ending (trap T6). Raises
    StartError if the set does not become ready, ChildExited if one of it ends by itself, or what `when_ready` raises.
    """
    async with private_folder(launch.settings.host.runtime_dir or runtime_base()) as folder:
        try:
            async with asyncio.TaskGroup() as tasks:
                backends = [tasks.create_task(backend.serve()) for backend in _backends(launch, folder, report)]
                async with _proxy(launch, folder) as proxy:
                    await _until_ready(launch, proxy)
                    watch = tasks.create_task(_watch(proxy))
                    try:
                        await when_ready()
                    finally:
                        watch.cancel()  # from here on the proxy's end is our doing
                for backend in backends:
                    backend.cancel()
        except ExceptionGroup as group:
            raise cause_of(group) from group


def url_of(host: HostConfig) -> str:
    """Where a client on this machine finds the proxy."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.host, host.host)  # noqa: S104 # compared, not bound
    return f"http://[{address}]:{host.port}" if ":" in address else f"http://{address}:{host.port}"


def free_port(host: str, port: int) -> int:
    """`port` if it can be listened on, or a free one for 0. Raises StartError with what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
        return int(probe.getsockname()[1])


def _backends(launch: Launch, folder: Path, report: Report) -> list[Backend]:
    settings = launch.settings.host.engine
    logs = Path(os.environ.get("LOGS_DIRECTORY") or user_log_path("trillama"))
    logs.mkdir(parents=True, exist_ok=True)
    return [
        Backend(
            engine=launch.engine,
            placement=Placement(
                name=name,
                model=model,
                socket=_socket(folder, name),
                slots=settings.slots,
                batch_tokens=launch.settings.max_input_tokens,
                gpu_layers=settings.gpu_layers,
                threads=settings.threads,
            ),
            settings=settings,
            log=logs / f"{name}.log",
            report=report,
        )
        for name, model in launch.models.items()
    ]


@asynccontextmanager
async def _proxy(launch: Launch, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    config = folder / "proxy.toml"
    config.write_text(tomli_w.dumps(_proxy_config(launch, folder)), encoding="utf-8")
    argv = (sys.executable, "-P", "-m", "proxy", "--config", str(config))  # -P: never a folder `proxy` of the user's
    async with running(argv, env=os.environ, grace_s=launch.settings.host.engine.grace_s) as process:
        yield process


async def _until_ready(launch: Launch, proxy: asyncio.subprocess.Process) -> None:
    while not await _ready(launch):
        if proxy.returncode is not None:
            kind = ConfigError if proxy.returncode == ConfigError.exit_code else StartError
            raise kind(f"the proxy exited with {proxy.returncode} while starting; its reason is above")
        await asyncio.sleep(POLL_S)


async def _watch(proxy: asyncio.subprocess.Process) -> None:
    raise ChildExited(f"the proxy exited with {await proxy.wait()}; its reason is above")


async def _ready(launch: Launch) -> bool:
    states = await health.backends_ready(launch.url)
    return states is not None and all(states.get(name) for name in launch.models)


def _proxy_config(launch: Launch, folder: Path) -> dict[str, object]:
    """The proxy's file: the user's `[proxy]` table and what only the launcher knows. See proxy/config.py."""
    host = launch.settings.host
    backends = {
        name: {
            "url": f"unix://{_socket(folder, name)}",
            "slots": host.engine.slots,
            "batch_tokens": launch.settings.max_input_tokens,
            **({"model_file": str(launch.models[name])} if name in launch.models else {}),
        }
        for name in launch.settings.family.weights.models
    }
    notice = {"notice": host.notice} if host.notice else {}
    return {
        **host.proxy,
        **notice,
        "family": str(launch.settings.family_file.resolve()),
        "host": host.host,
        "port": host.port,
        "max_input_tokens": launch.settings.max_input_tokens,
        "backends": backends,
    }


def _socket(folder: Path, name: str) -> Path:
    return folder / f"{name}.sock"
