"""Spreads a job over the hosts of a cluster: a worker on each that serves, another where one is lost."""

import asyncio
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, chdir, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launcher.cluster.client import ask_cluster
from launcher.cluster.ray_start import HEAD_RESOURCE, RayAccess
from launcher.corpus.display import Figures, JobProgress
from launcher.corpus.endpoint import EmbeddingEndpoint
from launcher.corpus.job import CorpusJob
from launcher.corpus.on_hosts.board import BoardView, PartBoard
from launcher.corpus.on_hosts.worker import PartWorker, WorkerTask
from launcher.corpus.plan import corpus_command
from launcher.corpus.session import RunRequest
from launcher.errors import JobStopped, LauncherError
from launcher.settings.folders import runtime_base
from proxy.bulk.runner import RetryPolicy

_NAMESPACE = "trillama-corpus"
GONE_S = 30.0  # a node that does not serve for so long gives its host's parts to others
_ROUND_S = 1.0


async def run_on_hosts(
    access: RayAccess, job: CorpusJob, endpoint: EmbeddingEndpoint, request: RunRequest, stop: asyncio.Event
) -> str:
    """Run what is left of the job on the cluster's hosts. Returns its speed in words. Raises LauncherError."""
    begun = JobProgress(rows_done=job.rows_done, error_rows=job.error_rows, hosts=0)
    rows = [one.rows for one in job.plan.inputs]
    try:
        async with _connected(access):
            here = ray.remote(PartBoard).options(num_cpus=0, resources={HEAD_RESOURCE: 0.001})
            board = here.remote(rows, job.writer.ledger.done, begun)
            workers = HostWorkers(board, request, dict(endpoint.session.headers), len(rows), begun)
            figures = Figures(rows=job.plan.rows, look=lambda: workers.progress)
            async with request.display.live(figures):
                await workers.run(stop)
    except (RayError, ConnectionError) as error:
        raise JobStopped(
            f"the cluster's Ray ended or was lost ({type(error).__name__}), and what is done stays: when it is back, "
            f"{corpus_command('resume', request.folder)}"
        ) from error
    job.rows_done, job.error_rows = workers.progress.rows_done, workers.progress.error_rows
    return figures.summary()


@asynccontextmanager
async def _connected(access: RayAccess) -> AsyncIterator[None]:
    """Connected to Ray for the block, which hides what Ray prints on standard output."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # noqa: ASYNC230, PTH123 # it never blocks
        await asyncio.to_thread(_connect, access.address)  # in a thread Ray leaves our handlers of signals alone
        try:
            yield
        finally:
            await asyncio.to_thread(ray.shutdown)


def _connect(address: str) -> None:
    # The workers import from the folder that we are in now, before anything else: it must not be the user's.
    with chdir(Path(__file__).parents[3]):
        ray.init(address, namespace=_NAMESPACE, log_to_driver=False, logging_level=logging.CRITICAL)


@dataclass(slots=True)
class HostWorker:
    """A worker that runs, and when its node was last known to serve."""

    name: str
    url: str
    actor: "ray.actor.ActorHandle"
    ended: "asyncio.Future[LauncherError | None]"
    served_at: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class HostWorkers:
    """`headers` are those of calls to a node, `inputs` is how many files the job has."""

    board: "ray.actor.ActorHandle"
    request: RunRequest
    headers: Mapping[str, str]
    inputs: int
    progress: JobProgress
    _running: dict[str, HostWorker] = field(default_factory=dict, init=False)
    _lost: dict[str, int] = field(default_factory=dict, init=False)  # how often in a row, by host
    _again_at: dict[str, float] = field(default_factory=dict, init=False)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count, init=False)

    async def run(self, stop: asyncio.Event) -> None:
        """Return when every part is done, or when those in work are after `stop`. Raises LauncherError, RayError."""
        try:
            while True:
                if stop.is_set():
                    await self.board.stop.remote()
                await self._collect()
                view: BoardView = await self.board.view.remote()
                self.progress = view.progress
                if not self._running and (stop.is_set() or not view.rows_left):
                    return
                nodes = await _serving_nodes()
                if nodes is not None:
                    await self._match(nodes, start=bool(view.rows_left) and not stop.is_set())
                await self._wait()
        finally:
            for one in self._running.values():
                one.ended.cancel()
                ray.kill(one.actor)

    async def _wait(self) -> None:
        if self._running:
            every = [one.ended for one in self._running.values()]
            await asyncio.wait(every, timeout=_ROUND_S, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(_ROUND_S)

    async def _collect(self) -> None:
        """Take note of the workers that have ended."""
        for host, one in [(host, one) for host, one in self._running.items() if one.ended.done()]:
            try:
                error = one.ended.result()
            except RayError as lost:
                if isinstance(lost, RayTaskError) and not isinstance(lost.cause, RayError):
                    raise lost.cause from lost  # a fault of ours
                await self._give_up(host, f"its worker was lost ({type(lost).__name__})")
                continue
            if error:
                raise type(error)(f"{host}: {error}")
            self._lost.pop(host, None)
            await self._forget(host)

    async def _match(self, nodes: Mapping[str, str], *, start: bool) -> None:
        """A worker for each host whose node serves, and for no other."""
        now = time.monotonic()
        for host, one in list(self._running.items()):
            if nodes.get(host) == one.url:
                one.served_at = now
            elif host in nodes or now - one.served_at > GONE_S:
                await self._give_up(host, "its node does not serve any more")
        if not start:
            return
        places = await asyncio.to_thread(_ray_places)
        for number, (host, url) in enumerate(sorted(nodes.items())):
            if host in places and host not in self._running and self._again_at.get(host, 0) <= now:
                first = number * self.inputs // len(nodes)
                await self._start(host, url, places[host], first)

    async def _start(self, host: str, url: str, place: str, first: int) -> None:
        request, name = self.request, f"{host} {next(self._numbers)}"
        task = WorkerTask(
            worker=name,
            folder=request.folder.absolute(),
            url=url,
            headers=self.headers,
            first=first,
            concurrency=request.concurrency,
            dedupe=request.dedupe,
        )
        await self.board.enter.remote(name)
        there = NodeAffinitySchedulingStrategy(node_id=place, soft=False)
        actor = ray.remote(PartWorker).options(num_cpus=0, scheduling_strategy=there).remote(task, self.board)
        ended = asyncio.wrap_future(actor.run.remote().future())
        self._running[host] = HostWorker(name, url, actor, ended)

    async def _give_up(self, host: str, reason: str) -> None:
        """Give the parts of a host's worker to others, and start another there after a pause."""
        failures = self._lost[host] = self._lost.get(host, 0) + 1
        self._again_at[host] = time.monotonic() + RetryPolicy().pause_s(failures, None)
        self.request.display.console.say(f"{host}: {reason}; its parts are done again")
        await self._forget(host)

    async def _forget(self, host: str) -> None:
        one = self._running.pop(host)
        ray.kill(one.actor)
        await self.board.leave.remote(one.name)


async def _serving_nodes() -> dict[str, str] | None:
    """The URL of each node that serves, by its host; None while the cluster's head does not answer."""
    try:
        view = await ask_cluster(runtime_base(), "GET", "/status")
    except (LauncherError, aiohttp.ClientError, OSError, TimeoutError):
        return None
    return {one.report.host: one.report.url for one in view.nodes if not one.reason}


def _ray_places() -> dict[str, str]:
    """Ray's id of each host, by its address."""
    return {str(one["NodeManagerAddress"]): str(one["NodeID"]) for one in ray.nodes() if one["Alive"]}
