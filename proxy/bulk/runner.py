"""Runs a job's parts: a few at a time, their calls concurrently, each call until it is answered or its row is at fault.

How a call is tried, by the exception that `send` raises:

ServerBusy     again, without end: no room (429), not ready (503), no connection. A pause of at least Retry-After.
CallFailed     again, `tries` times (502, 504); then its halves, until one row alone is an error
CallRefused    its halves at once (400, 413, 422), until one row alone is an error
any other      ends the job: a wrong key, another vector space, a fault of ours
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from proxy.bulk.concurrency import CallLimit

Item = TypeVar("Item")  # what is sent for a row
Output = TypeVar("Output")  # what comes back for it
Part = TypeVar("Part")  # what the caller calls a part
Calls = Sequence[Sequence[Item]]  # the rows of a part, in order, call by call


class ServerBusy(Exception):
    """The server can take the call later. `full`: it has too many of them, so fewer are kept in flight."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None, full: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.full = full


class RowFault(Exception):
    """Base of the two below: if it is one row's call, the row is an error with this code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class CallFailed(RowFault):
    """It may succeed the next time. `full`: it took too long, so fewer are kept in flight."""

    def __init__(self, code: str, message: str, *, full: bool = False) -> None:
        super().__init__(code, message)
        self.full = full


class CallRefused(RowFault):
    """It will fail again as it is, but perhaps not each of its rows."""


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no result. It never ends the job."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    tries: int = 3  # of a call that failed
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0

    def pause_s(self, failures: int, retry_after_s: float | None) -> float:
        """Before the next try: what the server said, else doubled each time; with jitter, so that calls spread out."""
        if retry_after_s is not None:
            return retry_after_s + random.uniform(0, min(1.0, self.longest_pause_s))  # noqa: S311
        longest = min(self.longest_pause_s, self.first_pause_s * 2 ** min(failures, 16))
        return random.uniform(longest / 2, longest)  # noqa: S311


@dataclass(slots=True)
class RunCounts:
    """What happened so far in this run; a display may read it at any time."""

    calls: int = 0
    busy: int = 0  # answers of "later"
    failed: int = 0  # calls that were tried again, or in halves
    last_trouble: str = ""


@dataclass(slots=True, kw_only=True)
class BulkRunner(Generic[Item, Output]):
    """`send` makes one call: a result or a RowError for each of its rows, in order; it raises as said above."""

    send: Callable[[Sequence[Item]], Awaitable[Sequence[Output | RowError]]]
    limit: CallLimit = field(default_factory=CallLimit)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    parts_in_work: int = 4
    counts: RunCounts = field(default_factory=RunCounts)

    async def run(
        self,
        parts: Iterator[tuple[Part, Calls[Item]]],
        commit: Callable[[Part, Sequence[Output | RowError]], Awaitable[None]],
        stop: asyncio.Event | None = None,
    ) -> None:
        """Run every part with its calls, and `commit` it as soon as all are done. `parts` is read in a thread.

        When `stop` is set, no further part is begun; those in work are completed. Cancel it to end at once. What
        `send`, `commit` or `parts` raised cancels the other parts in work, and is raised in an ExceptionGroup.
        """
        room = asyncio.Semaphore(self.parts_in_work)

        async def complete(part: Part, calls: Calls[Item]) -> None:
            try:
                await commit(part, await self._results(calls))
            finally:
                room.release()

        async with asyncio.TaskGroup() as tasks:
            while True:
                await room.acquire()
                part = None if stop and stop.is_set() else await asyncio.to_thread(next, parts, None)
                if part is None:
                    return
                tasks.create_task(complete(*part))

    async def _results(self, calls: Calls[Item]) -> list[Output | RowError]:
        async with asyncio.TaskGroup() as tasks:
            sent = [tasks.create_task(self._in_place(call)) for call in calls]
        return [result for call in sent for result in call.result()]

    async def _in_place(self, rows: Sequence[Item]) -> Sequence[Output | RowError]:
        async with self.limit.place():
            return await self._answered(rows)

    async def _answered(self, rows: Sequence[Item]) -> Sequence[Output | RowError]:
        """The results of these rows, if necessary by halves, one after the other."""
        try:
            results = await self._tried(rows)
        except RowFault as fault:
            if len(rows) == 1:
                return [RowError(fault.code, fault.message)]
            half = len(rows) // 2
            return [*await self._answered(rows[:half]), *await self._answered(rows[half:])]
        if len(results) != len(rows):
            raise ValueError(f"{len(results)} results for {len(rows)} rows")
        return results

    async def _tried(self, rows: Sequence[Item]) -> Sequence[Output | RowError]:
        """Raises CallRefused, and CallFailed after the last try."""
        busy = failed = 0
        while True:
            cuts = self.limit.cuts
            self.counts.calls += 1
            try:
                results = await self.send(rows)
            except ServerBusy as later:
                self._note(later, cuts, full=later.full)
                self.counts.busy += 1
                pause = self.policy.pause_s(busy, later.retry_after_s)
                busy += 1
            except CallFailed as failure:
                self._note(failure, cuts, full=failure.full)
                self.counts.failed += 1
                pause = self.policy.pause_s(failed, None)
                failed += 1
                if failed >= self.policy.tries:
                    raise
            else:
                self.limit.good()
                return results
            await asyncio.sleep(pause)

    def _note(self, trouble: Exception, cuts: int, *, full: bool) -> None:
        self.counts.last_trouble = str(trouble)
        if full:
            self.limit.full(cuts)
