"""Who is connected: so many in all and from one address, each with the time that what it does may take."""

import asyncio
import heapq
import ipaddress
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

SPARE = 64  # connections beyond the bound that are told so, and that probes find a place among
BATCH = 16  # of so many connections one is closed where room is lacking: finding them costs a look at all
LOOK_AGAIN_S = 0.05  # after a look that found none to close
WELCOME_S = 1.0  # so long nothing is closed for another: what it sends may be on its way
SWEEP_S = 1.0


class Phase(IntEnum):
    """What a connection does; the lower, the sooner it is closed where room is lacking."""

    HEAD = 0  # a request's head is awaited: the first one, or the rest of one
    IDLE = 1  # it has had an answer
    BODY = 2  # a request's body arrives
    BUSY = 3  # its request is computed or answered; closed for another only if the answer is not read


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds for a head, for a connection that keeps silent after an answer, and for the reading of an answer.

    The last one grows by the bytes that wait to be read, at `least_rate` bytes a second. A body's time: `body`.
    """

    head_s: float
    keepalive_s: float
    send_s: float
    least_rate: float


class Connection(Protocol):
    """A connection, as it is watched."""

    peer: str
    phase: Phase
    since: float  # when the phase began
    unread: int  # bytes of an answer that its client had left to read when it stopped reading; 0: it reads
    unread_since: float

    def expire(self) -> None:
        """Its time is over."""

    def give_up(self) -> None:
        """Close it: another needs the place."""


def overdue(one: Connection, now: float, deadlines: Deadlines) -> bool:
    """Whether the time is over that it has for what it does."""
    if one.unread:
        return now - one.unread_since > deadlines.send_s + one.unread / deadlines.least_rate
    allowed = {Phase.HEAD: deadlines.head_s, Phase.IDLE: deadlines.keepalive_s}.get(one.phase)
    return allowed is not None and now - one.since > allowed


def least_missed(connections: Iterable[Connection], count: int, before: float) -> list[Connection]:
    """Those to close first, of what they do since before then: the phases in turn, and who is longest at it."""
    candidates = [one for one in connections if _waits_since(one) <= before]
    return heapq.nsmallest(count, candidates, key=lambda one: (one.phase, _waits_since(one)))


def _waits_since(one: Connection) -> float:
    """Since when it waits for its client: to send, or to read an answer. Infinity: it does not."""
    if one.phase is not Phase.BUSY:
        return one.since
    return one.unread_since if one.unread else math.inf


def peer_of(address: object) -> str:
    """Whom a socket's address stands for: an IPv4 address, or the 64 bits of IPv6 that one network has."""
    if not isinstance(address, tuple):
        return ""
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


@dataclass(slots=True)
class Crowd:
    """Connections that share a bound."""

    most: int
    members: dict[Connection, None] = field(default_factory=dict)
    look_after: float = 0.0

    @property
    def full(self) -> bool:
        return len(self.members) >= self.most

    @property
    def overfull(self) -> bool:
        """Not even those find a place that are to be told that there is none."""
        return len(self.members) >= self.most + SPARE

    def superfluous(self, now: float) -> list[Connection]:
        """Some to close, if another finds no place."""
        if not self.full or now < self.look_after:
            return []
        some = max(1, len(self.members) // BATCH)
        found = least_missed(self.members, some, now - WELCOME_S)
        if not found and self.overfull:
            found = least_missed(self.members, some, now)
        if not found:
            self.look_after = now + LOOK_AGAIN_S
        return found


class Connections:
    """The connections there are: `most` of them, `per_peer` from one address."""

    def __init__(self, most: int, per_peer: int, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self._all = Crowd(most)
        self._per_peer = per_peer
        self._peers: dict[str, Crowd] = {}

    def enter(self, newcomer: Connection) -> bool:
        """Whether there is a place for it, if need be that of one that does nothing. It has to leave in any case."""
        now = asyncio.get_running_loop().time()
        for crowd in self._of(newcomer):
            for one in crowd.superfluous(now):
                self.leave(one)
                one.give_up()
        crowds = self._of(newcomer)
        full, overfull = any(crowd.full for crowd in crowds), any(crowd.overfull for crowd in crowds)
        for crowd in crowds:
            crowd.members[newcomer] = None
        if overfull:
            newcomer.give_up()
        return not full

    def leave(self, one: Connection) -> None:
        """It is closed, or about to be."""
        for crowd in self._of(one):
            crowd.members.pop(one, None)
        if not self._peers[one.peer].members:
            del self._peers[one.peer]

    def _of(self, one: Connection) -> tuple[Crowd, Crowd]:
        return self._peers.setdefault(one.peer, Crowd(self._per_peer)), self._all

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Close those whose time is over, for as long as the block lasts."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._sweep(), name="connections")
            try:
                yield
            finally:
                task.cancel()

    async def _sweep(self) -> None:
        deadlines, loop = self.deadlines, asyncio.get_running_loop()
        shortest = min(deadlines.head_s, deadlines.keepalive_s, deadlines.send_s)
        while True:
            await asyncio.sleep(min(SWEEP_S, shortest / 4))
            now = loop.time()
            for one in [one for one in self._all.members if overdue(one, now, deadlines)]:
                one.expire()
