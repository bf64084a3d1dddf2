"""The set: three llama-servers and the proxy, from decided to gone."""

import asyncio
import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tomli_w

from launcher import health
from launcher.backend import POLL_S, Backend, Report, restart_delay
from launcher.canary import Canary, golden_path
from launcher.child import running
from launcher.command import Placement
from launcher.config import HostConfig, Settings, cache_dir, log_dir, runtime_base
from launcher.engine import Engine
from launcher.errors import ConfigError, StartError, cause_of
from launcher.runtime import private_folder
from launcher.watch import watch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """All that is decided before a process starts: `models` has a checked file for each backend to be started."""

    settings: Settings
    listener: socket.socket
    engine: Engine
    models: Mapping[str, Path]

    @property
    def url(self) -> str:
        """Where a client on this machine finds the proxy."""
        return url_of(self.settings.host)


async def serve(launch: Launch, report: Report, when_ready: Callable[[], Awaitable[None]]) -> None:
    """Run the set while `when_ready` runs, which starts when every started backend answers through the proxy.

    A child that ends or goes wrong is started again; the others go on. Whatever ends the set, the proxy goes first:
    its connections would keep a llama-server from ending (trap T6). Raises ConfigError or StartError if the proxy
    cannot start, StartError if every backend has failed for good, or what `when_ready` raises.
    """
    async with private_folder(launch.settings.host.runtime_dir or runtime_base()) as folder:
        backends = [_backend(launch, folder, report, name) for name in launch.models]
        try:
            async with asyncio.TaskGroup() as tasks:
                serving = [tasks.create_task(backend.serve()) for backend in backends]
                lost = tasks.create_task(_all_failed(serving, backends))
                async with asyncio.TaskGroup() as front:
                    proxy = front.create_task(_serve_proxy(launch, folder))
                    await _until_ready(launch)
                    await when_ready()
                    proxy.cancel()
                for task in (lost, *serving):
                    task.cancel()
        except ExceptionGroup as group:
            raise cause_of(group) from group


def url_of(host: HostConfig) -> str:
    """Where a client on this machine finds the proxy."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.host, host.host)  # noqa: S104 # compared, not bound
    return f"http://[{address}]:{host.port}" if ":" in address else f"http://{address}:{host.port}"


def listen(host: HostConfig) -> socket.socket:
    """The socket that clients connect to: systemd's if it hands us one, else a new one; port 0 takes a free one.

    It is the launcher's, so that it outlives a proxy that is started again. Raises StartError with what to do.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()):  # sd_listen_fds(3): the first is number 3
        return socket.socket(fileno=3)
    kind = socket.AF_INET6 if ":" in host.host else socket.AF_INET
    try:
        return socket.create_server((host.host, host.port), family=kind, backlog=1024)
    except OSError as error:
        fix = (
            "choose another with --port" if error.errno == errno.EADDRINUSE else "is --host an address of this machine?"
        )
        raise StartError(f"cannot listen on {host.host}:{host.port}: {error.strerror}; {fix}") from error


def _backend(launch: Launch, folder: Path, report: Report, name: str) -> Backend:
    host, model = launch.settings.host, launch.models[name]
    placement = Placement(
        name=name,
        model=model,
        socket=_socket(folder, name),
        slots=host.engine.slots,
        batch_tokens=launch.settings.max_input_tokens,
        gpu_layers=host.engine.gpu_layers,
        threads=host.engine.threads,
    )
    canary = Canary(
        socket=placement.socket,
        dimensions=launch.settings.family.dimensions,
        golden=golden_path(cache_dir() / "golden", model),
    )
    log = log_dir() / f"{name}.log"
    return Backend(
        engine=launch.engine, placement=placement, policy=host.supervision, canary=canary, log=log, report=report
    )


async def _all_failed(serving: Sequence[asyncio.Task[None]], backends: Sequence[Backend]) -> None:
    """Wait until no backend is served any more; always ends by raising."""
    await asyncio.wait(serving)
    raise StartError("\n".join(f"{one.status.name}: gave up: {one.status.cause}" for one in backends))


async def _serve_proxy(launch: Launch, folder: Path) -> None:
    """Keep the proxy running until cancelled; the loaded models do not notice when it is started again.

    Raises ConfigError or StartError where starting it again would not help.
    """
    config = folder / "proxy.toml"
    config.write_text(tomli_w.dumps(_proxy_config(launch, folder)), encoding="utf-8")
    fd, policy = launch.listener.fileno(), launch.settings.host.supervision
    # -P: never a folder `proxy` of the user's
    argv = (sys.executable, "-P", "-m", "proxy", "--config", str(config), "--listen-fd", str(fd))
    grace_s = policy.grace_s + 2  # its own bound is grace_s, see _proxy_config
    failures = 0
    while True:
        started = time.monotonic()
        async with running(argv, env=os.environ, grace_s=grace_s, pass_fds=(fd,)) as process:
            code = await watch(process, partial(health.proxy_up, launch.url), policy)
        if code == ConfigError.exit_code:
            raise ConfigError("the proxy refused its settings; its reason is above")
        failures = 1 if time.monotonic() - started > policy.stable_s else failures + 1
        delay = restart_delay(policy, failures, was_ready=True)
        if delay is None:
            raise StartError(f"the proxy exited with {code}; its reason is above")
        what = "does not answer" if code is None else f"exited with {code}"
        log.warning("the proxy %s and is started again in %g s", what, delay)
        await asyncio.sleep(delay)


async def _until_ready(launch: Launch) -> None:
    while not await _ready(launch):  # noqa: ASYNC110 # it is about another process
        await asyncio.sleep(POLL_S)


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
        "serial_backends": host.engine.gpu_layers == 0,  # the cores compute one batch faster than three at a time
        **host.proxy,
        **notice,
        "family": str(launch.settings.family_file.resolve()),
        "host": host.host,
        "port": host.port,
        "drain_s": host.supervision.grace_s,
        "max_input_tokens": launch.settings.max_input_tokens,
        "backends": backends,
    }


def _socket(folder: Path, name: str) -> Path:
    return folder / f"{name}.sock"
