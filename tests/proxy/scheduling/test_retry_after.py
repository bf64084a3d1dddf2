"""Rejected requests that come back as told find room, however many were rejected at once."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Overloaded
from proxy.models.admission import Admission, estimate
from proxy.scheduling.throughput import GUESS, LONGEST_RETRY_S, RetrySchedule, Throughput
from tests.support.engines.scripted import Engine, called, serving


def refused_again(told: Sequence[int], sizes: Sequence[int], *, room: int, per_s: float) -> int:
    """How many do not fit when they come back as told to a full queue that drains at that speed."""
    queued, last, again = float(room), 0, 0
    for seconds, tokens in sorted(zip(told, sizes, strict=True)):
        queued, last = max(0.0, queued - per_s * (seconds - last)), seconds
        if queued and queued + tokens > room + 1e-6:
            again += 1
        else:
            queued += tokens
    return again


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=80),
    st.integers(1000, 50_000),
    st.floats(200, 20_000),
    st.floats(0, 1e6),
)
def test_all_requests_rejected_at_once_find_room_when_they_come_back(
    sizes: list[int], room: int, per_s: float, now: float
) -> None:
    schedule = RetrySchedule()
    told = [schedule.book(now, tokens, queued=room, room=room, per_s=per_s) for tokens in sizes]
    assert all(1 <= seconds <= LONGEST_RETRY_S for seconds in told)
    if max(told) < LONGEST_RETRY_S:
        assert refused_again(told, sizes, room=room, per_s=per_s) == 0
        assert max(told) <= 2 + 2 * (room + sum(sizes)) / min(per_s, room), "no wait is needlessly long"


def test_a_booking_counts_until_it_is_due_and_not_longer() -> None:
    schedule = RetrySchedule()
    first = [schedule.book(0.5, 100, queued=100, room=100, per_s=10) for _ in range(3)]
    assert first == [10, 20, 30]
    assert schedule.book(12.5, 100, queued=100, room=100, per_s=10) == 30
    assert schedule.book(1000.0, 100, queued=0, room=100, per_s=10) == 1


def test_a_request_larger_than_the_queue_is_told_when_it_is_empty() -> None:
    assert RetrySchedule().book(0.0, 10**6, queued=50, room=100, per_s=10) == 5


def test_the_speed_is_a_guess_until_the_first_batch() -> None:
    throughput = Throughput()
    assert (throughput.tokens_per_s, throughput.drained_per_s) == (0.0, GUESS)
    throughput.guess = 50.0
    assert throughput.drained_per_s == 50.0
    throughput.record(100, 1.0, turn_s=4.0)  # others on the same cores had their turns meanwhile
    assert (throughput.tokens_per_s, throughput.drained_per_s) == (100.0, 25.0)


async def test_a_flood_is_told_different_times_before_the_first_answer() -> None:
    engine = Engine()
    engine.gate.clear()
    async with serving(engine, max_tokens=100) as dispatcher:
        dispatcher.throughput.guess = 20.0
        waiting = [asyncio.ensure_future(dispatcher.embed([[n] * 20])) for n in range(10)]
        await called(engine)
        told = []
        for done in [task for task in waiting if task.done()]:
            error = done.exception()
            assert isinstance(error, Overloaded)
            told.append(error.retry_after_s)
        engine.gate.set()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert told == list(range(1, 1 + len(told)))
    assert len(told) >= 4


async def test_an_estimate_is_corrected_by_what_was_counted() -> None:
    async with serving(Engine(), max_tokens=1000) as dispatcher:
        admission = Admission(dispatcher)
        texts = ["\u6587" * 100] * 3
        with admission.admitted(estimate(texts)):
            assert admission.incoming_tokens == 3 * 26
        admission.counted(estimate(texts), 300)
        with admission.admitted(estimate(texts)):
            assert admission.incoming_tokens == 300
            with (
                admission.admitted(estimate(texts)),
                pytest.raises(Overloaded),
                admission.admitted(estimate(texts * 2)),
            ):
                pass
        assert (admission.incoming_tokens, admission.requests) == (0, 3)
