"""One run of one job: the parts that are not done are computed and committed, until all are, or something ends it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from proxy import metrics
from proxy.batches.jobs import BatchJob
from proxy.batches.lines import BatchLine, BatchPart, LineFault, LineRules, count_lines, parts_to_do
from proxy.batches.records import BatchFault, BatchState, BatchStatus
from proxy.batches.results import (
    FULL_DISK,
    LineResult,
    PartCounts,
    answered,
    counts_on_disk,
    refused,
    unanswered,
    write_part,
)
from proxy.batches.storage import BatchStorage
from proxy.bulk.concurrency import CallLimit
from proxy.bulk.ledger import PartLedger
from proxy.bulk.runner import BulkRunner, CallFailed, RowError, ServerBusy
from proxy.errors import BackendError, BackendUnavailable, DeadlineExceeded, Draining, Overloaded, ProxyError
from proxy.types import EmbedRequest, EmbedResult
from proxy.wire.dialect import ErrorRenderer

log = logging.getLogger("proxy.batch")

T = TypeVar("T")
CALLS_AT_START, MOST_CALLS = 16, 64  # in flight for one job: lines of one text fill a batch of the engine with these
PARTS_AT_ONCE = 2
SAVE_S = 1.0  # how often the numbers that clients see are written
DISK_RETRY_S = 5.0
_LATER = (Overloaded, BackendUnavailable, Draining)
_AGAIN = (BackendError, DeadlineExceeded)

EmbedLine = Callable[[EmbedRequest], Awaitable[EmbedResult]]


class JobFailed(Exception):
    """The whole job ends, with what is done so far."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.fault = BatchFault(code=code, message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What all runs share."""

    embed: EmbedLine
    render_error: ErrorRenderer
    storage: BatchStorage
    rules: LineRules


