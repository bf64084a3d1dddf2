"""Whose turn it is in one lane: client by client, and within a client job by job, in shares of tokens."""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from proxy.work import Job, Text

T = TypeVar("T")
Late = Callable[[Job], bool]
MISFITS = 8  # texts passed over in one call because they find no room, before it is sent as it is


class Ring(Generic[T]):
    """Who had least is first. Self-clocked fair queueing: who is served n tokens stands n further back.

    Who is new joins where the last one served stands now: behind everybody who has waited since then, so that nobody
    gains by leaving and coming back, and nobody starves.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._clock = 0.0
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> T:
        return self._heap[0][2]

    def join(self, one: T) -> None:
        heapq.heappush(self._heap, (self._clock, next(self._order), one))

    def serve(self, tokens: int) -> None:
        """The first one gets that much."""
        had, _, one = self._heap[0]
        self._clock = max(self._clock, had + tokens)
        heapq.heapreplace(self._heap, (had + tokens, next(self._order), one))

    def step_out(self) -> tuple[float, int, T]:
        """The first one leaves; its place, should it want to come back."""
        return heapq.heappop(self._heap)

    def step_in(self, place: tuple[float, int, T]) -> None:
        heapq.heappush(self._heap, place)


@dataclass(slots=True, eq=False)
class Client:
    """The jobs of one API key; `aside` are the places of those that a call had no room for."""

    name: str
    jobs: Ring[Job] = field(default_factory=Ring)
    aside: list[tuple[float, int, Job]] = field(default_factory=list)


@dataclass(slots=True)
class Room:
    """What may still go into a call. While `empty`, its first text goes in however long it is."""

    texts: int
    tokens: int
    empty: bool = False

    def fits(self, text: Text) -> bool:
        if text.alone:
            return self.texts > 0 and self.empty
        return self.texts > 0 and (self.empty or text.tokens <= self.tokens)

    def put(self, text: Text) -> None:
        self.texts = 0 if text.alone else self.texts - 1
        self.tokens -= text.tokens
        self.empty = False


class Turns:
    """The jobs of one lane. A job of which nothing is left to take, or whose caller has gone, falls out at its turn."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._ring: Ring[Client] = Ring()
        self._aside: list[tuple[float, int, Client]] = []  # clients all of whose jobs are aside

    def add(self, job: Job) -> None:
        client = self._clients.get(job.caller.client)
        if client is None:
            client = self._clients[job.caller.client] = Client(job.caller.client)
            self._ring.join(client)
        client.jobs.join(job)

    def first(self, late: Late) -> Job | None:
        """The job whose turn it is, which has a text to take; None when nobody waits. `late` sends home who is."""
        while self._ring:
            client = self._ring.first
            while client.jobs:
                job = client.jobs.first
                if job.head() is not None and not late(job):
                    return job
                client.jobs.step_out()
            place = self._ring.step_out()
            if client.aside:
                self._aside.append(place)
            else:
                del self._clients[client.name]
        return None

    def fill(self, room: Room, late: Late, now: float) -> list[Text]:
        """Texts for a call, in turn, marked as taken. One without room keeps its job's place, and others are tried."""
        taken: list[Text] = []
        misfits: list[Client] = []
        while room.texts > 0 and len(misfits) < MISFITS and (job := self.first(late)):
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

    def _put_back(self, misfits: list[Client]) -> None:
        for client in misfits:
            while client.aside:
                client.jobs.step_in(client.aside.pop())
        while self._aside:
            self._ring.step_in(self._aside.pop())
