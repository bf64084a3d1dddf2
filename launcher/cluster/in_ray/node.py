"""What runs inside Ray: on each host the actor that owns its node, and one table of all nodes on the head."""

import asyncio
import logging
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import NoReturn

import aiohttp
import orjson
import ray
from ray import serve
from ray.serve.schema import ServeDeploySchema

from launcher.cluster import nodes
from launcher.cluster.nodes import QUEUED, SPEED, HostReport, HostTable
from launcher.cluster.ray_start import HEAD_RESOURCE, NODE_RESOURCE, NODE_VARIABLE, NodeCommand, ray_folder
from launcher.cluster.settings import ClusterConfig
from launcher.control.ready_file import Announcement, read_announcement
from launcher.processes.child import leashed
from launcher.processes.child_log import ChildLog
from launcher.settings.folders import LOGS, make_folder

log = logging.getLogger("ray.serve")

NAMESPACE, APP, NODE, TABLE = "trillama", "trillama", "Node", "trillama-nodes"
REPORT_S = 1.0
NODE_GRACE_S = 20.0  # for the node's batches in flight; the Fronts send elsewhere what it refuses
_POLL_S = 0.1
_TIMEOUT = aiohttp.ClientTimeout(total=5)


def node_application(config: ClusterConfig, hosts: int, revision: int) -> ServeDeploySchema:
    """What Ray Serve is asked for: a node on each of that many hosts, or on as many as `[scale]` decides.

    As a document, not by `serve.run`, which starts every node again at each call: Ray compares the documents, starts
    the nodes again one after the other when the revision changes, and changes no node for another number of hosts.
    """
    count: Mapping[str, object] = {"num_replicas": hosts}
    if scale := config.scale:
        policy = {
            "policy_function": f"{nodes.__name__}:QueuedTokensPolicy",
            "policy_kwargs": {"queued_s": scale.queued_s},
        }
        limits = {"min_replicas": scale.min_nodes, "max_replicas": scale.max_nodes}
        delays = {"upscale_delay_s": scale.queued_s, "downscale_delay_s": scale.idle_s}
        count = {"autoscaling_config": {**limits, **delays, "policy": policy}}
    built = {
        "name": APP,
        "route_prefix": None,
        "import_path": f"{__name__}:built_application",
        "args": {"revision": revision, "unready_s": config.node.unready_s},
        "deployments": [{"name": NODE, **count}],
    }
    return ServeDeploySchema.model_validate({"proxy_location": "Disabled", "applications": [built]})


def built_application(arguments: Mapping[str, float]) -> object:
    """Called by Ray Serve, in a process of its own: the application with its one deployment."""
    node = serve.deployment(
        HostNode,
        name=NODE,
        max_replicas_per_node=1,
        ray_actor_options={"num_cpus": 0, "resources": {NODE_RESOURCE: 1}},
        health_check_period_s=REPORT_S,
        health_check_timeout_s=10.0,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=NODE_GRACE_S + 10,
        user_config={"unready_s": arguments["unready_s"]},
    )
    return node.bind(int(arguments["revision"]))


def host_table() -> "ray.actor.ActorHandle":
    """The handle of the table of nodes, which Ray starts on the head if it does not run."""
    actor = ray.remote(HostTable).options(
        name=TABLE,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        resources={HEAD_RESOURCE: 0.001},
    )
    return actor.remote()


