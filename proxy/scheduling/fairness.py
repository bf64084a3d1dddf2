"""Whose turn it is in one lane: clients have equal shares of tokens, and a client's jobs come one after another."""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from proxy.scheduling.entries import QueuedRequest, QueuedText

T = TypeVar("T")
Expired = Callable[[QueuedRequest], bool]
MAX_SKIPPED = 8  # texts passed over in one call because they find no room, before it is sent as it is


class StableHeap(Generic[T]):
    """Who waits, each with its place: the least is first, and of equal ones who came first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> T:
        return self._heap[0][2]

    def put(self, place: float, one: T) -> None:
        heapq.heappush(self._heap, (place, next(self._order), one))

    def step_out(self) -> tuple[float, int, T]:
        """The first one leaves; its place, should it want to come back."""
        return heapq.heappop(self._heap)

    def step_in(self, place: tuple[float, int, T]) -> None:
        heapq.heappush(self._heap, place)


class ClientQueue(StableHeap[QueuedRequest]):
    """The jobs of one client. First is the one that would be done first if all had equal shares of every token.

    So of those that are there each is done no later than with equal shares, most are done much earlier, and few are
    half done and hold their vectors: the fair sojourn protocol (Friedman and Henderson, SIGMETRICS 2003). `_clock` is
    what each of the sharing jobs would have had by now, in tokens, since the first came; a job's place is where that is
    when it would be done. What a job does not take itself, as it left or another took the same texts, counts when it
    goes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[QueuedRequest, int] = {}  # tokens that each came for and has not had
        self._sharing: list[float] = []  # the places of those that would not be done yet, a heap
        self._clock = 0.0

    def join(self, job: QueuedRequest) -> None:
        place, self._left[job] = self._clock + (0 if job.caller.first else job.tokens), job.tokens
        self.put(place, job)
        heapq.heappush(self._sharing, place)

    def serve(self, tokens: int) -> None:
        """The first one gets that much."""
        self._left[self.first] -= tokens
        self._share(tokens)

    def drop(self) -> None:
        """The first one leaves for good."""
        _, _, job = self.step_out()
        self._share(self._left.pop(job))

    def _share(self, tokens: float) -> None:
        """All get the same of so many tokens; who would be done then is not among them any more."""
        while self._sharing:
            until_one_is_done = (self._sharing[0] - self._clock) * len(self._sharing)
            if tokens < until_one_is_done:
                self._clock += tokens / len(self._sharing)
                return
            tokens -= until_one_is_done
            self._clock = heapq.heappop(self._sharing)


@dataclass(slots=True, eq=False)
class ClientEntry:
    """The jobs of one API key; `aside` are the places of those that a call had no room for."""

    name: str
    jobs: ClientQueue = field(default_factory=ClientQueue)
    aside: list[tuple[float, int, QueuedRequest]] = field(default_factory=list)


class ClientRing(StableHeap[ClientEntry]):
    """The clients: who had least is first. Self-clocked fair queueing: who is served n tokens stands n further back.

    Who is new joins where the last one served stands now: behind everybody who has waited since then, so that nobody
    gains by leaving and coming back, and nobody starves.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clock = 0.0

    def join(self, one: ClientEntry) -> None:
        self.put(self._clock, one)

    def serve(self, tokens: int) -> None:
        """The first one gets that much."""
        had, _, one = self.step_out()
        self._clock = max(self._clock, had + tokens)
        self.put(had + tokens, one)


@dataclass(slots=True)
class BatchBudget:
    """What may still go into a call. While `empty`, its first text goes in however long it is."""

    texts: int
    tokens: int
    empty: bool = False

    def fits(self, text: QueuedText) -> bool:
        if text.alone:
            return self.texts > 0 and self.empty
        return self.texts > 0 and (self.empty or text.tokens <= self.tokens)

    def put(self, text: QueuedText) -> None:
        self.texts = 0 if text.alone else self.texts - 1
        self.tokens -= text.tokens
        self.empty = False


class FairQueue:
    """The jobs of one lane. A job of which nothing is left to take, or whose caller has gone, falls out at its turn."""

    def __init__(self) -> None:
        self._clients: dict[str, ClientEntry] = {}
        self._ring = ClientRing()
        self._aside: list[tuple[float, int, ClientEntry]] = []  # clients all of whose jobs are aside

    def add(self, job: QueuedRequest) -> None:
        client = self._clients.get(job.caller.client)
        if client is None:
            client = self._clients[job.caller.client] = ClientEntry(job.caller.client)
            self._ring.join(client)
        client.jobs.join(job)

    def first(self, late: Expired) -> QueuedRequest | None:
        """The job whose turn it is, which has a text to take; None when nobody waits. `late` sends home who is."""
        while self._ring:
            client = self._ring.first
            while client.jobs:
                job = client.jobs.first
                if job.head() is not None and not late(job):
                    return job
                client.jobs.drop()
            place = self._ring.step_out()
            if client.aside:
                self._aside.append(place)
            else:
                del self._clients[client.name]
        return None

    def fill(self, room: BatchBudget, late: Expired, now: float) -> list[QueuedText]:
        """Texts for a call, in turn, marked as taken. One without room keeps its job's place, and others are tried."""
        taken: list[QueuedText] = []
        misfits: list[ClientEntry] = []
        while room.texts > 0 and len(misfits) < MAX_SKIPPED and (job := self.first(late)):
            client, text = self._ring.first, job.texts[job.next]
            if not room.fits(text):
                client.aside.append(client.jobs.step_out())
                misfits.append(client)
                continue
            text.take(now)
            room.put(text)
            taken.append(text)
            client.jobs.serve(text.tokens)
            self._ring.serve(text.tokens)
        self._put_back(misfits)
        return taken

    def _put_back(self, misfits: list[ClientEntry]) -> None:
        for client in misfits:
            while client.aside:
                client.jobs.step_in(client.aside.pop())
        while self._aside:
            self._ring.step_in(self._aside.pop())
