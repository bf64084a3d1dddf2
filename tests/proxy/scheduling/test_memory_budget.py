"""Bytes held for clients: never more than there are, small ones beside large ones, slow ones lose theirs first."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Crowded
from proxy.scheduling.memory_budget import MemoryBudget, Reservation
from proxy.types import ServiceLoad


@dataclass(slots=True)
class Sending:
    """A transfer that is as slow as it is told to be."""

    slow: bool
    given_up: bool = False

    def give_up(self) -> None:
        self.given_up = True


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 400), st.booleans()), max_size=40))
def test_no_more_is_held_than_there_is_and_what_is_held_is_what_the_rooms_have(
    steps: list[tuple[int, int, bool]],
) -> None:
    budget = MemoryBudget(1000)
    rooms = [Reservation(budget) for _ in range(5)]
    for which, size, closes in steps:
        with suppress(Crowded):
            rooms[which].close() if closes else rooms[which].grow(size)
        assert sum(room.size for room in rooms) == budget.held <= budget.total


def test_a_small_request_finds_room_beside_large_ones() -> None:
    budget = MemoryBudget(1000, lambda: 17)
    large, other, small = Reservation(budget), Reservation(budget), Reservation(budget)
    large.grow(700)
    with pytest.raises(Crowded, match="700 bytes are held") as raised:
        other.grow(100)
    assert raised.value.retry_after_s == 17
    small.grow(3)
    assert budget.held == 703


@pytest.mark.parametrize(("tokens", "speed", "seconds"), [(0, 0, 2), (100, 1000, 2), (9000, 1000, 5), (10**9, 1, 60)])
def test_what_finds_no_memory_is_told_when_half_of_the_queue_is_computed(tokens: int, speed: int, seconds: int) -> None:
    assert ServiceLoad(queue_tokens=tokens, tokens_per_s=speed).retry_after_s == seconds


def test_room_is_given_back_with_the_block_unless_it_was_moved() -> None:
    budget = MemoryBudget(1000)
    with budget.room() as room:
        room.grow(100)
        moved = room.moved()
        room.grow(50)
    assert budget.held == 100
    moved.close()
    assert budget.held == 0


def test_only_slow_transfers_lose_room_and_only_when_it_is_needed() -> None:
    budget = MemoryBudget(1000)
    quick, slow, other = Sending(slow=False), Sending(slow=True), Sending(slow=True)
    with ExitStack() as exits:
        for transfer in (quick, slow, other):
            room = exits.enter_context(budget.room())
            room.grow(200)
            exits.enter_context(room.used_by(transfer))
        newcomer = exits.enter_context(budget.room())
        newcomer.grow(100)
        assert not slow.given_up
        newcomer.grow(200)
        assert [quick.given_up, slow.given_up, other.given_up] == [False, True, False]
    assert (budget.held, budget.transfers) == (0, {})
