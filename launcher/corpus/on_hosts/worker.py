"""What runs on each host: takes parts of the job, embeds them with the host's node, and writes them."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import ray

from launcher.arrays import F32
from launcher.corpus.display import JobProgress
from launcher.corpus.endpoint import EmbeddingEndpoint, embedding_endpoint
from launcher.corpus.job import CorpusJob, open_job
from launcher.corpus.pending import PendingPart
from launcher.corpus.plan import PLAN, CorpusPlan, read_plan
from launcher.corpus.rows.inputs import check_unchanged
from launcher.corpus.session import explained, progress_of, runner_of
from launcher.errors import DiskError, JobStopped, LauncherError
from proxy.bulk.ledger import RowRange
from proxy.bulk.runner import BulkRunner, RetryPolicy, RowError

_REPORT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTask:
    """`url` is the host's own node; `first` the number of the input to begin with, so that not all read the same."""

    worker: str
    folder: Path
    url: str
    headers: Mapping[str, str]
    first: int
    concurrency: int
    dedupe: bool


class PartWorker:
    """A Ray actor on one host; it lives for one task."""

    def __init__(self, task: WorkerTask, board: "ray.actor.ActorHandle") -> None:
        self._task = task
        self._board = board

    async def run(self) -> LauncherError | None:
        """Do parts until the board has no more. What ends the whole job is returned."""
        task = self._task
        try:
            plan = await asyncio.to_thread(_shared_plan, task.folder)
            share = BoardShare(task, self._board, len(plan.inputs))
            job = await asyncio.to_thread(open_job, task.folder, plan, dedupe=task.dedupe, share=share)
            job.rows_done = job.error_rows = 0  # the board adds up what each worker does
            async with embedding_endpoint(task.url, task.headers, plan.options) as endpoint:
                endpoint.space = plan.space
                runner = runner_of(endpoint, task.concurrency, RetryPolicy())
                await _Work(task, self._board, job, endpoint, runner).run()
        except LauncherError as error:
            return error
        except ExceptionGroup as group:
            cause = explained(group, task.folder)
            if isinstance(cause, LauncherError):
                return cause
            raise cause from group
        return None


def _shared_plan(folder: Path) -> CorpusPlan:
    """The job's plan, whose inputs are here what they are on the head's host. Raises LauncherError."""
    if not (folder / PLAN).exists():
        raise DiskError(f"{folder} is not there: --out and the inputs must be at the same paths on all hosts")
    plan = read_plan(folder)
    check_unchanged(plan.inputs)
    return plan


@dataclass(frozen=True, slots=True)
class BoardShare:
    """The parts that the board gives to this worker. Its methods block: they are called in a thread."""

    task: WorkerTask
    board: "ray.actor.ActorHandle"
    inputs: int

    def sources(self) -> Iterator[int]:
        """The inputs with rows for us, from our first one on."""
        for number in range(self.inputs):
            source = (self.task.first + number) % self.inputs
            if ray.get(self.board.left.remote(source)):
                yield source

    def takes(self, rows: RowRange) -> bool:
        """Whether the board gives us the part."""
        return bool(ray.get(self.board.take.remote(self.task.worker, rows)))


@dataclass(frozen=True, slots=True)
class _Work:
    task: WorkerTask
    board: "ray.actor.ActorHandle"
    job: CorpusJob
    endpoint: EmbeddingEndpoint
    runner: BulkRunner[str, F32]

    async def run(self) -> None:
        stop = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                reporting = tasks.create_task(self._report(stop))
                await self.runner.run(self.job.pending(), self._commit, stop)
                reporting.cancel()
        finally:
            self.job.halted = True  # for a thread that may still read

    async def _commit(self, part: PendingPart, results: Sequence[F32 | RowError]) -> None:
        if not await self.board.holds.remote(self.task.worker, part.range):
            raise JobStopped("another host has this part by now")
        await self.job.commit(part, results)
        await self.board.finish.remote(self.task.worker, part.range, self._progress())

    async def _report(self, stop: asyncio.Event) -> NoReturn:
        while True:
            if await self.board.report.remote(self.task.worker, self._progress()):
                stop.set()
            await asyncio.sleep(_REPORT_S)

    def _progress(self) -> JobProgress:
        return progress_of(self.job, self.endpoint, self.runner)
