"""One run of a job: finds the server, makes or checks the plan, runs what is left, and says how it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from launcher.arrays import F32
from launcher.corpus.display import Figures, JobDisplay, JobProgress
from launcher.corpus.endpoint import EmbeddingEndpoint, NotReached, embedding_endpoint
from launcher.corpus.job import CorpusJob, job_state, open_job, owned
from launcher.corpus.plan import PLAN, CorpusPlan, JobOptions, SpaceFound, corpus_command
from launcher.errors import ArgumentError, DiskError, JobStopped, LauncherError, NotRunning, StartError
from launcher.fleet.address import server_url
from launcher.fleet.temporary import authorization, served
from launcher.printable import Terminal
from launcher.settings.config import Settings
from proxy.bulk.concurrency import CallLimit
from proxy.bulk.runner import BulkRunner, RetryPolicy, RowFault, ServerBusy

T = TypeVar("T")
PATIENCE_S = 60.0  # for a server that is not ready yet
PARTS_IN_WORK = 3  # two have more rows than are in flight, and one is written; each is in memory
_FIRST_LIMIT = 4  # calls in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerChoice:
    """Which server embeds: the one at `url`, or as for `trillama embed` the running one, or one started for this."""

    settings: Settings
    url: str | None
    api_key: str | None
    err: Terminal

    async def use(self, options: JobOptions, work: Callable[[EmbeddingEndpoint], Awaitable[T]]) -> T:
        """Call `work` with the endpoint. Raises LauncherError, also for what `work` raised in groups."""

        async def at(url: str) -> T:
            headers = authorization(self.settings.host, self.api_key)
            async with embedding_endpoint(url, headers, options) as endpoint:
                return await work(endpoint)

        try:
            if self.url is not None:  # of whatever make, so it is asked for nothing but vectors
                return await at(server_url(self.url))
            return await served(self.settings, options.task, at, url=None, err=self.err)
        except ExceptionGroup as group:
            raise _first(group) from group


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A job and how it is run. `plan` gets the server's vector space and whether to stop; it blocks.

    `retry`: run the error rows again, instead of what is left. `run_parts`: does that elsewhere.
    """

    folder: Path
    options: JobOptions
    plan: Callable[[SpaceFound, Callable[[], bool]], CorpusPlan]
    display: JobDisplay
    concurrency: int
    dedupe: bool = False
    retry: bool = False
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    run_parts: "RunParts | None" = None


RunParts = Callable[[CorpusJob, EmbeddingEndpoint, RunRequest, asyncio.Event], Awaitable[str]]


async def run_job(server: ServerChoice, request: RunRequest, stop: asyncio.Event) -> str:
    """Run what is left of the job, until `stop` is set. Returns its speed in words. Raises LauncherError."""
    folder = request.folder

    async def work(endpoint: EmbeddingEndpoint) -> str:
        found = await reached(endpoint)
        plan = await asyncio.to_thread(request.plan, found, stop.is_set)
        endpoint.space = plan.space
        opened = partial(open_job, folder, plan, dedupe=request.dedupe, retry=request.retry)
        job = await asyncio.to_thread(opened)
        await asyncio.to_thread(job.remove_unfinished)
        summary = await (request.run_parts or run_here)(job, endpoint, request, stop)
        if job.complete:
            await asyncio.to_thread(job.writer.finish)
        return summary

    with owned(folder):
        return await server.use(request.options, work)


async def run_here(job: CorpusJob, endpoint: EmbeddingEndpoint, request: RunRequest, stop: asyncio.Event) -> str:
    """Run what is left of the job in this process. Returns its speed in words. Raises LauncherError."""
    runner = runner_of(endpoint, request.concurrency, request.policy)
    figures = Figures(rows=job.plan.rows, look=lambda: progress_of(job, endpoint, runner))
    try:
        async with request.display.live(figures):
            await runner.run(job.pending(), job.commit, stop)
    except ExceptionGroup as group:
        raise explained(group, request.folder) from group
    finally:
        job.halted = True  # for a thread that may still read
    return figures.summary()


def runner_of(endpoint: EmbeddingEndpoint, concurrency: int, policy: RetryPolicy) -> BulkRunner[str, F32]:
    """What sends a job's calls to that endpoint, at most `concurrency` at a time."""
    limit = CallLimit(start=min(_FIRST_LIMIT, concurrency), most=concurrency)
    return BulkRunner(
        send=endpoint.embed, healthy=endpoint.healthy, limit=limit, policy=policy, parts_in_work=PARTS_IN_WORK
    )


def progress_of(job: CorpusJob, endpoint: EmbeddingEndpoint, runner: BulkRunner[str, F32]) -> JobProgress:
    """How far a job is that runs in this process."""
    return JobProgress(
        rows_done=job.rows_done,
        error_rows=job.error_rows,
        texts=endpoint.texts,
        tokens=endpoint.tokens,
        in_flight=runner.limit.in_flight,
        limit=runner.limit.limit,
        busy=runner.counts.busy,
        failed=runner.counts.failed,
        trouble=runner.counts.last_trouble,
        rows_in_work=max(0, job.rows_begun - endpoint.texts),
    )


async def reached(endpoint: EmbeddingEndpoint) -> SpaceFound:
    """What the server says of its vectors, once it is ready. Raises NotRunning, StartError, ArgumentError."""
    pauses, busy = RetryPolicy(longest_pause_s=5), 0
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await endpoint.find_space()
                except NotReached as error:
                    raise NotRunning(f"{endpoint.url} {error}") from error
                except ServerBusy as error:
                    await asyncio.sleep(pauses.pause_s(busy, error.retry_after_s))
                    busy += 1
    except RowFault as fault:
        raise ArgumentError(f"{endpoint.url} does not embed: {fault.message}") from fault
    except TimeoutError as error:
        raise StartError(f"{endpoint.url} was not ready within {PATIENCE_S:.0f} s: try again later") from error


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The first error of ours in the groups, else the first of all."""
    ours = group.subgroup(LauncherError)
    one = (ours or group).exceptions[0]
    return _first(one) if isinstance(one, ExceptionGroup) else one


def explained(group: ExceptionGroup[Exception], folder: Path) -> Exception:
    """Why the job in that folder ended: an error of the system as a sentence; any other as it is."""
    error = _first(group)
    if not isinstance(error, OSError):
        return error
    where = error.filename or folder
    return DiskError(f"{where}: {error.strerror or error}; what is done stays: {corpus_command('resume', folder)}")


def stopped(folder: Path) -> JobStopped:
    """How a job says that it was stopped."""
    if not (folder / PLAN).exists():
        return JobStopped("stopped, with nothing done yet")
    state = job_state(folder)
    return JobStopped(
        f"stopped: {state.rows_done} of {state.rows} rows are done; continue with {corpus_command('resume', folder)}"
    )
