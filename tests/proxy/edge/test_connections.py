"""Which connections are closed: overdue ones, and idle ones when there is no room for another."""

import asyncio
from dataclasses import dataclass

import pytest

from proxy.edge.connections import Connections, Deadlines, Phase, first_to_close, overdue, peer_of
from proxy.process.open_files import SPARE

DEADLINES = Deadlines(head_s=10, keepalive_s=60, send_s=30, min_rate=1000)


@dataclass(slots=True, eq=False)
class Fake:
    """A connection that remembers how it ended."""

    phase: Phase = Phase.HEAD
    since: float = -10.0
    peer: str = "a"
    unread: int = 0
    unread_since: float = 0.0
    end: str = ""

    def expire(self) -> None:
        self.end = "expired"

    def give_up(self) -> None:
        self.end = "given up"


@pytest.mark.parametrize(
    ("one", "at", "over"),
    [
        (Fake(Phase.HEAD, 0), 9, False),
        (Fake(Phase.HEAD, 0), 11, True),
        (Fake(Phase.IDLE, 0), 11, False),
        (Fake(Phase.IDLE, 0), 61, True),
        (Fake(Phase.BODY, 0), 999, False),  # `proxy.edge.body` limits it
        (Fake(Phase.BUSY, 0), 999, False),
        (Fake(Phase.BUSY, 0, unread=5000), 34, False),
        (Fake(Phase.BUSY, 0, unread=5000), 36, True),
    ],
)
def test_each_phase_has_a_deadline(one: Fake, at: float, over: bool) -> None:
    assert overdue(one, at, DEADLINES) is over


def test_connections_without_a_request_are_closed_first_and_busy_ones_never() -> None:
    busy, body, idle = Fake(Phase.BUSY, 0), Fake(Phase.BODY, 1), Fake(Phase.IDLE, 2)
    old, new = Fake(Phase.HEAD, 3), Fake(Phase.HEAD, 8)
    unread, reading = Fake(Phase.BUSY, 0, unread=9, unread_since=5), Fake(Phase.BUSY, 0, unread=9, unread_since=8)
    everybody = [unread, reading, busy, body, idle, new, old]
    assert first_to_close(everybody, 9, before=7) == [old, idle, body, unread]


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("192.0.2.1", 80), "192.0.2.1"),
        (("::ffff:192.0.2.1", 80, 0, 0), "192.0.2.1"),
        (("2001:db8::1", 80, 0, 0), "2001:db8::/64"),
        (("2001:db8::ffff:1", 80, 0, 0), "2001:db8::/64"),
        (("fe80::1%eth0", 80, 0, 2), "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_peer_is_an_address_or_a_network(address: object, peer: str) -> None:
    assert peer_of(address) == peer


async def ended(*connections: Fake) -> None:
    """Wait until they are closed."""
    async with asyncio.timeout(10):
        while not all(one.end for one in connections):
            await asyncio.sleep(0.001)


async def test_idle_connections_make_room() -> None:
    connections = Connections(32, 32, DEADLINES)
    waiting = [Fake(since=-100.0 + number) for number in range(32)]
    for one in (*waiting, Fake()):
        connections.add(one)
    await ended(*waiting[:2])
    assert [one.end for one in waiting] == ["given up"] * 2 + [""] * 30


async def test_a_request_that_arrived_while_the_loop_was_busy_is_kept() -> None:
    connections = Connections(2, 2, DEADLINES)
    old, older, new = Fake(since=-20.0), Fake(since=-30.0), Fake()
    for one in (older, old, new):
        connections.add(one)
    older.phase = Phase.BUSY  # read in the same step of the loop, behind the new connection
    await ended(old)
    assert (older.end, new.end) == ("", "")


async def test_a_request_is_served_unless_all_places_have_requests() -> None:
    connections, now = Connections(2, 2, DEADLINES), asyncio.get_running_loop().time()
    new, newer, asking = Fake(since=now), Fake(Phase.BODY, since=now), Fake(Phase.BUSY, now)
    for one in (new, newer, asking):
        connections.add(one)
    assert connections.admits(asking)
    newer.since -= 0.5
    assert connections.admits(asking)
    assert (new.end, newer.end, asking.end) == ("", "given up", "")


async def test_when_all_are_busy_some_get_an_error_and_the_rest_are_closed() -> None:
    connections = Connections(10, 10, DEADLINES)
    busy = [Fake(Phase.BUSY) for _ in range(10)]
    for one in busy:
        connections.add(one)
    assert all(map(connections.admits, busy))
    told = [Fake(Phase.BUSY) for _ in range(SPARE)]
    for one in told:
        connections.add(one)
    assert not any(map(connections.admits, told))
    connections.add(too_many := Fake(Phase.BUSY))
    async with asyncio.timeout(10):
        while not any(one.end for one in (*told, too_many)):
            await asyncio.sleep(0.001)
    assert [one.end for one in (*busy, *told, too_many) if one.end] == ["given up"]
    for one in (*busy, *told, too_many):
        connections.remove(one)
    last = Fake(Phase.BUSY)
    connections.add(last)
    assert connections.admits(last)


async def test_one_address_leaves_room_for_others() -> None:
    connections = Connections(10, 5, DEADLINES)
    of_one, other = [Fake(Phase.BUSY) for _ in range(6)], Fake(Phase.BUSY, peer="b")
    for one in (*of_one, other):
        connections.add(one)
    assert (connections.admits(of_one[-1]), connections.admits(other)) == (False, True)


async def test_overdue_connections_are_closed() -> None:
    connections = Connections(10, 10, Deadlines(head_s=0.02, keepalive_s=99, send_s=99, min_rate=1))
    late, idle = Fake(), Fake(Phase.IDLE, asyncio.get_running_loop().time())
    connections.add(late)
    connections.add(idle)
    async with connections.watched(), asyncio.timeout(10):
        while not late.end:
            await asyncio.sleep(0.005)
    assert (late.end, idle.end) == ("expired", "")
