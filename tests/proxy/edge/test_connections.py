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


async def test_idle_connections_make_room() -> None:
    connections = Connections(32, 32, DEADLINES)
    waiting = [Fake(since=-100.0 + number) for number in range(32)]
    assert all(connections.add(one) for one in waiting)
    assert connections.add(Fake())
    assert [one.end for one in waiting] == ["given up"] * 2 + [""] * 30


async def test_when_all_are_busy_some_get_an_error_and_the_rest_are_closed() -> None:
    connections = Connections(10, 10, DEADLINES)
    busy = [Fake(Phase.BUSY) for _ in range(10)]
    assert all(connections.add(one) for one in busy)
    told = [Fake(Phase.BUSY) for _ in range(SPARE)]
    assert not any(connections.add(one) for one in told)
    too_many = Fake()
    assert not connections.add(too_many)
    assert ({one.end for one in busy + told}, too_many.end) == ({""}, "given up")
    for one in (*busy, *told, too_many):
        connections.remove(one)
    assert connections.add(Fake())


async def test_one_address_leaves_room_for_others() -> None:
    connections = Connections(10, 5, DEADLINES)
    assert [connections.add(Fake(Phase.BUSY)) for _ in range(6)] == [True] * 5 + [False]
    assert connections.add(Fake(Phase.BUSY, peer="b"))


async def test_overdue_connections_are_closed() -> None:
    connections = Connections(10, 10, Deadlines(head_s=0.02, keepalive_s=99, send_s=99, min_rate=1))
    late, idle = Fake(), Fake(Phase.IDLE, asyncio.get_running_loop().time())
    connections.add(late)
    connections.add(idle)
    async with connections.watched(), asyncio.timeout(10):
        while not late.end:
            await asyncio.sleep(0.005)
    assert (late.end, idle.end) == ("expired", "")