class JobRun:
    """Runs the job, and alone writes its state meanwhile. Cancelled, it leaves what is done. Blocks. Raises OSError."""

    def __init__(self, job: BatchJob, context: RunContext) -> None:
        self.job = job
        self._context = context
        self._ledger: PartLedger = job.ledger()
        self._saved_at = 0.0
        self._saving = asyncio.Lock()

    @property
    def state(self) -> BatchState:
        return self.job.state

    async def run(self) -> None:
        """Returns when the job has ended. Raises OSError if its state cannot be written."""
        faults = list[BatchFault]()
        try:
            await self._compute()
        except* JobFailed as failed:
            faults = list(_faults(failed))
        await self.end(BatchStatus.FAILED if faults else BatchStatus.COMPLETED, *faults[:1])

    async def end(self, status: BatchStatus, fault: BatchFault | None = None) -> None:
        """Write the job's last state. Raises OSError."""
        await self._save(status=status, ended_at=time.time(), fault=fault, obstacle=None)
        numbers = self.state.total, self.state.failed, self.state.tokens
        log.info("%s %s lines=%d failed=%d tokens=%d", self.job.spec.id, status, *numbers)

    async def _compute(self) -> None:
        """Raises JobFailed, also in groups."""
        done = await asyncio.to_thread(counts_on_disk, self._ledger)  # those in the state may be older
        total = self.state.total or await asyncio.to_thread(self._validated)
        started_at = self.state.started_at or time.time()
        await self._save(status=BatchStatus.IN_PROGRESS, started_at=started_at, total=total, **asdict(done))
        runner = BulkRunner[BatchLine, LineResult](
            send=self._send, limit=CallLimit(start=CALLS_AT_START, most=MOST_CALLS), parts_in_work=PARTS_AT_ONCE
        )
        parts = parts_to_do(self.job.input, set(self._ledger.done), self._context.rules)
        try:
            await runner.run(parts, self._commit)
        finally:
            with suppress(ValueError):  # a thread still reads, and closes the file when it is done
                parts.close()

    def _validated(self) -> int:
        """How many lines there are. Raises JobFailed."""
        most = self._context.storage.limits.lines
        total = count_lines(self.job.input, most)
        if not total:
            raise JobFailed("empty_file", "the input has no lines")
        if total > most:
            raise JobFailed("too_many_lines", f"the input has more than {most} lines: send several batches")
        return total

    async def _send(self, lines: Sequence[BatchLine]) -> Sequence[LineResult | RowError]:
        (line,) = lines
        if isinstance(line.request, LineFault):
            return [unanswered(line, line.request.code, line.request.message)]
        if isinstance(line.request, ProxyError):
            return [refused(line, self._context.render_error, line.request)]
        request = replace(line.request.request, client=self.job.spec.client, bulk=True)
        try:
            result = await self._context.embed(request)
        except _LATER as error:
            full = isinstance(error, Overloaded)
            raise ServerBusy(error.message, retry_after_s=error.retry_after_s, full=full) from error
        except _AGAIN as error:
            raise CallFailed(error.code, error.message, full=isinstance(error, DeadlineExceeded)) from error
        except ProxyError as error:
            return [refused(line, self._context.render_error, error)]
        except Exception:  # a fault of ours in one line must not end the job, nor be tried without end
            log.exception("%s: %r: unexpected error", self.job.spec.id, line.custom_id)
            return [unanswered(line, ProxyError.code, "internal error; the log has it under the ids of batch and line")]
        await self._check_space(request, result)
        return [answered(line, line.request, result)]

    async def _check_space(self, request: EmbedRequest, result: EmbedResult) -> None:
        """All vectors of a job are of one space, across restarts too. Raises JobFailed."""
        key = f"{result.task} by token" if request.multivector else result.task
        first, now = self.state.spaces.get(key), result.provenance.space
        if first is None:
            await self._save(spaces={**self.state.spaces, key: now})
        elif first != now:
            raise JobFailed(
                "vector_space_changed",
                f"the job began in the vector space {first}, and the server's is now {now} ({key}): vectors of one "
                "cannot be compared with vectors of the other; send the job again",
            )

    async def _commit(self, part: BatchPart, results: Sequence[LineResult | RowError]) -> None:
        lines = [
            unanswered(line, result.code, result.message) if isinstance(result, RowError) else result
            for line, result in zip(part.lines, results, strict=True)
        ]
        while obstacle := await _completed(lambda: write_part(self._ledger, self._context.storage, part.rows, lines)):
            if self.state.obstacle is None:
                log.warning("%s waits: %s", self.job.spec.id, obstacle.message)
                await self._save_if_possible(obstacle=obstacle)
            await asyncio.sleep(DISK_RETRY_S)
        counts = PartCounts.of(lines)
        metrics.BATCH_LINES.labels("completed").inc(counts.completed)
        metrics.BATCH_LINES.labels("failed").inc(counts.failed)
        counts += PartCounts(self.state.completed, self.state.failed, self.state.tokens)
        self._change(**asdict(counts), obstacle=None)
        if time.monotonic() - self._saved_at > SAVE_S:
            await self._save_if_possible()

    def _change(self, **changes: object) -> None:
        self.job = replace(self.job, state=self.state.model_copy(update=changes))

    async def _save(self, **changes: object) -> None:
        """Change the state and write it, as soon as the disk has room. Raises OSError."""
        while (error := await self._save_if_possible(**changes)) is not None:
            if error.errno not in FULL_DISK:
                raise error
            await asyncio.sleep(DISK_RETRY_S)

    async def _save_if_possible(self, **changes: object) -> OSError | None:
        """The same, where the next time is soon enough; returns what prevented it."""
        self._saved_at = time.monotonic()
        self._change(**changes)
        try:
            async with self._saving:
                await _completed(lambda: self.job.save(self.state))
        except OSError as error:
            log.warning("%s: its state cannot be written: %s", self.job.spec.id, error.strerror)
            return error
        return None


async def _completed(work: Callable[[], T]) -> T:
    """Do it in a thread. A caller that is cancelled waits for the end, so that nothing is written afterwards."""
    done = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait((done,))
        raise


def _faults(group: BaseExceptionGroup[JobFailed]) -> Iterator[BatchFault]:
    for error in group.exceptions:
        if isinstance(error, JobFailed):
            yield error.fault
        else:
            yield from _faults(error)