class HostNode:
    """The actor that owns one host's node: `trillama serve` as its child, which dies with it, even by SIGKILL.

    Ray Serve makes one for each host, checks it, and makes another where it dies.
    """

    def __init__(self, revision: int) -> None:
        self._revision = revision
        self._command = NodeCommand.model_validate_json(os.environ[NODE_VARIABLE])
        self._ready_file = ray_folder().with_name("node.json")
        self._log = ChildLog(make_folder(LOGS) / "node.log")
        self._until_end = AsyncExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._announced: Announcement | None = None

    async def reconfigure(self, settings: Mapping[str, float]) -> None:
        """Called by Ray after it made us, and for other settings: start the node, and wait until it serves.

        Only then Ray counts us as started; models take as long as they take.
        """
        self._unready_s = settings["unready_s"]
        if self._process is not None:
            return
        self._ready_file.unlink(missing_ok=True)  # of one that was killed
        self._process = process = self._start(await self._until_end.enter_async_context(self._log.pipe()))
        self._latest = self._known(process, cause="it starts")
        self._ready_at = time.monotonic()
        # Ray owns the lifetime of an actor: it ends its loop, with this task, together with the process.
        self._reporting = asyncio.create_task(self._keep_reporting(process))
        while self._announced is None:
            self._check_running(process)
            await asyncio.sleep(_POLL_S)

    async def check_health(self) -> None:
        """Raise RuntimeError, upon which Ray starts another, if the node has ended or was not ready for too long.

        A node whose model recovers is not ready for a while and repairs itself: starting it again would take longer.
        """
        if self._process is None:
            return
        self._check_running(self._process)
        if time.monotonic() - self._ready_at > self._unready_s:
            raise RuntimeError(f"the node was not ready for {self._unready_s:g} s: {self._latest.cause}")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `QueuedTokensPolicy` decides by."""
        return {QUEUED: float(self._latest.queued_tokens), SPEED: self._latest.tokens_per_s}

    async def __del__(self) -> None:
        if self._process is None:
            return
        self._reporting.cancel()
        with suppress(Exception):  # the head may be away, and the node must end all the same
            async with asyncio.timeout(REPORT_S):
                await (await _table()).leave.remote(self._command.host, self._process.pid)
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, NODE_GRACE_S)
        self._process.kill()
        await self._until_end.aclose()

    def _start(self, output: int) -> subprocess.Popen[bytes]:
        ready = ("--ready-file", str(self._ready_file))
        with os.fdopen(output, "wb") as stream:
            return subprocess.Popen(
                leashed((*self._command.argv, *ready)),  # not `running`: this process has gRPC's threads
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=_environment(),
            )

    def _check_running(self, process: subprocess.Popen[bytes]) -> None:
        if (code := process.poll()) is not None:
            raise RuntimeError(f"the node on {self._command.host} ended with {code}: {self._log.telling}")

    def _known(self, process: subprocess.Popen[bytes], cause: str = "") -> HostReport:
        return HostReport(host=self._command.host, pid=process.pid, revision=self._revision, cause=cause)

    async def _keep_reporting(self, process: subprocess.Popen[bytes]) -> NoReturn:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                self._latest = await self._look(session, process)
                if self._latest.ready or self._announced is None:
                    self._ready_at = time.monotonic()
                try:
                    async with asyncio.timeout(REPORT_S * 5):
                        await (await _table()).report.remote(self._latest)
                except Exception as error:  # noqa: BLE001 # the head is away: the node serves on, and reports later
                    log.warning("the head does not take reports: %r", error)
                await asyncio.sleep(REPORT_S)

    async def _look(self, session: aiohttp.ClientSession, process: subprocess.Popen[bytes]) -> HostReport:
        """How the node is."""
        self._announced = self._announced or read_announcement(self._ready_file)
        if process.poll() is not None:
            return self._known(process, cause="it has ended")
        if self._announced is None:
            return self._known(process, cause="it starts")
        return await _asked(session, self._known(process).model_copy(update={"url": self._announced.url}))


async def _asked(session: aiohttp.ClientSession, known: HostReport) -> HostReport:
    """The report with what the node's `/ready` says."""
    try:
        async with session.get(f"{known.url}/ready") as response:
            body = orjson.loads(await response.read())
            headers = response.headers
            return known.model_copy(
                update={
                    "ready": response.status == 200,
                    "spaces": {name: f"{one['space']} ({one['quantization']})" for name, one in body["spaces"].items()},
                    "cause": "" if response.status == 200 else f"not ready: {body.get('backends')}",
                    "queued_tokens": int(headers.get("X-Queue-Tokens", 0)),
                    "tokens_per_s": float(headers.get("X-Tokens-Per-Second", 0)),
                }
            )
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
        return known.model_copy(update={"cause": f"/ready does not answer: {error!r}"})


async def _table() -> "ray.actor.ActorHandle":
    return await asyncio.to_thread(ray.get_actor, TABLE, NAMESPACE)


def _environment() -> dict[str, str]:
    """Ours without Ray's: its token is no business of a server that reads requests."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", NODE_VARIABLE))}
