"""Which worker has which part of a job. A Ray actor, so that one place knows."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from launcher.corpus.display import JobProgress
from proxy.bulk.ledger import RowRange


@dataclass(frozen=True, slots=True)
class BoardView:
    """`rows_left` are neither done nor in work."""

    rows_left: int
    progress: JobProgress


class PartBoard:
    """`rows` of each input, `done` the parts that are done; `begun` is how far the job was before this run."""

    def __init__(self, rows: Sequence[int], done: Collection[RowRange], begun: JobProgress) -> None:
        self._left = list(rows)
        self._done = set(done)
        for part in self._done:
            self._left[part.source] -= part.rows
        self._begun = begun
        self._taken: dict[RowRange, str] = {}
        self._sent: dict[str, JobProgress] = {}  # also those of workers that have ended
        self._working: set[str] = set()
        self._stopping = False

    def enter(self, worker: str) -> None:
        """A worker begins."""
        self._working.add(worker)

    def left(self, source: int) -> bool:
        """Whether an input has rows for a worker that comes now."""
        return bool(self._left[source]) and not self._stopping

    def take(self, worker: str, rows: RowRange) -> bool:
        """Give the worker that part, unless it is done, or another has it."""
        refused = self._stopping or worker not in self._working
        if refused or rows in self._done or rows in self._taken:
            return False
        self._taken[rows] = worker
        self._left[rows.source] -= rows.rows
        return True

    def holds(self, worker: str, rows: RowRange) -> bool:
        """Whether the part is the worker's: one that was given up for lost may still run, and must not write."""
        return self._taken.get(rows) == worker

    def finish(self, worker: str, rows: RowRange, progress: JobProgress) -> None:
        """The worker has written the part."""
        del self._taken[rows]
        self._done.add(rows)
        self.report(worker, progress)

    def report(self, worker: str, progress: JobProgress) -> bool:
        """What the worker did so far; its `rows_done` and `error_rows` are its own. Whether it shall take no more."""
        self._sent[worker] = progress
        return self._stopping

    def leave(self, worker: str) -> None:
        """The worker has ended, or is lost: what it had and has not finished is for others."""
        self._working.discard(worker)
        for rows in [rows for rows, holder in self._taken.items() if holder == worker]:
            del self._taken[rows]
            self._left[rows.source] += rows.rows

    def stop(self) -> None:
        """Give out no more parts."""
        self._stopping = True

    def view(self) -> BoardView:
        """How far the job is."""
        every = self._sent.values()
        working = [one for worker, one in self._sent.items() if worker in self._working]
        progress = replace(
            self._begun,
            rows_done=self._begun.rows_done + sum(one.rows_done for one in every),
            error_rows=self._begun.error_rows + sum(one.error_rows for one in every),
            texts=sum(one.texts for one in every),
            tokens=sum(one.tokens for one in every),
            busy=sum(one.busy for one in every),
            failed=sum(one.failed for one in every),
            in_flight=sum(one.in_flight for one in working),
            limit=sum(one.limit for one in working),
            trouble=next((one.trouble for one in working if one.trouble), ""),
            hosts=len(self._working),
        )
        return BoardView(sum(self._left), progress)
