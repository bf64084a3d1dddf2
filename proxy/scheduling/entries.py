"""The entries of a queue: the texts to compute, and the requests that wait for them."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from proxy.errors import ProxyError
from proxy.telemetry.timing import Timing
from proxy.types import Matrix, Vector


class TokenizedText(NamedTuple):
    """One input as it is sent: its token ids as a JSON list, which is also its key, and their number.

    `exclusive`: no other text may share its batch; see `dispatcher.MIN_EXCLUSIVE_TOKENS`. `quiet_s`: see QueuedText.
    """

    ids: bytes
    tokens: int
    exclusive: bool = False
    quiet_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request: `client` stands for the API key, `deadline` is the loop's time when the caller gives up.

    `partial`: an input that fails does not fail the others. `first`: before the client's other requests, within the
    client's share. `bulk`: it is in no hurry, however small it is. `timing` is told how long it takes.
    """

    client: str = ""
    deadline: float = math.inf
    partial: bool = False
    first: bool = False
    bulk: bool = False
    timing: Timing | None = field(default=None, compare=False)


ANYBODY = Caller()
REPEATED_ROWS = 64  # rows of one text from which they are written in a thread


@dataclass(frozen=True, slots=True)
class Outcome:
    """Raw vectors, float32, shape (n, n_embd); all values are finite but for the rows of the inputs in `failed`."""

    rows: Matrix
    failed: Mapping[int, ProxyError]

    def served(self) -> Matrix:
        """The rows of the inputs that have not failed."""
        return np.delete(self.rows, list(self.failed), axis=0) if self.failed else self.rows


@dataclass(slots=True, eq=False)
class QueuedText:
    """One distinct text, computed once for all of its `waiters`: each a request and the input's index in it.

    `taken`: it is in flight, or is kept for a retry; waiting requests skip it. `quiet_s`: it may be what ends the
    engine, so it is sent alone, after the engine has lived for that long; None: it is not suspected.
    """

    ids: bytes
    tokens: int
    exclusive: bool = False
    waiters: "list[tuple[QueuedRequest, int]]" = field(default_factory=list)
    taken: bool = False
    quiet_s: float | None = None

    def take(self, now: float) -> None:
        self.taken = True
        for request in {request: None for request, _ in self.waiters}:
            request.since = now
            request.tokens -= self.tokens

    def deliver(self, vector: Vector) -> None:
        """Give it to all waiting requests. One may have the same text thousands of times: all its rows at once."""
        for request, waiters in groupby(self.waiters, key=itemgetter(0)):
            request.deliver([index for _, index in waiters], vector)
        self.waiters = []

    def fail(self, error: Callable[[int], ProxyError]) -> None:
        """Fail all inputs with this text; `error` makes one for an index."""
        for request, index in self.waiters:
            request.fail_input(index, error(index))
        self.waiters = []


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """One request's inputs in a queue. `done` is set when each has a row or an error in `failed`.

    Unless its caller is partial, the first error fails the whole request. `since` is the loop's time when it arrived,
    or when one of its texts was last taken; `sent_at`, when the first of them was sent.
    """

    size: int
    done: asyncio.Future[None]
    caller: Caller = ANYBODY
    since: float = 0.0
    interactive: bool = False
    sent_at: float | None = None
    texts: Sequence[QueuedText] = ()  # the distinct ones, in order
    next: int = 0
    tokens: int = 0  # of the texts that are not taken yet
    rows: Matrix = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    repeated: list[tuple[Sequence[int], Vector]] = field(default_factory=list)  # not in `rows` yet
    failed: dict[int, ProxyError] = field(default_factory=dict)
    left: int = field(init=False)
    arrived: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.size
        self.arrived = self.since

    def head(self) -> QueuedText | None:
        """Its next text that is not taken; None if there is none, or the request is over."""
        if self.done.done():
            return None
        while self.next < len(self.texts) and self.texts[self.next].taken:
            self.next += 1
        return self.texts[self.next] if self.next < len(self.texts) else None

    def deliver(self, indices: Sequence[int], vector: Vector) -> None:
        if len(indices) < REPEATED_ROWS:
            self._put(indices, vector)
        else:
            self.repeated.append((indices, vector.copy()))  # the vector is a row of a batch, which it would keep
        self._count_down(len(indices))

    def put_repeated(self) -> None:
        """Write the rows of repeated texts. Blocks for milliseconds: requests for one text are all done at once."""
        while self.repeated:
            self._put(*self.repeated.pop())

    def _put(self, indices: Sequence[int], vector: Vector) -> None:
        if not len(self.rows):
            self.rows = np.empty((self.size, len(vector)), dtype=np.float32)
        self.rows[indices] = vector

    def fail_input(self, index: int, error: ProxyError) -> None:
        """Fail that input; the whole request, unless its caller is partial."""
        if not self.caller.partial:
            self.fail(error)
            return
        self.failed[index] = error
        self._count_down(1)

    def fail(self, error: ProxyError) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _count_down(self, inputs: int) -> None:
        self.left -= inputs
        if not self.left and not self.done.done():
            self.done.set_result(None)
