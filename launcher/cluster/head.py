"""What `trillama cluster head` and `join` keep running: Ray, the process that deploys, the Fronts and HAProxy."""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tomli_w

from launcher.cluster.director import Director, NodeWish
from launcher.cluster.haproxy import fronts_configuration, haproxy_program
from launcher.cluster.ray_start import (
    NodeCommand,
    RayAccess,
    RayPlace,
    head_command,
    head_environment,
    join_command,
    ray_environment,
    ray_folder,
)
from launcher.cluster.settings import Cluster
from launcher.errors import ConfigError, StartError, cause_of
from launcher.fleet.listener import listen
from launcher.printable import Terminal
from launcher.processes.runtime_folder import private_folder
from launcher.settings.config import HostConfig
from launcher.settings.folders import runtime_base, state_dir
from launcher.supervision import probes
from launcher.supervision.kept import KeptProgram
from launcher.systemd import notify
from launcher.terminal.log_format import use_log_format
from launcher.terminal.signals import until_signal
from proxy.contract.front import FrontSettings

RAY_GRACE_S = 5.0  # Ray ends its processes one by one, and what they keep survives SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOptions:
    """`token` is the secret's file; `node` how a node is started on this host too, if one is.

    `urls` are fixed nodes by their names, in place of Ray.
    """

    token: Path | None = None
    node: NodeCommand | None = None
    urls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _FrontPlace:
    """One Front: its listening socket, which outlives its process, its file and its control socket."""

    listener: socket.socket
    file: Path
    control: Path

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def url(self) -> str:
        return _url_of(self.listener)


async def run_head(cluster: Cluster, options: HeadOptions, out: Terminal) -> None:
    """Run the head until SIGINT or SIGTERM. Raises LauncherError."""
    use_log_format(cluster.config.proxy.log_format)
    if not _alone(cluster, options):
        haproxy_program()  # missing: say so before anything runs
    try:
        await until_signal(_head(cluster, options, out))
    except ExceptionGroup as group:
        raise cause_of(group) from group


def _alone(cluster: Cluster, options: HeadOptions) -> bool:
    """Whether one Front answers the clients itself: before a single one HAProxy has nothing to choose from."""
    return bool(options.urls) and cluster.config.front.fronts == 1


async def run_join(head: str, place: RayPlace, token: Path, node: NodeCommand) -> None:
    """Keep this host joined to the head at ADDRESS:PORT until SIGINT or SIGTERM; its node lives inside Ray."""
    ray = KeptProgram(
        name="ray",
        command=lambda: join_command(place, head),
        env=ray_environment(token, node),
        grace_s=RAY_GRACE_S,
        first_delay_s=1.0,
        started=lambda: notify.tell(READY="1"),
    )
    await until_signal(_fed(ray))


