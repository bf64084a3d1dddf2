"""Asynchronous requests: a few run at a time, and results are kept until fetched, too old or too many."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from proxy import metrics
from proxy.errors import NotFound, Overloaded, ProxyError
from proxy.quoting import quoted
from proxy.scheduling.memory_budget import Reservation
from proxy.types import EmbedRequest, EmbedResult
from proxy.wire.dialect import ParsedRequest

log = logging.getLogger("proxy.job")

Embed = Callable[[EmbedRequest], Awaitable[EmbedResult]]


class JobStatus(StrEnum):
    """RunPod's names of a job's states."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is kept for clients that may never fetch it. `kept_s` is RunPod's own half hour.

    `fetched_s`: RunPod's async client polls once more after it saw the end, so a first fetch cannot be the last.
    """

    unfinished: int = 128
    at_once: int = 8
    kept: int = 1024
    kept_bytes: int = 512 * 2**20
    kept_s: float = 30 * 60.0
    fetched_s: float = 60.0


@dataclass(slots=True, eq=False)
class Job:
    """One request and its state, which only Jobs changes. `render` builds the output once there is a `result`."""

    render: Callable[[EmbedResult], object]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: JobStatus = JobStatus.IN_QUEUE
    submitted: float = field(default_factory=time.perf_counter)
    started: float | None = None
    ended: float | None = None
    result: EmbedResult | None = None
    error: str | None = None  # only the message: an exception's traceback would keep the texts in memory

    @property
    def size(self) -> int:
        """Bytes kept for the client."""
        return self.result.vectors.nbytes if self.result else 0


class Jobs:
    """The jobs of one server. Their tasks belong to the given group, and end with it."""

    def __init__(
        self, embed: Embed, tasks: asyncio.TaskGroup, retry_after_s: Callable[[], int], bounds: Bounds
    ) -> None:
        self._embed = embed
        self._tasks = tasks
        self._retry_after_s = retry_after_s
        self._bounds = bounds
        self._slots = asyncio.Semaphore(bounds.at_once)
        self._jobs: dict[str, Job] = {}
        self._running: dict[Job, asyncio.Task[None]] = {}
        self._expiry: dict[Job, asyncio.TimerHandle] = {}

    def submit(self, parsed: ParsedRequest, room: Reservation) -> Job:
        """Queue a request, and take over the memory reserved for it. Raises Overloaded if the queue is full."""
        if len(self._running) >= self._bounds.unfinished:
            message = f"{len(self._running)} jobs are unfinished: send this one later"
            raise Overloaded(message, retry_after_s=self._retry_after_s())
        job = Job(parsed.render)
        self._jobs[job.id] = job
        task = self._tasks.create_task(self._run(job, parsed.request), name=f"job {job.id}")
        self._running[job] = task
        kept = room.moved()
        task.add_done_callback(lambda _: self._end(job, kept))
        return job

    def reject(self, error: ProxyError) -> Job:
        """A job that failed before it could start, kept like any other so that its client learns why."""
        job = Job(lambda _: None, status=JobStatus.FAILED, ended=time.perf_counter(), error=error.message)
        self._jobs[job.id] = job
        self._keep(job)
        return job

    def fetch(self, job_id: str) -> Job:
        """The job of that id; a finished one is dropped soon afterwards. Raises NotFound."""
        if (job := self._jobs.get(job_id)) is None:
            gone = "it never existed, was fetched, is too old, or was lost at a reload or restart: send it again"
            raise NotFound(f"there is no job {quoted(job_id)}: {gone}")
        if job.ended is not None:
            self._expire(job, self._bounds.fetched_s)
        return job

    def cancel(self, job_id: str) -> Job:
        """The job of that id, stopped unless it is already finished. Raises NotFound."""
        job = self.fetch(job_id)
        if job in self._running:
            self._running[job].cancel()
            job.status = JobStatus.CANCELLED
        return job

    def cancel_all(self) -> None:
        for job in list(self._running):
            self.cancel(job.id)

    async def _run(self, job: Job, request: EmbedRequest) -> None:
        async with self._slots:
            job.started, job.status = time.perf_counter(), JobStatus.IN_PROGRESS
            try:
                job.result = await self._embed(request)
            except ProxyError as error:
                job.error = error.message
            except Exception:  # one broken job must not end the task group, and the server with it
                log.exception("job %s: unexpected error", job.id)
                job.error = "internal error; the log has it under this job's id"
            else:
                metrics.INPUTS.labels(job.result.task).inc(job.result.inputs)
                metrics.TOKENS.labels(job.result.task).inc(job.result.tokens)
        job.status = JobStatus.FAILED if job.error else JobStatus.COMPLETED

    def _end(self, job: Job, room: Reservation) -> None:
        room.close()
        del self._running[job]
        job.ended = time.perf_counter()
        log.info("job %s %s %.1f ms", job.id, job.status, (job.ended - job.submitted) * 1e3)
        self._keep(job)

    def _keep(self, job: Job) -> None:
        self._expire(job, self._bounds.kept_s)
        self._make_room(job)

    def _expire(self, job: Job, seconds: float) -> None:
        """Drop the job after that many seconds, or when already planned, if sooner. Keeps the order of `_expiry`."""
        loop = asyncio.get_running_loop()
        planned = self._expiry.get(job)
        if planned is None or planned.when() > loop.time() + seconds:
            if planned:
                planned.cancel()
            self._expiry[job] = loop.call_later(seconds, self._drop, job)

    def _make_room(self, newest: Job) -> None:
        """Drop the jobs that finished first until the rest fits; the newest stays, however large."""
        held = sum(job.size for job in self._expiry)
        for job in list(self._expiry):
            if job is newest or (len(self._expiry) <= self._bounds.kept and held <= self._bounds.kept_bytes):
                return
            held -= job.size
            self._drop(job)

    def _drop(self, job: Job) -> None:
        self._expiry.pop(job).cancel()
        del self._jobs[job.id]


@contextlib.asynccontextmanager
async def running_jobs(
    embed: Embed, retry_after_s: Callable[[], int], bounds: Bounds | None = None
) -> AsyncIterator[Jobs]:
    """Run jobs for the duration of the block; on exit, unfinished ones are cancelled.

    `retry_after_s` says when there may be room for another, if there are too many.
    """
    async with asyncio.TaskGroup() as tasks:
        jobs = Jobs(embed, tasks, retry_after_s, bounds or Bounds())
        try:
            yield jobs
        finally:
            jobs.cancel_all()
