"""Batch jobs on disk: a folder each, with the job's spec and state, its input, and its results in parts.

That a client wants a job cancelled is a file in it, too: another process may run the job.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from proxy.batches.records import ENDED, JOB_PREFIX, BatchSpec, BatchState, BatchStatus, ResultKind
from proxy.batches.storage import BatchStorage, is_id, load_record, save_record
from proxy.batches.uploads import FILE_PREFIX, delete_leftovers
from proxy.bulk.durable import sync_folder
from proxy.bulk.ledger import PartLedger, files_of
from proxy.errors import NotFound
from proxy.quoting import quoted

SPEC, STATE, INPUT, CANCEL, PARTS = "spec.json", "state.json", "input.jsonl", "cancel", "parts"
DONE = ".done"  # of a part: its results are complete, and this file has their numbers


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A job's folder, and what it says now."""

    folder: Path
    spec: BatchSpec
    state: BatchState

    @property
    def status(self) -> BatchStatus:
        cancelling = self.state.status not in ENDED and self.cancel_asked
        return BatchStatus.CANCELLING if cancelling else self.state.status

    @property
    def cancel_asked(self) -> bool:
        return (self.folder / CANCEL).exists()

    @property
    def input(self) -> Path:
        return self.folder / INPUT

    def results(self, kind: ResultKind) -> list[Path]:
        """The files whose contents, in this order, are the result; none if the job has no such lines, yet or at all."""
        parts = self.folder / PARTS
        paths = (parts / (rows.name + kind.suffix) for rows, _ in files_of(parts, DONE))
        return [path for path in paths if path.exists()]

    def has(self, kind: ResultKind) -> bool:
        """Whether the job has results of that kind."""
        lines = {ResultKind.OUTPUT: self.state.completed, ResultKind.ERRORS: self.state.failed}[kind]
        return bool(lines) and any((self.folder / PARTS).glob(f"part-*{kind.suffix}"))

    def result_id(self, kind: ResultKind) -> str:
        """The id of the file that the result is."""
        return f"{FILE_PREFIX}{self.spec.id.removeprefix(JOB_PREFIX)}-{kind}"

    def ledger(self) -> PartLedger:
        """The parts that are done. For the owner alone: it removes what is half-written."""
        ledger = PartLedger(self.folder / PARTS, DONE)
        ledger.remove_unfinished()
        return ledger

    def save(self, state: BatchState) -> "BatchJob":
        """Write the state. Raises OSError."""
        save_record(self.folder / STATE, state)
        return BatchJob(self.folder, self.spec, state)


@dataclass(slots=True)
class BatchJobs:
    """The jobs in the storage, for every process. All methods block."""

    storage: BatchStorage
    changed: Callable[[], None] = field(default=lambda: None)  # there is something for the owner to do

    def create(self, spec: BatchSpec, make_input: Callable[[Path], None]) -> BatchJob:
        """A new job, whose input is written by `make_input`. Raises StorageFull and OSError."""
        self.storage.check_entries()
        unfinished = self.storage.jobs / f".{spec.id}"
        unfinished.mkdir(mode=0o700)
        try:
            make_input(unfinished / INPUT)
            save_record(unfinished / STATE, BatchState())
            save_record(unfinished / SPEC, spec)
            folder = unfinished.rename(self.storage.jobs / spec.id)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        sync_folder(self.storage.jobs)
        self.changed()
        return BatchJob(folder, spec, BatchState())

    def get(self, client: str, job_id: str) -> BatchJob:
        """Raises NotFound, also for another key's."""
        job = self._load(self.storage.jobs / job_id) if is_id(job_id, JOB_PREFIX) else None
        if job is None or job.spec.client != client:
            raise NotFound(f"there is no batch {quoted(job_id)}: it never existed, was deleted or is too old")
        return job

    def of(self, client: str) -> list[BatchJob]:
        """The key's jobs, the newest first."""
        return [job for job in reversed(self.all()) if job.spec.client == client]

    def all(self) -> list[BatchJob]:
        """Every key's jobs, the oldest first."""
        return self.named(os.listdir(self.storage.jobs))  # noqa: PTH208 # names alone

    def named(self, names: Iterable[str]) -> list[BatchJob]:
        """The jobs of these names that are there, the oldest first."""
        folders = (self.storage.jobs / name for name in names if is_id(name, JOB_PREFIX))
        return sorted(filter(None, map(self._load, folders)), key=lambda job: (job.spec.created_at, job.spec.id))

    def cancel(self, job: BatchJob) -> None:
        """Ask the owner to cancel it."""
        if job.state.status not in ENDED:
            (job.folder / CANCEL).touch()
            self.changed()

    def delete(self, job: BatchJob) -> None:
        """Delete a job that has ended, with its results."""
        gone = job.folder.rename(job.folder.with_name(f".{job.folder.name}"))
        shutil.rmtree(gone, ignore_errors=True)

    def result(self, client: str, file_id: str) -> "ResultFile | None":
        """The result that has this file's id; None if it is no id of a result. Raises NotFound."""
        name, _, kind = file_id.removeprefix(FILE_PREFIX).partition("-")
        if kind not in tuple(ResultKind):
            return None
        result = ResultFile(self.get(client, JOB_PREFIX + name), ResultKind(kind))
        if result.job.state.status not in ENDED or not result.job.has(result.kind):
            raise NotFound(f"there is no file {quoted(file_id)}: its batch is not done, or the file was deleted")
        return result

    def results_of(self, client: str) -> Iterator[tuple[BatchJob, ResultKind]]:
        """The results of the key's jobs that have ended."""
        for job in self.of(client):
            if job.state.status in ENDED:
                yield from ((job, kind) for kind in ResultKind if job.has(kind))

    def delete_old(self) -> None:
        """Delete the jobs that ended too long ago, and what crashes left."""
        now = time.time()
        for job in self.all():
            kept_s = min(job.spec.kept_s or self.storage.limits.kept_s, self.storage.limits.kept_s)
            if job.state.ended_at is not None and now > job.state.ended_at + kept_s:
                self.delete(job)
        delete_leftovers(self.storage.jobs, SPEC)

    def _load(self, folder: Path) -> BatchJob | None:
        spec = load_record(folder / SPEC, BatchSpec)
        state = load_record(folder / STATE, BatchState) or BatchState()
        return BatchJob(folder, spec, state) if spec else None


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One of the results of a job."""

    job: BatchJob
    kind: ResultKind

    @property
    def paths(self) -> list[Path]:
        return self.job.results(self.kind)

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.paths)

    def delete(self) -> None:
        for path in self.paths:
            path.unlink(missing_ok=True)


def linked(source: Path) -> Callable[[Path], None]:
    """An input that is an uploaded file: a second name, which needs no space and stays when the first is deleted."""
    return lambda path: os.link(source, path)


def made_of(lines: Iterator[Mapping[str, object]], storage: BatchStorage) -> Callable[[Path], None]:
    """An input made of these lines, of which one is in memory at a time."""

    def write(path: Path) -> None:
        with path.open("xb") as file:
            for line in lines:
                content = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
                storage.take(len(content))
                file.write(content)
            file.flush()
            os.fsync(file.fileno())

    return write
