"""Runs the jobs: in one process at a time, each key's oldest first, and continues those of the process before it."""

import asyncio
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from proxy import metrics
from proxy.batches.jobs import PARTS, BatchJob, BatchJobs
from proxy.batches.records import ENDED, BatchApi, BatchFault, BatchStatus
from proxy.batches.run import JobRun, RunContext
from proxy.batches.uploads import UploadedFiles

log = logging.getLogger(__name__)

AT_ONCE = 4  # jobs, each of another key
OWNER_POLL_S = 1.0  # how soon another process's jobs are seen, and a lock that it left
CLEAN_S = 60.0


class BatchOwner:
    """Runs the jobs in the storage while this process has the lock."""

    def __init__(self, jobs: BatchJobs, context: RunContext) -> None:
        self._jobs, self._context = jobs, context
        self._files = UploadedFiles(jobs.storage)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[str, BatchStatus] = {}  # these never change again
        self._cleaned_at = -CLEAN_S
        self._warned = False
        self._wake = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(self._wake.set)

        jobs.changed = wake

    async def run(self, stopping: asyncio.Event) -> None:
        """Run jobs until `stopping` is set. Then another process continues them from the parts that are done."""
        while not stopping.is_set():
            with self._lock() as locked:
                if locked:
                    await self._own(stopping)
            await self._pause()

    async def _own(self, stopping: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                while not stopping.is_set():
                    try:
                        await self._step(tasks)
                    except OSError as error:
                        log.warning("batch jobs: %s", error)
                    await self._pause()
                for task in self._running.values():
                    task.cancel()
        finally:
            _show(Counter())

    async def _step(self, tasks: asyncio.TaskGroup) -> None:
        """Cancel, start and delete what is due. Raises OSError."""
        if time.monotonic() - self._cleaned_at > CLEAN_S:
            self._cleaned_at = time.monotonic()
            await asyncio.to_thread(self._jobs.delete_old)
            await asyncio.to_thread(self._files.delete_old)
        unfinished = await asyncio.to_thread(self._unfinished)
        cancelled = [job for job in unfinished if job.cancel_asked]
        for job in cancelled:
            task = self._running.get(job.spec.id)
            if task and not task.cancelling():
                task.cancel()
        not_started = [job for job in cancelled if job.spec.id not in self._running]
        for job in [*not_started, *due([job for job in unfinished if job not in cancelled], self._running)]:
            self._running[job.spec.id] = tasks.create_task(self._run(job), name=job.spec.id)

    def _unfinished(self) -> list[BatchJob]:
        """The jobs that have not ended, the oldest first. Others need their input no more. Blocks. Raises OSError."""
        names = set(os.listdir(self._jobs.storage.jobs))  # noqa: PTH208 # names alone
        self._ended = {name: status for name, status in self._ended.items() if name in names}
        jobs = self._jobs.named(names - self._ended.keys())
        unfinished = [job for job in jobs if job.state.status not in ENDED]
        for job in jobs:
            if job.state.status in ENDED:
                job.input.unlink(missing_ok=True)
                self._ended[job.spec.id] = job.state.status
        _show(Counter([*self._ended.values(), *(job.status for job in unfinished)]))
        return unfinished

    async def _run(self, job: BatchJob) -> None:
        """Until the job has ended; what goes wrong here ends no other job."""
        try:
            run = await asyncio.to_thread(JobRun, job, self._context)
            try:
                await (_cancel(run) if job.cancel_asked else run.run())
            except asyncio.CancelledError:
                if not job.cancel_asked:
                    raise
                await _cancel(run)
            except Exception as error:  # a fault of ours, or a broken disk: begun again, it would fail again
                log.exception("%s: unexpected error", job.spec.id)
                await run.end(BatchStatus.FAILED, BatchFault(code="internal_error", message=f"{error!r:.200}"))
        except OSError as error:
            log.warning("%s: %s", job.spec.id, error)
            await asyncio.sleep(OWNER_POLL_S)
        finally:
            del self._running[job.spec.id]
            self._wake.set()

    async def _pause(self) -> None:
        """Until there is something to do, or may be."""
        with suppress(TimeoutError):
            async with asyncio.timeout(OWNER_POLL_S):
                await self._wake.wait()
        self._wake.clear()

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Hold the lock for the block; False if another process has it. The system takes it from a killed one."""
        lock = FileLock(self._jobs.storage.lock_file, mode=0o600, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            if not self._warned:
                log.warning("batch jobs do not run: %s cannot be locked: %s", lock.lock_file, error)
            self._warned = True
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def due(unfinished: Iterable[BatchJob], running: Collection[str]) -> list[BatchJob]:
    """The jobs to start now: of each key the oldest, AT_ONCE in all."""
    oldest = dict[str, BatchJob]()
    for job in unfinished:
        oldest.setdefault(job.spec.client, job)
    waiting = [job for job in oldest.values() if job.spec.id not in running]
    return waiting[: max(0, AT_ONCE - len(running))]


async def _cancel(run: JobRun) -> None:
    """End it. OpenAI's API keeps the results so far."""
    if run.job.spec.api is BatchApi.JINA:
        await asyncio.to_thread(shutil.rmtree, run.job.folder / PARTS, ignore_errors=True)
    await run.end(BatchStatus.CANCELLED)


def _show(counted: Counter[BatchStatus]) -> None:
    for status in BatchStatus:
        metrics.BATCH_JOBS.labels(status).set(counted[status])
