"""What stands in a line: the texts to compute, and the requests that wait for them."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from proxy.errors import ProxyError
from proxy.types import Matrix, Vector


class TokenizedText(NamedTuple):
    """One input as it is sent: its token ids as a JSON list, which is also its key, and how many they are.

    `alone`: no other text may be in its call; see `lane.ALONE_TOKENS`. `quiet_s`: see Text.
    """

    ids: bytes
    tokens: int
    alone: bool = False
    quiet_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """For whom a request is: its API key's stand-in, the loop's time when it gives up, what it does with errors.

    `first`: before the client's other requests, within the client's share.
    """

    client: str = ""
    deadline: float = math.inf
    partial: bool = False
    first: bool = False


ANYBODY = Caller()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Raw vectors, float32, shape (n, n_embd), every value finite but in the rows of the inputs in `failed`."""

    rows: Matrix
    failed: Mapping[int, ProxyError]

    def served(self) -> Matrix:
        """The rows of the others."""
        return np.delete(self.rows, list(self.failed), axis=0) if self.failed else self.rows


@dataclass(slots=True, eq=False)
class QueuedText:
    """One distinct text, computed once for everybody in `waiters`: each a job and the index that it has there.

    `taken`: it is in flight, or is kept aside to be tried again; the jobs in line pass it over. `quiet_s`: it may be
    what ends the engine, so it goes alone, when the engine has lived for so long; None: nothing is held against it.
    """

    ids: bytes
    tokens: int
    alone: bool = False
    waiters: "list[tuple[QueuedRequest, int]]" = field(default_factory=list)
    taken: bool = False
    quiet_s: float | None = None

    def take(self, now: float) -> None:
        self.taken = True
        for job in {job: None for job, _ in self.waiters}:
            job.since = now
            job.tokens -= self.tokens

    def deliver(self, vector: Vector) -> None:
        for job, index in self.waiters:
            job.deliver(index, vector)


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """One request's inputs in a line. `done` is set when each has a row or an error in `failed`.

    Unless its caller takes what there is, the first error is the whole job's. `since` is the loop's time when it
    arrived, or last got something.
    """

    size: int
    done: asyncio.Future[None]
    caller: Caller = ANYBODY
    since: float = 0.0
    interactive: bool = False
    started: bool = False
    texts: Sequence[QueuedText] = ()  # the distinct ones, in order
    next: int = 0
    tokens: int = 0  # of those that nobody has taken yet
    rows: Matrix = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    failed: dict[int, ProxyError] = field(default_factory=dict)
    left: int = field(init=False)
    arrived: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.size
        self.arrived = self.since

    def head(self) -> QueuedText | None:
        """Its next text that nobody has taken yet; None when there is none, or nobody waits for it any more."""
        if self.done.done():
            return None
        while self.next < len(self.texts) and self.texts[self.next].taken:
            self.next += 1
        return self.texts[self.next] if self.next < len(self.texts) else None

    def deliver(self, index: int, vector: Vector) -> None:
        if not len(self.rows):
            self.rows = np.empty((self.size, len(vector)), dtype=np.float32)
        self.rows[index] = vector
        self._count_down()

    def fail_input(self, index: int, error: ProxyError) -> None:
        """Give up that input; the others too, unless the caller takes what there is."""
        if not self.caller.partial:
            self.fail(error)
            return
        self.failed[index] = error
        self._count_down()

    def fail(self, error: ProxyError) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _count_down(self) -> None:
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)