async def _fed(program: KeptProgram) -> None:
    """Keep it running, and feed systemd's watchdog: what is below restarts by itself."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(program.keep())
        tasks.create_task(notify.feed_watchdog(_alive))


async def _alive() -> bool:
    return True


async def _head(cluster: Cluster, options: HeadOptions, out: Terminal) -> None:
    front, state = cluster.config.front, state_dir() / "cluster"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with private_folder(runtime_base()) as folder:
        with (
            listen(HostConfig(host=front.host, port=front.port)) as listener,
            _fronts(cluster, folder, state, listener if _alone(cluster, options) else None) as fronts,
        ):
            url = _url_of(listener)
            controls = [one.control for one in fronts]
            wish = NodeWish(front.spaces, options.urls, _ray_access(cluster, options))
            director = Director(state / "state.json", folder, url, wish, controls)
            director.programs = [
                *(_ray_programs(cluster, options, folder, state) if options.token else ()),
                *(_front_program(number, one) for number, one in enumerate(fronts, 1)),
                *(() if _alone(cluster, options) else (_haproxy(folder, listener, fronts),)),
            ]
            ended = asyncio.Event()
            async with director.serving(ended.set), asyncio.TaskGroup() as tasks:
                keeping = [tasks.create_task(_kept(one)) for one in director.programs]
                keeping.append(tasks.create_task(director.run()))
                keeping.append(tasks.create_task(_announced(url, options, cluster, out)))
                await ended.wait()
                for task in keeping:
                    task.cancel()


def _ray_access(cluster: Cluster, options: HeadOptions) -> RayAccess | None:
    if options.token is None:
        return None
    ray = cluster.config.ray
    return RayAccess(address=f"{ray.address}:{ray.port}", token=options.token.absolute())


async def _kept(program: KeptProgram) -> None:
    code = await program.keep()
    raise StartError(f"{program.name} exited with {code}; its reason is above")


async def _announced(url: str, options: HeadOptions, cluster: Cluster, out: Terminal) -> None:
    """Print where the cluster is once it answers, and feed the watchdog."""
    if options.token:
        ray = cluster.config.ray
        out.say(f"hosts join with: trillama cluster join {ray.address}:{ray.port} --token-file {options.token.name}")
        out.say(f"the token, to be copied to them: {options.token}")
    while not await probes.proxy_up(url):  # noqa: ASYNC110 # another process sets no event
        await asyncio.sleep(0.2)
    out.say(f"the cluster is served at {url}; its nodes: trillama cluster status")
    notify.tell(READY="1")
    await notify.feed_watchdog(partial(probes.proxy_up, url))


def _ray_programs(cluster: Cluster, options: HeadOptions, folder: Path, state: Path) -> Iterator[KeptProgram]:
    ray, token = cluster.config.ray, options.token
    assert token is not None  # noqa: S101 # the caller's condition
    place = RayPlace(
        address=ray.address,
        first_port=ray.port,
        folder=ray_folder(),
        object_store_bytes=ray.object_store_bytes,
        node=options.node is not None,
    )

    def start() -> Sequence[str]:
        # Else Ray takes the processes of a killed head, or of a host that joined on this machine, for a running head.
        (place.folder / "ray_current_cluster").unlink(missing_ok=True)
        return head_command(place)

    environment = {**ray_environment(token, options.node), **head_environment(place, state / "ray")}
    yield KeptProgram(name="ray", command=start, env=environment, grace_s=RAY_GRACE_S, first_delay_s=1.0)
    deployer = (sys.executable, "-P", "-m", "launcher.cluster.in_ray.deployer", str(cluster.file), str(folder))
    yield KeptProgram(name="deployer", command=lambda: deployer, env=ray_environment(token), first_delay_s=2.0)


@contextmanager
def _fronts(
    cluster: Cluster, folder: Path, state: Path, public: socket.socket | None = None
) -> Iterator[list[_FrontPlace]]:
    """The Fronts' sockets and files. All keep their batches in one folder, so any of them answers for each.

    `public`: the clients' own socket, for the only Front; else each has one that HAProxy reaches.
    """
    batches = cluster.config.proxy.batches_dir or state / "batches"
    (folder / "family.toml").write_bytes(cluster.family_file.read_bytes())
    with ExitStack() as stack:
        places = []
        for number in range(1, cluster.config.front.fronts + 1):
            listener = public or stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
            place = _FrontPlace(listener, folder / f"front-{number}.toml", folder / f"front-{number}.sock")
            _write_settings(cluster, place, folder, batches)
            places.append(place)
        yield places


def _write_settings(cluster: Cluster, place: _FrontPlace, folder: Path, batches: Path) -> None:
    config = cluster.config
    settings = FrontSettings(
        **{**config.proxy.model_dump(exclude_unset=True), "batches_dir": batches},
        family=folder / "family.toml",
        host=config.front.host,
        piece_texts=config.front.piece_texts,
        spaces=config.front.spaces,
        control=place.control,
    )
    text = tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
    place.file.write_text(text, encoding="utf-8")


def _front_program(number: int, place: _FrontPlace) -> KeptProgram:
    fd = place.listener.fileno()
    command = (sys.executable, "-P", "-m", "proxy", "--front", str(place.file), "--listen-fd", str(fd))
    return KeptProgram(
        name=f"front-{number}",
        command=lambda: command,
        env=os.environ,
        pass_fds=(fd,),
        grace_s=15.0,
        probe=partial(probes.proxy_up, place.url),
        final=frozenset({ConfigError.exit_code}),
    )


def _url_of(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _haproxy(folder: Path, listener: socket.socket, fronts: Sequence[_FrontPlace]) -> KeptProgram:
    file = folder / "haproxy.cfg"
    file.write_text(fronts_configuration(listener.fileno(), [one.port for one in fronts]), encoding="utf-8")
    command = (haproxy_program(), "-db", "-q", "-f", str(file))
    return KeptProgram(
        name="haproxy", command=lambda: command, env=os.environ, pass_fds=(listener.fileno(),), first_delay_s=0.05
    )
