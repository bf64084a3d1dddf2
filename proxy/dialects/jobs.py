"""Requests whose caller comes back for the answer: worked a few at a time, kept until fetched, too old or too many."""

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
    """How much is held for callers who may never come back. `kept_s` is RunPod's own half hour.

    `fetched_s`: RunPod's async client asks once more after it saw the end, so a first fetch cannot be the last.
    """

    unfinished: int = 128
    at_once: int = 8
    kept: int = 1024
    kept_bytes: int = 512 * 2**20
    kept_s: float = 30 * 60.0
    fetched_s: float = 60.0


@dataclass(slots=True, eq=False)
class Job:
    """One request's life; Jobs alone changes it. `render` writes the answer once there is a `result`."""

    render: Callable[[EmbedResult], object]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: JobStatus = JobStatus.IN_QUEUE
    submitted: float = field(default_factory=time.perf_counter)
    started: float | None = None
    ended: float | None = None
    result: EmbedResult | None = None
    error: str | None = None  # its words alone: an exception keeps all that its traceback saw, the texts among it

    @property
    def size(self) -> int:
        """Bytes held for the caller."""
        return self.result.vectors.nbytes if self.result else 0


class Jobs:
    """The jobs of one server. Their tasks belong to the group that it is given, so that they end with it."""

    def __init__(self, embed: Embed, tasks: asyncio.TaskGroup, bounds: Bounds) -> None:
        self._embed = embed
        self._tasks = tasks
        self._bounds = bounds
        self._turns = asyncio.Semaphore(bounds.at_once)
        self._jobs: dict[str, Job] = {}
        self._running: dict[Job, asyncio.Task[None]] = {}
        self._expiry: dict[Job, asyncio.TimerHandle] = {}

    def submit(self, asked: ParsedRequest, room: Reservation) -> Job:
        """Put a request in line, with what it holds of the bytes for all. Raises Overloaded if the line is full."""
        if len(self._running) >= self._bounds.unfinished:
            raise Overloaded(f"{len(self._running)} jobs are unfinished: fetch later, or send fewer", retry_after_s=5)
        job = Job(asked.render)
        self._jobs[job.id] = job
        task = self._tasks.create_task(self._work(job, asked.request), name=f"job {job.id}")
        self._running[job] = task
        kept = room.moved()
        task.add_done_callback(lambda _: self._end(job, kept))
        return job

    def reject(self, error: ProxyError) -> Job:
        """A job that failed before it could begin, kept like any other so that its caller finds out why."""
        job = Job(lambda _: None, status=JobStatus.FAILED, ended=time.perf_counter(), error=error.message)
        self._jobs[job.id] = job
        self._keep(job)
        return job

    def fetch(self, job_id: str) -> Job:
        """The job of that id; one that has ended is dropped soon after. Raises NotFound."""
        if (job := self._jobs.get(job_id)) is None:
            raise NotFound(f"there is no job {quoted(job_id)} here: never was, or it was fetched or is too old")
        if job.ended is not None:
            self._expire(job, self._bounds.fetched_s)
        return job

    def cancel(self, job_id: str) -> Job:
        """The job of that id, stopped unless it has ended already. Raises NotFound."""
        job = self.fetch(job_id)
        if job in self._running:
            self._running[job].cancel()
            job.status = JobStatus.CANCELLED
        return job

    def cancel_all(self) -> None:
        for job in list(self._running):
            self.cancel(job.id)

    async def _work(self, job: Job, request: EmbedRequest) -> None:
        async with self._turns:
            job.started, job.status = time.perf_counter(), JobStatus.IN_PROGRESS
            try:
                job.result = await self._embed(request)
            except ProxyError as error:
                job.error = error.message
            except Exception:  # one broken job must not end the group, and with it the server
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
        """Drop it then, unless that is sooner already. Its place among who ended first stays the same."""
        loop = asyncio.get_running_loop()
        planned = self._expiry.get(job)
        if planned is None or planned.when() > loop.time() + seconds:
            if planned:
                planned.cancel()
            self._expiry[job] = loop.call_later(seconds, self._drop, job)

    def _make_room(self, newest: Job) -> None:
        """Drop who ended first until the rest fits; the newest stays, however large."""
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
async def working(embed: Embed, bounds: Bounds | None = None) -> AsyncIterator[Jobs]:
    """Jobs for as long as the block lasts; leaving it cancels those that are not done."""
    async with asyncio.TaskGroup() as tasks:
        jobs = Jobs(embed, tasks, bounds or Bounds())
        try:
            yield jobs
        finally:
            jobs.cancel_all()
