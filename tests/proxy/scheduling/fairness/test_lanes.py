"""Fair shares of interactive and bulk requests, and the size of their batches."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.scheduling.batch_queue import AGEING_S, BATCH_S, MIN_BULK_SHARE
from tests.support.engines.queued_requests import BATCH, LENGTHS, SLOTS, SMALL, enqueue, owners, queue, tokens


@given(st.lists(st.integers(1, BATCH), min_size=20, max_size=60), st.integers(0, 10), st.integers(1, SMALL))
def test_a_query_is_in_one_of_the_next_two_batches_whatever_bulk_waits(
    bulk: list[int], calls: int, length: int
) -> None:
    waiting = queue()
    enqueue(waiting, *bulk)
    for _ in range(calls):
        waiting.next_batch(0, interactive_lately=True)
    query = enqueue(waiting, length)
    assert query in owners([*waiting.next_batch(0), *waiting.next_batch(0)])


@settings(max_examples=25)
@given(st.integers(1, SMALL), st.integers(1, SMALL))
def test_bulk_has_its_share_however_many_queries_come(query: int, length: int) -> None:
    waiting = queue()
    bulk = enqueue(waiting, *[length] * 500)
    had = total = calls = 0
    for _ in range(100):
        while waiting.texts - len([t for t in bulk.texts if not t.taken]) < SLOTS:
            enqueue(waiting, query)
        call = waiting.next_batch(0, interactive_lately=True)
        calls += 1
        had, total = had + tokens(call, bulk), total + tokens(call)
    slots_are_the_limit = (SLOTS // 2) * length  # a batch gives it half of its texts at most
    assert had >= min(MIN_BULK_SHARE * total, calls * slots_are_the_limit / 2) - 2 * BATCH
    assert total - had >= 0.4 * total - 2 * BATCH or query * SLOTS < length


def test_bulk_that_waited_long_has_more() -> None:
    def share(now: float) -> float:
        waiting = queue()
        bulk = enqueue(waiting, *[20] * 400)
        had = total = 0
        for _ in range(40):
            enqueue(waiting, 20)
            enqueue(waiting, 20)
            enqueue(waiting, 20)
            enqueue(waiting, 20)
            bulk.since = 0.0
            call = waiting.next_batch(now, interactive_lately=True)
            had, total = had + tokens(call, bulk), total + tokens(call)
        return had / total

    assert share(0.0) == pytest.approx(0.25, abs=0.05)
    assert share(10 * AGEING_S) == pytest.approx(0.5, abs=0.05)


def test_batches_with_bulk_are_small_only_after_a_recent_interactive_request() -> None:
    waiting = queue()
    enqueue(waiting, *[10] * 50)
    assert len(waiting.next_batch(0, interactive_lately=False)) == SLOTS
    assert len(waiting.next_batch(0, interactive_lately=True)) == SLOTS // 2


def test_a_small_request_that_says_so_is_bulk() -> None:
    waiting = queue()
    piece, query = enqueue(waiting, SMALL, bulk=True), enqueue(waiting, SMALL)
    assert (piece.interactive, query.interactive) == (False, True)
    assert owners(waiting.next_batch(0))[0] is query


@given(LENGTHS, LENGTHS, st.floats(1, 10 * BATCH / BATCH_S))
def test_a_batch_takes_about_a_quarter_of_a_second_at_most_or_is_one_text(
    bulk: list[int], queries: list[int], speed: float
) -> None:
    waiting = queue()
    enqueue(waiting, *bulk)
    for length in queries:
        enqueue(waiting, length)
    while waiting:
        call = waiting.next_batch(0, speed=speed)
        assert len(call) == 1 or tokens(call) <= min(BATCH, max(BATCH // 8, speed * BATCH_S))


def test_the_bulk_deficit_of_long_batches_is_not_spent_in_many_short_ones() -> None:
    waiting = queue()
    enqueue(waiting, *[1] * 3000)
    for _ in range(200):
        enqueue(waiting, *[SMALL // 2] * 2)
        waiting.next_batch(0)  # bulk cannot have what it is owed: it is slots that it lacks
    enqueue(waiting, *[BATCH // 5] * 60)
    query = enqueue(waiting, 5)
    speed = BATCH / 4 / BATCH_S
    assert query in owners([text for _ in range(3) for text in waiting.next_batch(0, speed=speed)])
