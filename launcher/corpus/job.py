"""A job in its folder: which parts are left, what is sent for them, and how each is written."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Protocol

from filelock import FileLock, Timeout

from launcher.arrays import F32
from launcher.corpus.output.error_rows import ErrorRows, error_lines
from launcher.corpus.output.stored import LEDGERS, FinishedPart, PartWriter
from launcher.corpus.output.writers import writer_of
from launcher.corpus.pending import KnownVectors, PendingPart
from launcher.corpus.plan import CorpusPlan, read_plan
from launcher.corpus.rows.records import CorpusRow, Cutting, RawRow
from launcher.corpus.rows.sources import reader_of
from launcher.errors import JobStopped, StartError
from proxy.bulk.ledger import RowRange, files_of
from proxy.bulk.runner import Calls, RowError

ERRORS_FOLDER = "errors"


class PartShare(Protocol):
    """What of a job this process does, where several work on one."""

    def sources(self) -> Iterator[int]:
        """The inputs to read, by their numbers."""

    def takes(self, rows: RowRange) -> bool:
        """Whether the part is to be done here; asked before its rows are decoded."""


@dataclass(slots=True, kw_only=True)
class CorpusJob:
    """`known`: vectors of earlier parts, if texts that come again are not to be computed again.

    `failed`: instead of what is left, run these rows of parts that are done, by their places in the part.
    `share`: run only these of the parts, in place of all that are left.
    """

    plan: CorpusPlan
    writer: PartWriter
    errors: ErrorRows
    known: KnownVectors | None = None
    failed: Mapping[RowRange, Collection[int]] | None = None
    share: PartShare | None = None
    rows_done: int = field(init=False)
    error_rows: int = field(init=False)
    rows_begun: int = field(default=0, init=False)  # in this run
    halted: bool = field(default=False, init=False)
    _writing: Lock = field(default_factory=Lock, init=False)  # one part at a time: each takes its size in memory twice

    def __post_init__(self) -> None:
        self.rows_done = self.writer.ledger.rows_done()
        self.error_rows = sum(1 for _ in error_lines(self.errors.folder, self.writer.ledger.done))

    @property
    def complete(self) -> bool:
        return self.rows_done == self.plan.rows

    def remove_unfinished(self) -> None:
        """Remove what a killed run left half-written. For the folder's owner."""
        for ledger in (self.writer.ledger, self.errors.ledger):
            ledger.remove_unfinished()

    def pending(self) -> Iterator[tuple[PendingPart, Calls[str]]]:
        """Each part that is left, with its calls. Blocks; raises CorpusError, OSError, JobStopped."""
        sources = self.share.sources() if self.share else range(len(self.plan.inputs))
        for rows, read in parts_of(self.plan, self._is_done, sources, lambda: self.halted):
            part = PendingPart(rows, read, None if self.failed is None else self.failed[rows], self.known)
            self.rows_begun += rows.rows if part.only is None else len(part.only)
            yield part, part.calls()

    async def commit(self, part: PendingPart, results: Sequence[F32 | RowError]) -> None:
        """Write the part; it is written even if this is cancelled meanwhile. Raises OSError."""
        writing = asyncio.create_task(asyncio.to_thread(self._commit, part, results))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing  # nobody writes here after the job has ended
            raise

    def _is_done(self, rows: RowRange) -> bool:
        if self.share:
            return not self.share.takes(rows)
        return rows in self.writer.ledger.done if self.failed is None else rows not in self.failed

    def _commit(self, part: PendingPart, results: Sequence[F32 | RowError]) -> None:
        with self._writing:
            vectors, errors = part.outcome(results, self.plan.space.dimensions)
            stored = self.plan.options.dtype.stored(vectors)
            if part.only is not None:
                fixed, stored = stored, self.writer.read(part.range).vectors
                rows = [row for row in part.only if row not in errors]
                stored[rows] = fixed[rows]
            columns = {name: [row.kept.get(name) for row in part.rows] for name in self._kept(part.range)}
            finished = FinishedPart(
                rows=part.range, ids=[row.id for row in part.rows], kept=columns, vectors=stored, errors=errors
            )
            if part.only is None:  # a row is an error before its part is done, and until its vector is there
                self.errors.write(part.range, part.rows, errors)
                self.writer.write(finished)
                self.rows_done += part.range.rows
                self.error_rows += len(errors)
            else:
                self.writer.write(finished)
                self.errors.write(part.range, part.rows, errors)
                self.error_rows += len(errors) - len(part.only)

    def _kept(self, rows: RowRange) -> Sequence[str]:
        return self.plan.inputs[rows.source].columns.keep


