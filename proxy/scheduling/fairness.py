"""Fair queueing in one lane: clients get equal shares of tokens, and a client's requests are done one after another."""

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from proxy.scheduling.entries import QueuedRequest, QueuedText

T = TypeVar("T")
Expired = Callable[[QueuedRequest], bool]
MAX_SKIPPED = 8  # texts that do not fit a batch and are skipped, before it is sent as it is


class StableHeap(Generic[T]):
    """A heap in which equal keys keep their order of arrival."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        """All, in no order."""
        return (one for _, _, one in self._heap)

    @property
    def first(self) -> T:
        return self._heap[0][2]

    def push(self, key: float, one: T) -> None:
        heapq.heappush(self._heap, (key, next(self._order), one))

    def pop(self) -> tuple[float, int, T]:
        """Remove the first one; the result is its place, for `restore`."""
        return heapq.heappop(self._heap)

    def restore(self, place: tuple[float, int, T]) -> None:
        heapq.heappush(self._heap, place)


class ClientQueue(StableHeap[QueuedRequest]):
    """The requests of one client. First is the one that would be done first if all had equal shares of every token.

    So each is done no later than with equal shares, most are done much earlier, and few are half done and hold their
    vectors: the fair sojourn protocol (Friedman and Henderson, SIGMETRICS 2003). `_clock` is the tokens that each of
    the sharing requests would have had by now, since the first arrived; a request's key is the clock at which it would
    be done. Tokens that a request does not take itself, because it was cancelled or another took the same texts, count
    when it is removed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[QueuedRequest, int] = {}  # tokens that each asked for and has not had
        self._sharing: list[float] = []  # a heap: the keys of those that would not be done yet
        self._clock = 0.0

    def join(self, request: QueuedRequest) -> None:
        key, self._left[request] = self._clock + (0 if request.caller.first else request.tokens), request.tokens
        self.push(key, request)
        heapq.heappush(self._sharing, key)

    def serve(self, tokens: int) -> None:
        """The first request gets that many tokens."""
        self._left[self.first] -= tokens
        self._share(tokens)

    def remove_first(self) -> None:
        _, _, request = self.pop()
        self._share(self._left.pop(request))

    def _share(self, tokens: float) -> None:
        """Advance the clock as if all shared the tokens equally; requests that would be done then stop sharing."""
        while self._sharing:
            until_one_is_done = (self._sharing[0] - self._clock) * len(self._sharing)
            if tokens < until_one_is_done:
                self._clock += tokens / len(self._sharing)
                return
            tokens -= until_one_is_done
            self._clock = heapq.heappop(self._sharing)


@dataclass(slots=True, eq=False)
class ClientEntry:
    """The requests of one API key; `skipped` are the places of those that did not fit the current batch."""

    name: str
    requests: ClientQueue = field(default_factory=ClientQueue)
    skipped: list[tuple[float, int, QueuedRequest]] = field(default_factory=list)


class ClientRing(StableHeap[ClientEntry]):
    """Clients in order of virtual time (self-clocked fair queueing): n served tokens add n.

    A new client starts at the current virtual time, so leaving and coming back gains nothing and nobody starves.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clock = 0.0

    def join(self, one: ClientEntry) -> None:
        self.push(self._clock, one)

    def serve(self, tokens: int) -> None:
        """The first client gets that many tokens."""
        had, _, one = self.pop()
        self._clock = max(self._clock, had + tokens)
        self.push(had + tokens, one)


@dataclass(slots=True)
class BatchBudget:
    """What may still be added to a batch. While it is `empty`, its first text fits however long it is."""

    texts: int
    tokens: int
    empty: bool = False

    def fits(self, text: QueuedText) -> bool:
        if text.exclusive:
            return self.texts > 0 and self.empty
        return self.texts > 0 and (self.empty or text.tokens <= self.tokens)

    def spend(self, text: QueuedText) -> None:
        self.texts = 0 if text.exclusive else self.texts - 1
        self.tokens -= text.tokens
        self.empty = False


class LaneLoad(NamedTuple):
    """What waits in one lane: so many requests, with so many tokens that were not sent yet."""

    requests: int
    tokens: int


class FairQueue:
    """The requests of one lane. One with nothing left to take, or that was cancelled, is removed when it is first."""

    def __init__(self) -> None:
        self._clients: dict[str, ClientEntry] = {}
        self._ring = ClientRing()
        self._skipped: list[tuple[float, int, ClientEntry]] = []  # clients all of whose requests are skipped

    @property
    def load(self) -> LaneLoad:
        requests = [one for client in self._clients.values() for one in client.requests if not one.done.done()]
        waiting = [one.tokens for one in requests if one.tokens]
        return LaneLoad(len(waiting), sum(waiting))

    def add(self, request: QueuedRequest) -> None:
        client = self._clients.get(request.caller.client)
        if client is None:
            client = self._clients[request.caller.client] = ClientEntry(request.caller.client)
            self._ring.join(client)
        client.requests.join(request)

    def first(self, expired: Expired) -> QueuedRequest | None:
        """The next request in turn that has a text to take; None if nothing waits. Requests that `expired` go."""
        while self._ring:
            client = self._ring.first
            while client.requests:
                request = client.requests.first
                if request.head() is not None and not expired(request):
                    return request
                client.requests.remove_first()
            place = self._ring.pop()
            if client.skipped:
                self._skipped.append(place)
            else:
                del self._clients[client.name]
        return None

    def fill(self, budget: BatchBudget, expired: Expired, now: float) -> list[QueuedText]:
        """Take texts in turn while the budget lasts. One that does not fit keeps its place, and others are tried."""
        taken: list[QueuedText] = []
        skipped: list[ClientEntry] = []
        while budget.texts > 0 and len(skipped) < MAX_SKIPPED and (request := self.first(expired)):
            client, text = self._ring.first, request.texts[request.next]
            if not budget.fits(text):
                client.skipped.append(client.requests.pop())
                skipped.append(client)
                continue
            text.take(now)
            budget.spend(text)
            taken.append(text)
            client.requests.serve(text.tokens)
            self._ring.serve(text.tokens)
        self._restore(skipped)
        return taken

    def _restore(self, skipped: list[ClientEntry]) -> None:
        for client in skipped:
            while client.skipped:
                client.requests.restore(client.skipped.pop())
        while self._skipped:
            self._ring.restore(self._skipped.pop())
