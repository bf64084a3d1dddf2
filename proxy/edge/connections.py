"""Limits on connections: how many in all and from one address, and how long each may take for what it does."""

import asyncio
import heapq
import ipaddress
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from proxy.process.open_files import SPARE

BATCH = 16  # when full, one in so many connections is closed at once: each search scans all of them
RETRY_SEARCH_S = 0.05  # after a search that found none to close
_GRACE_S = 1.0  # a connection is not closed so early in a phase: its data may be under way
_SHORT_GRACE_S = 0.2  # the same where there is no room for a request
SWEEP_S = 1.0


class Phase(IntEnum):
    """What a connection is doing; the lower, the sooner it is closed to make room."""

    HEAD = 0  # waiting for a request's head: the first one, or the rest of one
    IDLE = 1  # between a response and the next request
    BODY = 2  # receiving a request's body
    BUSY = 3  # its request is computed or answered; closed to make room only if the answer is not read


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds for a request's head, for an idle connection, and for a client to read a response.

    The last one grows with the unread bytes, at `min_rate` bytes a second. For a body see `body.BodyLimits`.
    """

    head_s: float
    keepalive_s: float
    send_s: float
    min_rate: float


class Connection(Protocol):
    """What the limits need to know of a connection."""

    peer: str
    phase: Phase
    since: float  # when the phase began
    unread: int  # bytes of a response still unsent when the client stopped reading; 0: it is reading
    unread_since: float

    def expire(self) -> None:
        """Close it: its deadline has passed."""

    def give_up(self) -> None:
        """Close it to make room for another."""


def overdue(one: Connection, now: float, deadlines: Deadlines) -> bool:
    """Whether the deadline of its current phase has passed."""
    if one.unread:
        return now - one.unread_since > deadlines.send_s + one.unread / deadlines.min_rate
    allowed = {Phase.HEAD: deadlines.head_s, Phase.IDLE: deadlines.keepalive_s}.get(one.phase)
    return allowed is not None and now - one.since > allowed


def first_to_close(connections: Iterable[Connection], count: int, before: float) -> list[Connection]:
    """Of those that have waited for their client since before then, the first to close: by phase, the longest first."""
    candidates = [one for one in connections if _waits_since(one) <= before]
    return heapq.nsmallest(count, candidates, key=lambda one: (one.phase, _waits_since(one)))


def without_request(connections: Iterable[Connection]) -> list[Connection]:
    """Those without a request now, however new: one that has a request is worth more."""
    return [one for one in connections if one.phase in {Phase.HEAD, Phase.IDLE}]


def _waits_since(one: Connection) -> float:
    """Since when it waits for its client, to send or to read an answer; infinity if it does not wait."""
    if one.phase is not Phase.BUSY:
        return one.since
    return one.unread_since if one.unread else math.inf


def peer_of(address: object) -> str:
    """The client that a socket's address stands for: an IPv4 address, or the /64 of an IPv6 address."""
    if not isinstance(address, tuple):
        return ""
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


@dataclass(slots=True)
class ConnectionGroup:
    """Connections that share a limit."""

    limit: int
    members: dict[Connection, None] = field(default_factory=dict)
    search_after: float = 0.0

    @property
    def excess(self) -> int:
        """How many members are too many."""
        return max(0, len(self.members) - self.limit)

    @property
    def overfull(self) -> bool:
        """Whether there is no room even for an error response."""
        return self.excess > SPARE

    @property
    def busy(self) -> bool:
        """Whether too many members have requests."""
        return bool(self.excess) and sum(one.phase is Phase.BUSY for one in self.members) > self.limit

    def to_close(self, now: float, *, for_request: bool) -> list[Connection]:
        """Connections to close if there are too many."""
        if not self.excess or (now < self.search_after and not for_request):
            return []
        some = max(self.excess, len(self.members) // BATCH)
        found = first_to_close(self.members, some, now - _GRACE_S)
        if not found and (for_request or self.overfull):
            found = first_to_close(self.members, self.excess, now - _SHORT_GRACE_S)
        if not found and self.overfull:
            found = first_to_close(without_request(self.members), self.excess, now)
        if not found:
            self.search_after = now + RETRY_SEARCH_S
        return found


class Connections:
    """All open connections: `limit` of them, `per_peer` from one address."""

    def __init__(self, limit: int, per_peer: int, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self._all = ConnectionGroup(limit)
        self._per_peer = per_peer
        self._peers: dict[str, ConnectionGroup] = {}

    def add(self, connection: Connection) -> None:
        """Count it; if there are then too many, some are closed soon. Whoever adds it must remove it."""
        groups = self._groups_of(connection)
        for group in groups:
            group.members[connection] = None
        if any(group.excess for group in groups):
            # Not at once: what clients sent while the loop was busy is read first, and makes them worth keeping.
            asyncio.get_running_loop().call_later(0, self._make_room, connection)

    def admits(self, connection: Connection) -> bool:
        """Whether its request is within the limits; others that wait for their clients may be closed for it."""
        if connection in self._all.members:
            self._close_excess(connection, for_request=True)
        return not any(group.busy for group in self._groups_of(connection))

    def _make_room(self, connection: Connection) -> None:
        if connection in self._all.members:
            self._close_excess(connection, for_request=False)
            if any(group.overfull for group in self._groups_of(connection)):
                self._close(connection)

    def _close_excess(self, connection: Connection, *, for_request: bool) -> None:
        now = asyncio.get_running_loop().time()
        for group in self._groups_of(connection):
            for one in group.to_close(now, for_request=for_request):
                self._close(one)

    def _close(self, one: Connection) -> None:
        self.remove(one)
        one.give_up()

    def remove(self, one: Connection) -> None:
        """Forget a connection that is closed, or about to be."""
        for group in self._groups_of(one):
            group.members.pop(one, None)
        if not self._peers[one.peer].members:
            del self._peers[one.peer]

    def _groups_of(self, one: Connection) -> tuple[ConnectionGroup, ConnectionGroup]:
        return self._peers.setdefault(one.peer, ConnectionGroup(self._per_peer)), self._all

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Close overdue connections for the duration of the block."""
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