def parts_of(
    plan: CorpusPlan,
    done: Callable[[RowRange], bool],
    sources: Iterable[int],
    halted: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[RowRange, list[CorpusRow]]]:
    """The parts of these inputs that are not done, with their rows.

    Raises CorpusError, OSError; JobStopped if halted.
    """
    first_rows = plan.first_rows
    for source in sources:
        one = plan.inputs[source]
        reader = _Halting(reader_of(one.path, one.format, one.columns).records, halted)
        cutting = Cutting(source=source, first_number=first_rows[source], rows=plan.part_rows)
        if one.rows:
            yield from cutting.parts(reader, done)


@dataclass(frozen=True, slots=True)
class _Halting:
    """A reader that can be stopped from another thread while it skips a long file."""

    read: Callable[[], Iterator[RawRow]]
    halted: Callable[[], bool]

    def records(self) -> Iterator[RawRow]:
        for record in self.read():
            if self.halted():
                raise JobStopped("stopped")
            yield record


def open_job(
    folder: Path, plan: CorpusPlan, *, dedupe: bool = False, retry: bool = False, share: PartShare | None = None
) -> CorpusJob:
    """The job of that plan, as far as it is done."""
    writer, errors = writer_of(folder, plan), ErrorRows(folder / ERRORS_FOLDER)
    known = KnownVectors() if dedupe else None
    failed = failed_rows(folder, writer.ledger.done) if retry else None
    return CorpusJob(plan=plan, writer=writer, errors=errors, known=known, failed=failed, share=share)


def failed_rows(folder: Path, done: set[RowRange]) -> dict[RowRange, set[int]]:
    """The error rows of each part that has any, by their places in the part."""
    failed = defaultdict[RowRange, set[int]](set)
    for line in error_lines(folder / ERRORS_FOLDER, done):
        failed[line.part].add(line.place)
    return dict(failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """How far a job is."""

    rows: int
    rows_done: int
    error_rows: int
    complete: bool
    format: str
    dtype: str
    dimensions: int
    vector_space: str
    model: str


def job_state(folder: Path) -> JobState:
    """How far the job in that folder is. Changes nothing. Raises ArgumentError, CorpusError."""
    plan = read_plan(folder)
    done = done_parts(folder, plan)
    rows_done = sum(part.rows for part in done)
    return JobState(
        rows=plan.rows,
        rows_done=rows_done,
        error_rows=sum(1 for _ in error_lines(folder / ERRORS_FOLDER, done)),
        complete=rows_done == plan.rows,
        format=plan.options.format,
        dtype=plan.options.dtype,
        dimensions=plan.space.dimensions,
        vector_space=plan.space.id,
        model=plan.space.model,
    )


def done_parts(folder: Path, plan: CorpusPlan) -> set[RowRange]:
    """The parts that are done; changes nothing."""
    name, suffix = LEDGERS[plan.options.format]
    return {rows for rows, _ in files_of(folder / name, suffix)}


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Keep other commands from working in the folder. Raises StartError if one does.

    What it made is removed if the folder is still empty at the end.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StartError(f"another `trillama corpus` works in {folder}: wait for it, or stop it") from error
    try:
        yield
    finally:
        if [path.name for path in folder.iterdir()] == [".lock"]:
            (folder / ".lock").unlink()  # while it is held: a job that waits for the lock sees that the file is gone
            if new:
                with suppress(OSError):  # another command has begun there meanwhile
                    folder.rmdir()
        lock.release()
